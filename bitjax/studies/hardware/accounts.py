"""What published networks cost, counted without training them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from bitjax import nn
from bitjax.studies.recipes import families
from bitjax.studies.recipes import zoo

if TYPE_CHECKING:
  import xarray

__all__ = ['COUNTED', 'PARTS', 'counted']

# Label -> name, shortcuts, and the quantizers of weights and activations.
_PLAIN, _REAL = 'plain', 'bireal'
_BITS = {b: families.BITS[b][1:] for b in ('1', '2', '4', '32')}
_MIXED = ('sign', 'none')
COUNTED = {
  'ResNet-20, W1A1': ('resnet20', _PLAIN, *_BITS['1']),
  'ResNet-20, W1A1, Bi-Real': ('resnet20', _REAL, *_BITS['1']),
  'ResNet-20, W1A32': ('resnet20', _PLAIN, *_MIXED),
  'ResNet-20, W2A2': ('resnet20', _PLAIN, *_BITS['2']),
  'ResNet-20, W4A4': ('resnet20', _PLAIN, *_BITS['4']),
  'ResNet-20, W32A32': ('resnet20', _PLAIN, *_BITS['32']),
  'ResNet-32, W1A1': ('resnet32', _PLAIN, *_BITS['1']),
  'ResNet-32, W1A1, Bi-Real': ('resnet32', _REAL, *_BITS['1']),
  'ResNet-18, W1A1, Bi-Real': ('resnet18', _REAL, *_BITS['1']),
  'ResNet-18, W4A4': ('resnet18', _PLAIN, *_BITS['4']),
  'ResNet-18, W32A32': ('resnet18', _PLAIN, *_BITS['32']),
  'VGG-small, W1A1': ('vgg_small', _PLAIN, *_BITS['1']),
  'VGG-small, W2A2': ('vgg_small', _PLAIN, *_BITS['2']),
  'VGG-small, W4A4': ('vgg_small', _PLAIN, *_BITS['4']),
  'VGG-small, W32A32': ('vgg_small', _PLAIN, *_BITS['32']),
}
PARTS = ('arithmetic', 'weights', 'features', 'shortcuts')
_IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')  # Of CIFAR.
_MICROJOULE = 1e6  # Picojoules.


def counted() -> xarray.Dataset:
  """Returns the costs of every network in `COUNTED` for an image of CIFAR.

  Returns:
    Over ``counted``: ``counted_operations``, ``counted_memory`` in bytes; in microjoules by
    ``part`` and ``side`` (low and high), ``counted_energy``, and ``float_energy``, the
    same of those layers that multiply floats.
  """
  import xarray

  operations, memory, energies, floats = [], [], [], []
  for network, variant, weights, activations in COUNTED.values():
    model = zoo.build(
      network,
      variant,
      weights,
      activations,
      num_classes=10,
      init_name='kaiming_normal',
    )
    costs = nn.summary(model, _IMAGE)
    energy = nn.energy(costs)
    operations.append(float(costs.total.operations))
    memory.append(costs.total.memory)
    real = {row.path for row in costs.layers if row.flops}
    rows = [row for row in energy.layers if row.path in real]
    energies.append(_table([energy.total]))
    floats.append(_table(rows))
  axes = ('counted', 'part', 'side')
  return xarray.Dataset(
    {
      'counted_operations': ('counted', operations),
      'counted_memory': ('counted', memory),
      'counted_energy': (axes, energies),
      'float_energy': (axes, floats),
    },
    {'counted': list(COUNTED), 'part': list(PARTS), 'side': ['low', 'high']},
  )


def _table(rows):
  """Returns the microjoules of some layers together, [parts, sides]."""
  each = [[getattr(row, part) for part in PARTS] for row in rows]
  return np.sum(each, axis=0) / _MICROJOULE
