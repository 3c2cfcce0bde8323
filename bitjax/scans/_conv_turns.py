r"""Finds the positions where moves of a convolution turn the sign that it feeds.

A move changes one channel of the sums z, at every position p of an image b, by the input
x that place k of the kernel meets there (`_conv_split`). The sign turns at the positions

.. math::
  m_b = \{p : f(z_{bc} + D x_{bki})_p \ne f(z_{bc})_p\},

where f are the network's own stages up to the sign, evaluated at the moved sums. They keep
channels apart, so moves of all channels are evaluated together; positions may be mixed: by
max pooling, before the sign or behind it, or by a mean. Masks are packed into words.

If f acts on each entry by itself, inputs are +1, -1 or 0 and all moves have one magnitude d,
then f is evaluated twice instead of once for each weight. With the bits
:math:`u^\pm_p = [f(z_p \pm d) \ne f(z_p)]` and :math:`x^\pm_p = [x_p = \pm 1]`, a move up
turns :math:`x^+ u^+ \lor x^- u^-`, a move down :math:`x^+ u^- \lor x^- u^+`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import packed
from bitjax import types
from bitjax.scans import _conv_split
from bitjax.scans import _flips_moves
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['BITS', 'Cut', 'cut', 'has_bits', 'masks', 'positions']

_WORD = jnp.dtype('uint32')
BITS = 8 * _WORD.itemsize  # Positions in a word.


class Cut(NamedTuple):
  """Stages behind a layer, cut at the first sign.

  Attributes:
    before: those up to the sign, and those behind it that choose among a channel's signs.
    behind: the next ones that act on each entry by itself.
    rest: the others, up to the logits.
  """

  before: tuple[_stages.Stage, ...]
  behind: tuple[_stages.Stage, ...]
  rest: tuple[_stages.Stage, ...]


def cut(stages: tuple[_stages.Stage, ...]) -> Cut | None:
  """Cuts stages at the first sign, if those before it keep channels apart."""
  end = 0
  while end < len(stages) and not _is_sign(stages[end]):
    if not _stages.is_channelwise(stages[end]):
      return None
    end += 1
  if end == len(stages):
    return None
  end += 1
  while end < len(stages) and _chooses(stages[end]):
    end += 1
  behind, rest = _conv_split.cut(stages[end:])
  return Cut(stages[:end], behind, rest)


def _is_sign(stage):
  return isinstance(stage, _stages.Activation) and stage.kind == 'sign'


def _chooses(stage):
  return isinstance(stage, _stages.Examplewise) and stage.channels == 'chosen'


def positions(view: _view.LayerView) -> int:
  """Returns at how many positions of an image signs may turn; a static fact.

  Args:
    view: a layer whose stages can be `cut`.
  """

  def signs(view):
    found = cut(view.tail)
    assert found is not None
    return _stages.apply(found.before, _conv_split.split(view).products())

  return math.prod(jax.eval_shape(signs, view).shape[1:-1])


def has_bits(
  view: _view.LayerView,
  moves: _flips_moves.Moves,
  before: tuple[_stages.Stage, ...],
) -> bool:
  """Returns whether masks are functions of bits of inputs; a static fact."""
  return (
    moves.spacing is not None
    and all(map(_stages.is_entrywise, before))
    and _conv_split.has_sign_inputs(view)
  )


def masks(
  parts: _conv_split.ConvSplit,
  before: tuple[_stages.Stage, ...],
  moves: _flips_moves.Moves,
  z: types.Array,
  bits: bool,
) -> tuple[types.Array, ...]:
  """Returns where signs turn, words [examples, out, moves of a channel] of 32 positions.

  Args:
    parts: some examples.
    before: the stages up to the sign.
    moves: all moves of the kernel.
    z: the sums, [examples, *spatial, out].
    bits: whether they `has_bits`.
  """
  signs = _stages.apply(before, z)

  def turned(moved):
    return _packed(_stages.apply(before, moved) != signs)

  if not bits:
    words = _conv_split.each_move(parts, moves.changes, z, turned)
    # [words, moves, places * in / groups, examples, out]
    return tuple(
      jnp.moveaxis(word.reshape(-1, *word.shape[2:]), 0, 2) for word in words
    )
  assert moves.spacing is not None
  spacing = moves.spacing.astype(z.dtype)
  groups = parts.product.groups
  ups, downs = turned(z + spacing), turned(z - spacing)
  pluses, minuses = _inputs(parts, 1), _inputs(parts, -1)
  directions = jnp.swapaxes(
    moves.directions.reshape(len(moves.directions), -1, z.shape[-1]), 1, 2
  )
  rises, falls = directions > 0, directions < 0  # [moves, out, weights]
  found = []
  for up, down, plus, minus in zip(ups, downs, pluses, minuses, strict=True):
    plus, minus = (
      jnp.repeat(m, z.shape[-1] // groups, axis=1) for m in (plus, minus)
    )
    up, down = up[:, :, None], down[:, :, None]
    risen = (plus & up) | (minus & down)
    fallen = (plus & down) | (minus & up)
    each = [
      jnp.where(r[None], risen, jnp.where(f[None], fallen, 0))
      for r, f in zip(rises, falls, strict=True)
    ]
    found.append(jnp.concatenate(each, axis=2))
  return tuple(found)


def _inputs(parts, value):
  """Returns where each weight meets ``value``, words [examples, groups, weights]."""
  x = parts.patches() == value
  x = x.transpose(0, 1, 2, 4, 3)  # [examples, positions, places, in, groups]
  x = x.reshape(*x.shape[:2], -1, x.shape[-1])
  words = packed.pack(x, 1, word=_WORD)  # [examples, words, weights, groups]
  return tuple(jnp.swapaxes(words[:, n], 1, 2) for n in range(words.shape[1]))


def _packed(turned):
  """Packs [examples, *spatial, out] into words of positions, [examples, out] each."""
  bits = turned.reshape(turned.shape[0], -1, turned.shape[-1])
  words = packed.pack(bits, 1, word=_WORD)
  return tuple(words[:, n] for n in range(words.shape[1]))
