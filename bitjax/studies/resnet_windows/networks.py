"""The networks of the study, and where they start.

Bi-Real Net has no activation but the sign (``'identity'``): its shortcuts carry sums of any
size, so that windows wider than 1 differ from no window. With a ``'hardtanh'`` behind every
sum, all that enters a sign lies in [-1, 1], and they do not.

In full precision a hardtanh stands in the place of the sign, as in Bi-Real Net's own
pretraining, so that both networks have the same shortcuts.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import quantizers
from bitjax import training
from bitjax import types
from bitjax.studies import recipes

__all__ = [
  'ACTIVATIONS',
  'NETWORKS',
  'Hardtanh',
  'binary',
  'build',
  'initial',
  'layers',
  'with_thresholds',
]

# Name -> the name in `recipes.NETWORKS`, and what is different.
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
  'resnet4': ('resnet4', {}),
  'resnet8_narrow': ('resnet8_narrow', {}),
  'resnet8': ('resnet8', {}),
  'resnet20_narrow': ('resnet20', {'widths': (8, 16, 32)}),
  'resnet20': ('resnet20', {}),
}
NETWORKS = tuple(_NETWORKS)
ACTIVATIONS = ('identity', 'hardtanh')
# The variant with a parameter for each channel that is subtracted before a sign.
_SHIFTED = 'react'


@dataclasses.dataclass(frozen=True)
class Hardtanh:
  """Clips to [-1, 1]: what stands before a convolution of full precision."""

  def __call__(
    self, x: types.Array, *, progress: types.Scalar = 1.0
  ) -> types.Array:
    """Returns ``x``, clipped, whatever the progress."""
    del progress
    return jnp.clip(x, -1, 1)


def build(
  network: str,
  estimator: quantizers.Estimator | None,
  num_classes: int,
  *,
  activation: str,
  shifted: bool = False,
  **arithmetic: Any,
) -> Any:
  """Returns a network with Bi-Real's shortcuts.

  Args:
    network: one of `NETWORKS`.
    estimator: of the activations' sign; None for a network of full precision.
    num_classes: outputs.
    activation: one of `ACTIVATIONS`, behind every sum.
    shifted: whether each sign has a threshold for every channel, in ``params``.
    **arithmetic: ``precision`` and ``dtype``.
  """
  sign: Any = Hardtanh()
  if estimator is not None:
    sign = quantizers.attach(quantizers.sign(), estimator)
  name, fields = _NETWORKS[network]
  return recipes.build(
    name,
    _SHIFTED if shifted else 'bireal',
    'none' if estimator is None else 'sign',
    sign,
    num_classes=num_classes,
    init_name='kaiming_normal',
    activation=activation,
    **fields,
    **arithmetic,
  )


def binary(network: str) -> str:
  """Returns a regular expression for the paths of quantized layers."""
  name, _ = _NETWORKS[network]
  return recipes.NETWORKS[name].binary


def layers(network: str, params: Mapping[str, Any]) -> list[str]:
  """Returns the paths of quantized layers, from first to last.

  Args:
    network: one of `NETWORKS`.
    params: its parameters.
  """
  paths = (path.removesuffix('/kernel') for path in training.kernels(params))
  return [path for path in paths if re.fullmatch(binary(network), path)]


def initial(model: Any, train: data.Dataset, seed: int) -> dict[str, Any]:
  """Returns the random variables of a seed, the same in every arm.

  Args:
    model: the network of full precision.
    train: the training set, whose images have the shape.
    seed: the seed.
  """
  images = training.preparation(train)(jnp.asarray(train.images[:1]))
  # Compiles faster than threefry.
  key = jax.random.key(seed, impl='rbg')
  return jax.device_get(_initialiser(model)(key, images))


@functools.lru_cache(maxsize=4)
def _initialiser(model):
  return jax.jit(model.init)


def with_thresholds(
  params: Mapping[str, Any], thresholds: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the parameters of a network that is ``shifted``.

  Args:
    params: those of the network without thresholds.
    thresholds: of the sign before each quantized layer, by the layer's path.
  """
  found = jax.tree.map(lambda leaf: leaf, dict(params))  # A copy of all dicts.
  for path, value in thresholds.items():
    block, layer = path.split('/')
    number = layer.rpartition('_')[2]
    channels = np.shape(params[block][layer]['kernel'])[-2]
    threshold = jnp.full(channels, value, jnp.float32)
    found[block][f'Threshold_{number}'] = {'threshold': threshold}
  return found
