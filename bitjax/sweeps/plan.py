"""The plan of a sweep: which lanes there are, in which order, in which blocks.

A sweep is a product of *static* axes (Python values, one compiled program for each
combination) and *lane* axes (traced numbers, all lanes of a combination in one
program). A combination's lanes are cut into blocks of equal size; a block is
computed in one call and saved as one chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import itertools
import math
import re
from typing import Any

import jax
import numpy as np

from bitjax import types

__all__ = ['Block', 'Plan', 'make']

_NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]*')


@dataclasses.dataclass(frozen=True)
class Block:
  """Lanes ``start`` to ``stop`` (exclusive) of one static combination."""

  combination: int
  index: int
  start: int
  stop: int

  @property
  def size(self) -> int:
    """Number of lanes in the block, without padding."""
    return self.stop - self.start


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """The lanes of a sweep.

  Attributes:
    name: the sweep's name.
    static: values of each static axis.
    lanes: values of each lane axis as the caller gave them, which label the results.
    block_size: number of lanes in a block, padding included.
  """

  name: str
  static: dict[str, tuple[Any, ...]]
  lanes: dict[str, np.ndarray]
  block_size: int

  @functools.cached_property
  def combinations(self) -> list[dict[str, Any]]:
    """The product of the static axes, the last running fastest."""
    values = itertools.product(*self.static.values())
    return [dict(zip(self.static, value, strict=True)) for value in values]

  @property
  def shape(self) -> tuple[int, ...]:
    """Sizes of all static and lane axes."""
    sizes = [len(values) for values in self.static.values()]
    return (*sizes, *(len(values) for values in self.lanes.values()))

  @property
  def dims(self) -> tuple[str, ...]:
    """Names of all static and lane axes."""
    return (*self.static, *self.lanes)

  @property
  def num_lanes(self) -> int:
    """Number of lanes of one combination."""
    return math.prod(len(values) for values in self.lanes.values())

  @property
  def total(self) -> int:
    """Number of lanes of the whole sweep."""
    return self.num_lanes * len(self.combinations)

  @functools.cached_property
  def blocks(self) -> list[Block]:
    """All blocks, combination by combination."""
    starts = range(0, self.num_lanes, self.block_size)
    return [
      Block(
        combination, index, start, min(start + self.block_size, self.num_lanes)
      )
      for combination in range(len(self.combinations))
      for index, start in enumerate(starts)
    ]

  def traced(self, block: Block, *, pad: bool = False) -> dict[str, np.ndarray]:
    """Returns the lane values of a block, in the dtypes that JAX computes with.

    Args:
      block: one of `blocks`.
      pad: whether to repeat the last lane until the block is full.
    """
    flat = np.arange(block.start, block.start + self.block_size)
    flat = np.minimum(flat, block.stop - 1) if pad else flat[: block.size]
    sizes = tuple(len(values) for values in self.lanes.values())
    indices = np.unravel_index(flat, sizes)
    return {
      name: _canonical(values)[index]
      for (name, values), index in zip(self.lanes.items(), indices, strict=True)
    }

  def label(self, block: Block) -> str:
    """Returns a readable label of a block's static combination."""
    values = self.combinations[block.combination]
    return ', '.join(f'{name}={value}' for name, value in values.items())


def make(
  name: str,
  static: Mapping[str, Sequence[Any]],
  lanes: Mapping[str, Any],
  *,
  chunk: int,
  width: int | None,
) -> Plan:
  """Checks the axes of a sweep and cuts its lanes into blocks.

  The blocks are of equal size, at most ``chunk``, and as few as that allows, so that
  little is computed twice as padding. Blocks larger than ``width`` are multiples of it.

  Raises:
    BadInput: naming the axis and what is wrong with it.
  """
  if not _NAME.fullmatch(name):
    raise types.BadInput(
      f'a sweep is named by letters, digits, "_", "-" and "."; got {name!r}.'
    )
  statics = {axis: _static(axis, values) for axis, values in static.items()}
  arrays = {axis: _lane(axis, values) for axis, values in lanes.items()}
  if not arrays:
    raise types.BadInput(
      f'the sweep {name!r} needs at least one axis of lanes.'
    )
  both = sorted(set(statics) & set(arrays))
  if both:
    raise types.BadInput(
      f'the axis {both[0]!r} is both static and a lane axis.'
    )
  for what, size in (('chunk', chunk), ('width', width)):
    if size is not None and size < 1:
      raise types.BadInput(f'{what} must be >= 1; got {size}.')
  num_lanes = math.prod(len(values) for values in arrays.values())
  num_blocks = -(-num_lanes // chunk)
  block_size = -(-num_lanes // num_blocks)
  if width is not None and width < block_size:
    block_size = min(
      -(-block_size // width) * width, max(chunk // width, 1) * width
    )
  return Plan(name, statics, arrays, block_size)


def _static(axis: str, values: Sequence[Any]) -> tuple[Any, ...]:
  values = tuple(values)
  if not values:
    raise types.BadInput(f'static axis {axis!r} needs at least one value.')
  kinds = {type(value) for value in values}
  if len(kinds) > 1 or not kinds <= {str, int, float, bool}:
    raise types.BadInput(
      f'static axis {axis!r} must hold strings or numbers of one type, which '
      f'label the results; got {", ".join(sorted(k.__name__ for k in kinds))}.'
    )
  if len(set(values)) < len(values):
    raise types.BadInput(f'static axis {axis!r} lists a value twice: {values}.')
  return values


def _lane(axis: str, values: Any) -> np.ndarray:
  array = np.asarray(values)
  if array.ndim != 1 or array.dtype.kind not in 'biuf':
    raise types.BadInput(
      f'lane axis {axis!r} must be a 1-D array of numbers; got shape '
      f'{array.shape}, dtype {array.dtype}.'
    )
  if not array.size:
    raise types.BadInput(f'lane axis {axis!r} needs at least one value.')
  found, counts = np.unique(array, return_counts=True)
  if np.any(counts > 1):
    raise types.BadInput(
      f'lane axis {axis!r} lists {found[counts > 1][0]} twice.'
    )
  if array.dtype == np.float16:  # pandas has no float16 labels.
    array = array.astype(np.float32)
  traced = _canonical(array)
  if array.dtype.kind in 'iu' and np.any(traced != array):
    raise types.BadInput(
      f'lane axis {axis!r} holds integers that do not fit {traced.dtype}.'
    )
  return array


def _canonical(array: np.ndarray) -> np.ndarray:
  return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
