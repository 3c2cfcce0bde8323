r"""Defines the single moves of a kernel: where each weight can go next.

A *move* takes one latent weight to a value that is quantised to the neighbouring
level, and leaves all other weights as they are:

=================  =======================================  =================
kernel             destinations of a weight w               moves per weight
=================  =======================================  =================
of two levels      as its staircase's ``neighbours`` say    1: the flip
of more levels     as its staircase's ``neighbours`` say    2: up, down
full precision     ``w + step``, ``w - step``               2: up, down
=================  =======================================  =================

Any staircase that offers its neighbours has moves (see `Neighbours`), such as those
of `bitjax.quantizers`: nothing in the scans depends on which staircase it is.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import types
from bitjax.scans import _view

__all__ = [
  'Moves',
  'Neighbours',
  'is_binary',
  'is_sign',
  'levels_differ',
  'moves',
]


class Neighbours(Protocol):
  """A staircase that acts elementwise, is monotone, and knows its levels.

  Attributes:
    num_levels: static; how many levels there are. With two, a weight has one move.
    uniform: static; whether neighbouring levels are equally far apart for all
      weights, so that moves of the same unit can share their evaluation.
  """

  @property
  def num_levels(self) -> int:
    """How many levels there are."""
    ...

  @property
  def uniform(self) -> bool:
    """Whether neighbouring levels are equally far apart for all weights."""
    ...

  def neighbours(self, x: types.Array) -> tuple[types.Array, types.Array]:
    """Returns latent values of the next levels up and down; ``x`` if there is none."""
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moves:
  """All single moves of a layer's kernel.

  Attributes:
    destinations: latent values after the move, ``[moves, *kernel.shape]``; where
      a weight has no such move, its own value.
    directions: +1 for a move up, -1 for one down, 0 where a weight has no such move,
      of the same shape and dtype. Only they decide which moves there are: ``changes``
      are differences, which a compiler may round.
    changes: what the move adds to the quantised weight, of the same shape; 0 where
      there is no such move.
    spacing: the common magnitude of all changes that are not zero; None if it is
      not known that they share one.
    paired: static; whether each weight has two moves, up and down. If not, it has
      one, and results drop the leading axis.
  """

  destinations: types.Array
  directions: types.Array
  changes: types.Array
  spacing: types.Array | None
  paired: bool = dataclasses.field(metadata={'static': True})

  def per_weight(self, x: types.Array) -> types.Array:
    """Returns ``x`` of [moves, ...], without that axis if weights have one move."""
    return x if self.paired else x[0]


def moves(view: _view.LayerView, *, step: types.Scalar | None = None) -> Moves:
  """Returns all single moves of a layer's kernel.

  Args:
    view: the layer.
    step: size of a full-precision weight's moves, in its own units; None for
      quantised kernels, whose levels say how far they move.

  Returns:
    `Moves`: one per weight of a binary kernel, two (up and down) of any other.

  Raises:
    BadInput: for a full-precision kernel without a step or with one that is
      not positive, a quantised kernel with a step, or a quantizer whose
      staircase does not offer its neighbours.
  """
  if view.quantizer is None:
    if step is None:
      raise types.BadInput('A full-precision kernel needs a step; got None.')
    types.check_positive('step', step, finite=True)
    step = jnp.asarray(step, view.kernel.dtype)
    changes = jnp.broadcast_to(
      jnp.stack([step, -step]).reshape((2,) + (1,) * view.kernel.ndim),
      (2, *view.kernel.shape),
    )
    return Moves(
      view.kernel[None] + changes, jnp.sign(changes), changes, step, paired=True
    )
  if step is not None:
    raise types.BadInput(
      f'step is for full-precision kernels; got {step} for a quantised one, '
      'whose levels say how far it moves.'
    )
  staircase = _staircase(view.quantizer)
  up, down = staircase.neighbours(view.kernel)
  binary = _has_two_levels(staircase)
  # Neighbours that do not exist are copies of the weight, so that these are exact.
  rises, falls = up != view.kernel, down != view.kernel
  if binary:
    destinations = jnp.where(rises, up, down)[None]
    directions = jnp.where(rises, 1, jnp.where(falls, -1, 0))[None]
  else:
    destinations = jnp.stack([up, down])
    directions = jnp.stack([jnp.where(rises, 1, 0), jnp.where(falls, -1, 0)])
  here = view.quantizer(view.kernel)
  changes = jnp.stack([view.quantizer(there) - here for there in destinations])
  changes = jnp.where(directions != 0, changes, 0)
  spacing = jnp.max(jnp.abs(changes)) if staircase.uniform else None
  directions = directions.astype(view.kernel.dtype)
  return Moves(destinations, directions, changes, spacing, paired=not binary)


def levels_differ(
  view: _view.LayerView, a: types.Array, b: types.Array
) -> types.Array:
  """Returns which latent weights of two kernels are quantised to different levels.

  Both are quantised by the same instructions: equal levels that are computed apart
  may be rounded differently.
  """
  assert view.quantizer is not None
  a, b = jnp.broadcast_arrays(a, b)
  first, second = jax.vmap(view.quantizer)(jnp.stack([a, b]))
  return first != second


def is_binary(view: _view.LayerView) -> bool:
  """Returns whether a view's kernel has two levels; a static fact."""
  return view.quantizer is not None and _has_two_levels(
    quantizers.staircase(view.quantizer)
  )


def is_sign(view: _view.LayerView) -> bool:
  """Returns whether a view's staircase is the sign, with its step at 0; static."""
  return quantizers.is_sign(view.quantizer)


def _has_two_levels(staircase):
  return getattr(staircase, 'num_levels', None) == 2


def _staircase(quantizer):
  found = quantizers.staircase(quantizer)
  if not hasattr(found, 'neighbours'):
    raise types.BadInput(
      'The moves of a quantised kernel are those of its staircase, which must '
      'offer num_levels and neighbours(x), as quantizers.sign() does; the '
      f'quantizer holds {found}. view.freeze_scale() holds a scale constant that '
      'the quantizer computes from the weights.'
    )
  return found
