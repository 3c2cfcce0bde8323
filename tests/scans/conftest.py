"""A small layer on integers, and its loss in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())
FAN_IN, UNITS, CLASSES = 6, 4, 3


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


def view_and_loss(
  seed=0, examples=40, activation='sign', kernel=None, binary=True
):
  """A view on integers, and its loss in NumPy as a function of the kernel."""
  rng = np.random.default_rng(seed)
  x = rng.integers(-2, 3, size=(examples, FAN_IN)).astype(float)
  labels = rng.integers(0, CLASSES, examples)
  matrix = rng.integers(-2, 3, size=(UNITS, CLASSES)).astype(float)
  if kernel is None:
    kernel = rng.integers(-64, 65, size=(FAN_IN, UNITS)) / 256
  view = scans.LayerView(
    inputs=jnp.asarray(x, jnp.float32),
    kernel=jnp.asarray(kernel, jnp.float32),
    labels=jnp.asarray(labels),
    tail=(
      scans.Activation(activation, BINARY if activation == 'sign' else None),
      scans.Dense(jnp.asarray(matrix, jnp.float32)),
    ),
    quantizer=BINARY if binary else None,
    affine=scans.Affine(0.5, 0.25),
  )

  def loss(kernel):
    kernel = np.asarray(kernel, float)
    z = x @ (sign(kernel) if binary else kernel) * 0.5 + 0.25
    h = sign(z) if activation == 'sign' else np.maximum(z, 0)
    logits = h @ matrix
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return (total - logits[np.arange(examples), labels]).mean()

  return view, loss


@pytest.fixture
def make():
  """A function: a view on integers, and its loss as a function of the kernel."""
  return view_and_loss
