r"""The weights from which networks start: any initialisation of kernels, by seed.

A seed draws from the same random bits in every arm. So all starts whose kernels are
uniform have the same signs, as do all that are normal, and a small classifier is the
large one, scaled.

What LSUV does (Mishkin and Matas, 2016, https://arxiv.org/abs/1511.06422), unit variance
of what each layer gives by the scale of its kernel, does nothing before a normalisation. Here it is done by the scales of the
normalisations, one for each layer, for what enters the activations. With a shortcut s
and a normalised n the variance of :math:`\gamma n + s` is about :math:`\gamma^2` plus
that of s. So each pass over the batch adds what lacks to 1,

.. math:: \gamma^2 \leftarrow \max(\gamma^2 + 1 - \mathrm{var}, 0.01).
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import nn
from bitjax.studies.initialisation import arms as arms_lib

__all__ = ['CLASSIFIER', 'deviations', 'fitted_gains', 'shapes', 'variables']

CLASSIFIER = 'Dense_0'
_PASSES = 8  # Over the batch, to fit the scales of normalisations.
_LEAST = 0.01  # Square of the smallest scale.
_COLLECTIONS = ('params', 'batch_stats')


@functools.lru_cache(maxsize=16)
def shapes(model: Any, image: tuple[int, ...]) -> dict[str, Any]:
  """Returns the shapes of a network's variables.

  Args:
    model: the network.
    image: shape of an image.
  """
  found = jax.eval_shape(
    lambda key, images: model.init(
      key, images, **nn.call_options(model, train=False)
    ),
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, *image), jnp.float32),
  )
  return {name: found[name] for name in _COLLECTIONS}


def variables(
  model: Any,
  arm: arms_lib.Arm,
  seed: int,
  images: Any,
  labels: Any,
  *,
  quantized: str,
) -> dict[str, Any]:
  """Returns the variables with which a network of an arm starts.

  Args:
    model: the network.
    arm: how it starts.
    seed: the seed.
    images: a batch as the network sees it, to which scales may be fitted.
    labels: its labels, integers.
    quantized: a regular expression for the paths of quantized layers.
  """
  start = arms_lib.STARTS[arm.start]
  key = jax.random.key(seed, impl='rbg')  # Compiles faster than threefry.
  number = iter(range(10**6))

  def value(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    at = jax.random.fold_in(key, next(number))
    if name.endswith('kernel'):
      last = name.startswith(f'params/{CLASSIFIER}/')
      init = nn.INITS[arms_lib.REFERENCE if last else start.init]()
      kernel = np.asarray(init(at, leaf.shape, leaf.dtype))
      if last:
        return kernel * np.float32(arms_lib.SMALL if arm.small else 1)
      return kernel * np.float32(
        start.scale if re.search(quantized, name) else 1
      )
    if name.endswith('scale'):
      gain = 1.0 if start.gain is None else start.gain
      return np.full(leaf.shape, gain, leaf.dtype)
    ones = name.startswith('batch_stats') and name.endswith('var')
    return np.full(leaf.shape, 1 if ones else 0, leaf.dtype)

  found = jax.tree.map_with_path(value, shapes(model, images.shape[1:]))
  if start.gain is None:
    return fitted_gains(model, found, images, labels)
  return found


def fitted_gains(
  model: Any, given: Mapping[str, Any], images: Any, labels: Any
) -> dict[str, Any]:
  """Returns variables with scales of normalisations fitted to a batch.

  Args:
    model: a ResNet.
    given: its variables.
    images: the batch, as the network sees it.
    labels: its labels, integers.
  """
  found = dict(given)
  for _ in range(_PASSES):
    passed = nn.gradient_passing(model, found, images, labels, train=True)
    spreads = deviations(passed)

    def scaled(path, leaf, spreads=spreads):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      layer = re.sub(r'BatchNorm_(\d+)/scale$', r'Activation_\1', name)
      if layer == name:
        return leaf
      square = jnp.max(leaf) ** 2 + 1 - spreads[layer] ** 2
      return np.full_like(leaf, np.sqrt(max(float(square), _LEAST)))

    params = jax.tree.map_with_path(scaled, found['params'])
    found = found | {'params': params}
  return found


def deviations(passed: nn.GradientPassing) -> dict[str, float]:
  """Returns the standard deviation of what enters each activation, by its path."""
  return {
    row.path: float(row.input_std)
    for row in passed.layers
    if row.kernel_norm is None and row.input_std is not None
  }
