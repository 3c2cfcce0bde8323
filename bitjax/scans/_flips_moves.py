r"""The single moves of a kernel: where each weight goes next.

A *move* takes one latent weight to a place where its quantised value is the
neighbouring one, and leaves all others where they are:

=================  =======================================  =================
kernel             destinations of a weight w               moves per weight
=================  =======================================  =================
binary (sign)      ``-delta * sign(w)``                     1: the flip
other staircases   as its ``neighbours`` say                2: up, down
full precision     ``w + step``, ``w - step``               2: up, down
=================  =======================================  =================

``delta`` is `MARGIN` times the largest magnitude of the kernel: just beyond the
step of the sign, but no denormal number, which compiled code takes for zero.

A staircase takes part by offering ``neighbours`` (see `Neighbours`): nothing else
in the scans depends on which staircase it is.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import types
from bitjax.scans import _view

__all__ = ['MARGIN', 'Moves', 'Neighbours', 'is_binary', 'moves']

MARGIN = 1e-3


class Neighbours(Protocol):
  """A staircase that acts elementwise and knows its neighbouring levels.

  Attributes:
    uniform: static; whether neighbouring levels are equally far apart for all
      weights, so that moves of the same unit can share their evaluation.
  """

  @property
  def uniform(self) -> bool:
    """Whether neighbouring levels are equally far apart for all weights."""
    ...

  def neighbours(self, x: types.Array) -> tuple[types.Array, types.Array]:
    """Latent values with the next level up and down; ``x`` if there is none."""
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moves:
  """All single moves of a layer's kernel.

  Attributes:
    destinations: latent values after the move, [moves, *kernel.shape]; where a
      weight has no such move, its own value.
    changes: what the move adds to the quantised weight, of the same shape.
    spacing: the common magnitude of all changes that are not zero; None if
      they differ.
    paired: static; whether the moves come in pairs, up and down. If not, there
      is one, and results drop the leading axis.
  """

  destinations: types.Array
  changes: types.Array
  spacing: types.Array | None
  paired: bool = dataclasses.field(metadata={'static': True})

  def per_weight(self, x: types.Array) -> types.Array:
    """``x`` of shape [moves, ...] without the axis of a lone move."""
    return x if self.paired else x[0]


def moves(view: _view.LayerView, *, step: types.Scalar | None = None) -> Moves:
  """Returns all single moves of a layer's kernel.

  Args:
    view: the layer.
    step: size of a full-precision weight's moves, in its own units; a
      quantised kernel's levels say how far it moves.

  Returns:
    `Moves`: of a binary kernel one per weight, of others two, up and down.

  Raises:
    ValueError: for a full-precision kernel without a step or with one that is
      not positive, a quantised kernel with a step, or a quantizer whose
      staircase does not offer its neighbours.
  """
  if view.quantizer is None:
    if step is None:
      raise ValueError('A full-precision kernel needs a step; got None.')
    types.check_positive('step', step)
    step = jnp.asarray(step, view.kernel.dtype)
    changes = jnp.broadcast_to(
      jnp.stack([step, -step]).reshape((2,) + (1,) * view.kernel.ndim),
      (2, *view.kernel.shape),
    )
    return Moves(view.kernel[None] + changes, changes, step, paired=True)
  if step is not None:
    raise ValueError(
      f'step is for full-precision kernels; got {step} for a quantised one, '
      'whose levels say how far it moves.'
    )
  staircase = _staircase(view.quantizer)
  binary = _is_sign(staircase)
  if binary:
    destinations = (_beyond_zero(view.kernel),)
  else:
    destinations = staircase.neighbours(view.kernel)
  here = view.quantizer(view.kernel)
  changes = jnp.stack([view.quantizer(there) - here for there in destinations])
  uniform = binary or staircase.uniform
  spacing = jnp.max(jnp.abs(changes)) if uniform else None
  return Moves(jnp.stack(destinations), changes, spacing, paired=not binary)


def is_binary(view: _view.LayerView) -> bool:
  """Whether a view's kernel is quantised by the sign; a static fact."""
  return view.quantizer is not None and _is_sign(_staircase(view.quantizer))


def _beyond_zero(kernel):
  largest = jnp.max(jnp.abs(kernel))
  delta = MARGIN * jnp.where(largest > 0, largest, jnp.ones_like(largest))
  return jnp.where(kernel >= 0, -delta, delta)


def _is_sign(node: Any) -> bool:
  return jax.tree.structure(node) == jax.tree.structure(quantizers.sign())


def _staircase(quantizer):
  """The one staircase inside a quantizer, however it is wrapped."""

  def found(node):
    return _is_sign(node) or hasattr(node, 'neighbours')

  def stop(node):
    # What is on its way to a staircase has no levels yet.
    return isinstance(node, quantizers.Annealed) or found(node)

  nodes = jax.tree.leaves(quantizer, is_leaf=stop)
  staircases = [node for node in nodes if found(node)]
  if len(staircases) != 1:
    raise ValueError(
      'The moves of a quantised kernel are those of its staircase: '
      'quantizers.sign() or one with a method neighbours(x); the quantizer '
      f'holds {len(staircases)} of them.'
    )
  return staircases[0]
