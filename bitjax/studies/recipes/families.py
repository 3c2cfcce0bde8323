r"""Networks of any number of bits and any width, what they cost, and which cost the same.

Weights and activations have the same number of bits: ternary weights go with activations
of 2 bits, and 32 bits stand for full precision. Two costs are compared:

- *total bits*, the number of quantized weights times the bits of each, where a ternary
  weight has :math:`\log_2 3` bits;
- *operations*, as `bitjax.nn.summary` counts them: products of full precision, and 64
  bit operations (XNOR and popcount) as one of these. Here a ternary weight has 2 bits.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitjax import cli
from bitjax import nn
from bitjax import quantizers
from bitjax import training
from bitjax import types
from bitjax.studies.recipes import zoo

__all__ = [
  'BITS',
  'NETWORKS',
  'Cell',
  'Family',
  'Grid',
  'blank',
  'equal',
  'matching',
]

# Name -> bits of a weight, and the quantizers as `zoo.build` knows them.
BITS = {
  '1': (1.0, 'sign', 'sign'),
  '1.58': (math.log2(3), 'ternary', 'lsq2'),
  '2': (2.0, 'lsq2', 'lsq2'),
  '3': (3.0, 'lsq3', 'lsq3'),
  '4': (4.0, 'lsq4', 'lsq4'),
  '8': (8.0, 'lsq8', 'lsq8'),
  '32': (32.0, 'none', 'none'),
}
NETWORKS = ('mlp', 'resnet8')
_WIDEST = 4096
_DENSE = r'Dense_\d+'
# Of an MLP, whose activations cannot learn: clip(x, 0, 1), rounded.
_STEPS = {
  '1.58': quantizers.dorefa_activations(2),
  **{b: quantizers.dorefa_activations(int(b)) for b in ('2', '3', '4', '8')},
}


class Cell(NamedTuple):
  """A network of the grid.

  Attributes:
    bits: a name in `BITS`.
    width: units of each hidden layer, or channels of a ResNet's first stage.
  """

  bits: str
  width: int

  def __str__(self) -> str:
    """Returns its label, such as ``'1 bit, width 26'``."""
    return f'{self.bits} bit{"s" * (self.bits != "1")}, width {self.width}'


@dataclasses.dataclass(frozen=True)
class Grid:
  """The flags of studies of bits and width."""

  network: str = cli.flag(
    'mlp',
    'mlp: two hidden layers, all quantized; resnet8: with Bi-Real shortcuts, first and '
    'last layer in full precision.',
    choices=NETWORKS,
  )
  bits: tuple[str, ...] = cli.flag(
    tuple(BITS),
    'Bits of weights and activations; 1.58: ternary weights.',
    choices=tuple(BITS),
    unique=True,
  )
  widths: tuple[int, ...] = cli.flag(
    (4, 8, 16, 32),
    'Widths of the grid: units of hidden layers, or channels of the first stage.',
    minimum=1,
    maximum=1024,
    unique=True,
  )
  base_width: int = cli.flag(
    8,
    'Width of the 4-bit network that others equal.',
    minimum=1,
    maximum=1024,
  )

  def check_bits(self, *wanted: str) -> None:
    """Raises `BadInput` unless the numbers of bits of the primary contrast are listed."""
    if missing := [name for name in wanted if name not in self.bits]:
      raise types.BadInput(
        f'bits must list {" and ".join(missing)}, for the primary contrast; got '
        f'{", ".join(self.bits)}.'
      )


class Family:
  """The networks of one kind, for images of one shape.

  Args:
    network: one of `NETWORKS`.
    shape: of an image, [height, width, channels].
    num_classes: number of classes.
    arithmetic: ``precision`` and ``dtype``, which all networks get.
  """

  def __init__(
    self,
    network: str,
    shape: tuple[int, ...],
    num_classes: int,
    arithmetic: dict[str, Any],
  ):
    self._network = network
    self._shape = shape
    self._num_classes = num_classes
    self._arithmetic = arithmetic
    self.weights = functools.lru_cache(maxsize=None)(self._weights)
    self.costs = functools.lru_cache(maxsize=None)(self._costs)

  @property
  def quantized(self) -> str:
    """A regular expression for the paths of quantized layers."""
    if self._network == 'mlp':
      return _DENSE
    return zoo.NETWORKS[self._network].binary

  def model(self, cell: Cell) -> Any:
    """Returns the network of a cell."""
    _, weights, activations = BITS[cell.bits]
    options = self._arithmetic | {
      'num_classes': self._num_classes,
      'init_name': 'kaiming_normal',
    }
    width = cell.width
    if self._network != 'mlp':
      widths = width, 2 * width, 4 * width
      return zoo.build(
        self._network, 'bireal', weights, activations, widths=widths, **options
      )
    chosen = zoo.WEIGHTS[weights]
    steps = zoo.ACTIVATIONS['sign'] if cell.bits == '1' else None
    return nn.MLP(
      hidden=(width, width),
      kernel_quantizer=chosen.quantizer,
      scaling=chosen.scaling,
      activation_quantizer=_STEPS.get(cell.bits, steps),
      batch_norm=True,
      **options,
    )

  def total_bits(self, cell: Cell) -> float:
    """Returns the bits of the quantized weights in all."""
    bits, *_ = BITS[cell.bits]
    return bits * self.weights(cell)

  def operations(self, cell: Cell) -> float:
    """Returns the operations for one image; see `bitjax.nn.summary`."""
    return float(self.costs(cell).total.operations)

  def energy(self, cell: Cell) -> nn.EnergyBand:
    """Returns the picojoules for one image; see `bitjax.nn.energy`."""
    return nn.energy(self.costs(cell)).total.total

  def _weights(self, cell: Cell) -> int:
    """Returns the number of quantized weights."""
    model = self.model(cell)
    params = jax.eval_shape(
      lambda key: model.init(
        key, blank(self._shape), **nn.call_options(model, train=False)
      ),
      jax.random.key(0),
    )['params']
    return sum(
      kernel.size
      for path, kernel in training.kernels(params).items()
      if re.search(self.quantized, path)
    )

  def _costs(self, cell: Cell) -> nn.Summary:
    """Returns what the network costs for one image, layer by layer."""
    # Products of an MLP's first layer are of bytes, those of a ResNet's of floats.
    dtype = 'uint8' if self._network == 'mlp' else 'float32'
    image = jax.ShapeDtypeStruct((1, *self._shape), dtype)
    return nn.summary(self.model(cell), image)


def blank(shape: tuple[int, ...]) -> Any:
  """Returns one image of zeros, as a network sees images when they are normalised."""
  return jnp.zeros((1, *shape), jnp.float32)


def matching(cost: Callable[[int], float], target: float) -> int:
  """Returns the width whose cost is nearest to a target, as a ratio.

  Args:
    cost: width -> cost, which grows with the width.
    target: the cost that is wanted.
  """
  low, high = 0, 1
  while high < _WIDEST and cost(high) < target:
    low, high = high, 2 * high
  while high - low > 1:
    middle = (low + high) // 2
    if cost(middle) < target:
      low = middle
    else:
      high = middle
  if not low:
    return high
  return min((low, high), key=lambda width: abs(math.log(cost(width) / target)))


def equal(bits: str, reference: Cell, cost: Callable[[Cell], float]) -> Cell:
  """Returns the network of so many bits whose cost is nearest to that of another.

  Args:
    bits: a name in `BITS`.
    reference: the other network, which is returned for its own bits.
    cost: of a network; it grows with the width.
  """
  if bits == reference.bits:
    return reference
  width = matching(lambda own: cost(Cell(bits, own)), cost(reference))
  return Cell(bits, width)
