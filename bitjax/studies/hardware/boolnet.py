"""BoolNet's networks and Bi-Real's ResNet-18 on ImageNet, counted from their shapes.

BoolNet keeps feature maps as k *slices* of one bit each, and its shortcuts are logic (XNOR
and OR) between slices; Bi-Real adds shortcuts of 32 bits. The first convolution and the
classifier are in full precision in all, and so are Bi-Real's convolutions of shortcuts,
while BoolNet's are binary. The authors publish operations and energies, but not the table of
energies that they used, so what can be compared is the order.

References:
  Guo et al., BoolNet: minimizing the energy consumption of binary neural networks, 2021
  (https://arxiv.org/abs/2106.06991; table and code: https://github.com/hpi-xnor/BoolNet).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from bitjax import nn

if TYPE_CHECKING:
  import xarray

__all__ = ['PUBLISHED', 'Design', 'Published', 'counted', 'summary']


class Design(NamedTuple):
  """A network of this family.

  Attributes:
    slices: k, the number of one-bit slices of a feature map; 0 for Bi-Real's, of 32 bits.
    doubled: whether blocks hand on their input beside their output (BoolNet's own).
    enlarged: whether the last stage keeps the resolution of the one before.
  """

  slices: int
  doubled: bool = False
  enlarged: bool = False


class Published(NamedTuple):
  """A row of the authors' table.

  Attributes:
    design: the network.
    operations: OPs.
    energy: millijoules of an image.
  """

  design: Design
  operations: float
  energy: float


# Bi-Real's energy follows from the abstract: 4.6 times that of BoolNet (k = 4).
PUBLISHED = {
  'BaseNet, k = 1': Published(Design(1), 1.51e8, 0.61),
  'BaseNet, k = 4': Published(Design(4), 1.54e8, 0.74),
  'BoolNet, k = 4': Published(Design(4, doubled=True), 1.64e8, 0.84),
  'BoolNet*, k = 4': Published(
    Design(4, doubled=True, enlarged=True), 1.76e8, 1.18
  ),
  'Bi-Real': Published(Design(0), 1.63e8, 4.6 * 0.84),
}
_STAGES = ((64, 56), (128, 28), (256, 14), (512, 7))  # Channels and sides.
_BLOCKS = 2
_FLOAT = 32
_MILLIJOULE = 1e9  # Picojoules.


def counted() -> xarray.Dataset:
  """Returns what these networks cost by our count, and by the authors'.

  Returns:
    Over ``boolnet``: ``boolnet_operations``, ``boolnet_energy`` in millijoules by ``side``
    (low and high), ``published_operations`` and ``published_energy``.
  """
  import xarray

  costs = [summary(row.design) for row in PUBLISHED.values()]
  bands = [nn.energy(one).total.total for one in costs]
  return xarray.Dataset(
    {
      'boolnet_operations': (
        'boolnet',
        [float(one.total.operations) for one in costs],
      ),
      'boolnet_energy': (
        ('boolnet', 'side'),
        [[side / _MILLIJOULE for side in band] for band in bands],
      ),
      'published_operations': (
        'boolnet',
        [row.operations for row in PUBLISHED.values()],
      ),
      'published_energy': (
        'boolnet',
        [row.energy for row in PUBLISHED.values()],
      ),
    },
    {'boolnet': list(PUBLISHED), 'side': ['low', 'high']},
  )


def summary(design: Design) -> nn.Summary:
  """Returns the costs of a network for an image of 224 x 224."""
  rows = tuple(_rows(design))
  total = nn.LayerSummary(
    '',
    'total',
    None,
    _added(row.parameters for row in rows),
    {},
    _added(row.macs for row in rows),
    _added(row.features for row in rows),
    _added(row.shortcuts for row in rows),
  )
  return nn.Summary(rows, total)


def _added(counts):
  found = {}
  for one in counts:
    for key, number in one.items():
      found[key] = found.get(key, 0) + number
  return found


def _rows(design: Design) -> Iterator[nn.LayerSummary]:
  # The image and what the first convolution makes of it are floats.
  yield _conv('first', (3, 64, 7, 112), (_FLOAT, _FLOAT), read=3 * 224**2)
  if design.doubled:  # A depthwise convolution chooses where slices begin.
    yield _conv('slices', (1, 64, 3, 56), (_FLOAT, _FLOAT), read=64 * 56**2)
  channels, side = _STAGES[0]
  for stage, (out, smaller) in enumerate(_STAGES):
    new = smaller if not (design.enlarged and stage == 3) else side
    for block in range(_BLOCKS):
      first = not block and stage
      inputs = channels if first else out
      size = side if first else new
      if first:
        yield _shortcut(f'{stage}.shortcut', design, inputs, out, size, new)
      taken = inputs * (2 if first and design.doubled else 1)
      for number, given in enumerate((taken, out)):
        # A convolution reads each slice for a share of its outputs.
        side_in = size if number == 0 else new
        slices = design.slices or 1
        yield _conv(
          f'{stage}.{block}.{number}',
          (given, out, 3, new),
          (1, 1),
          read=slices * given * side_in**2,
          shortcut=(design.slices or _FLOAT) * out * new**2,
        )
    channels, side = out, new
  yield _conv('last', (512, 1000, 1, 1), (_FLOAT, _FLOAT), read=512)


def _shortcut(name, design, inputs, out, size, new):
  """Returns the convolution of a shortcut where the resolution changes."""
  if not design.slices:  # Bi-Real pools before it, in full precision.
    bits = (_FLOAT, _FLOAT)
    return _conv(name, (inputs, out, 1, new), bits, read=inputs * new**2)
  taken = design.slices * inputs * (2 if design.doubled else 1)
  return _conv(name, (taken, out, 1, size), (1, 1), read=taken * size**2)


def _conv(name, shape, bits, *, read, shortcut=0):
  """Returns a convolution.

  Args:
    name: its name.
    shape: inputs that an output sees, outputs, sides of the kernel and of the output.
    bits: bits of an input and of a weight.
    read: number of inputs, each of so many bits.
    shortcut: bits of the shortcut that is joined to its output.
  """
  given, out, kernel, side = shape
  weights = given * out * kernel**2
  return nn.LayerSummary(
    name,
    'Conv',
    (side, side, out),
    {bits[1]: weights},
    {},
    {bits: weights * side**2},
    {bits[0]: read},
    {1: shortcut} if shortcut else {},
  )
