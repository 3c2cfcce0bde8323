"""A network, data and a task as small as they can be, for the tests of training.

As a program, ``python tiny.py FOLDER CHUNKS``, it trains and kills itself after so
many chunks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import nn as networks
from bitjax import quantizers
from bitjax import training

SIGN = quantizers.attach(quantizers.sign(), quantizers.identity())
SOFT = quantizers.attach(quantizers.sign(), quantizers.error_decay(0.1))
BATCH = 4
STEPS = 13  # Two epochs and a half.
CHUNK = 2  # The third chunk ends with the epoch, the others within it.


class Net(nn.Module):
  """Three layers, of which the middle one may be quantized."""

  weights: Any = SIGN
  inputs: Any = SOFT
  scaling: Any = 'mean_abs'
  norm: bool = True
  width: int = 6
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images, *, train=False, progress=1.0):
    x = images.reshape(images.shape[0], -1)
    # No bias: the normalisation would undo it, its gradient would be rounding.
    x = networks.QuantDense(self.width, use_bias=False, name='Dense_0')(x)
    if self.norm:
      x = networks.BatchNorm(axis_name=self.axis_name, name='BatchNorm_0')(
        x, train=train
      )
    x = networks.QuantDense(
      self.width,
      kernel_quantizer=self.weights,
      input_quantizer=self.inputs,
      scaling=self.scaling if self.weights is not None else 'none',
      name='Block_0',
    )(x, progress=progress)
    return networks.QuantDense(3, name='Dense_1')(x)


@contextlib.contextmanager
def as_in_tests():
  """Sets JAX as tests do, so that fixtures and tests share compiled programs."""
  jax.config.update('jax_disable_most_optimizations', True)
  with jax.numpy_rank_promotion('raise'), jax.debug_key_reuse(True):
    yield


def dataset(num=21, seed=0):
  """Images of three classes, hard to tell apart."""
  draw = np.random.default_rng(seed)
  labels = draw.integers(0, 3, num).astype(np.int32)
  images = (
    draw.integers(0, 200, (num, 4, 4, 1)) + 20 * labels[:, None, None, None]
  )
  return data.Dataset(
    'tiny', 'train', images.astype(np.uint8), labels, 3, 1 / 255
  )


def prepare(images):
  return images.astype(jnp.float32) / 128 - 1


def task(model=None, tx=None, **options):
  """Makes a task, with Adam by default."""
  if tx is None:
    tx = training.optimizer('adam', 0.02)
  options = {'progress': training.progress('linear', STEPS)} | options
  return training.Task(model or Net(), tx, 3, prepare, **options)


def batches(part):
  return data.padded_batches(part, 8)


def probe(part):
  return data.Batch(jnp.asarray(part.images[:8]), jnp.asarray(part.labels[:8]))


class Stop:
  """A reporter that stops a training after some chunks."""

  def __init__(self, chunks, stop):
    self.chunks, self.stop = chunks, stop
    self.calls, self.compiled = [], []

  def begin(self, total, done, unit):
    assert unit == 'images'
    self.calls.append((total, done))

  def compiling(self, label):
    self.compiled.append(label)

  def advance(self, images, label):
    self.calls.append((images, label))
    if len(self.calls) > self.chunks:
      self.stop()


def train(
  what,
  folder=None,
  *,
  seeds=(3,),
  report=None,
  until=STEPS,
  scored=True,
  **options,
):
  """Trains on the data of this file; evaluates and describes if scored."""
  phases = what
  if isinstance(what, training.Task):
    phases = training.Phase(what, until)
  part = dataset()
  options = {'chunk': CHUNK} | options
  return training.fit(
    phases,
    [data.device_feed(part, BATCH, seed) for seed in seeds],
    seeds,
    validation=batches(dataset(11, 1)) if scored else None,
    probe=probe(part) if scored else None,
    folder=folder,
    report=report,
    **options,
  )


def start(what, seed, **options):
  """Returns the state that a training begins with."""
  part = dataset()
  indices = data.device_feed(part, BATCH, seed).chunk(0, 1)[0]
  images = prepare(jnp.asarray(part.images[indices]))
  return training.create(what.model, what.tx, [seed], images, **options)


def main(folder, chunks):
  def kill():
    os.kill(os.getpid(), signal.SIGKILL)

  train(task(), folder, report=Stop(int(chunks), kill))


if __name__ == '__main__':
  main(*sys.argv[1:])
