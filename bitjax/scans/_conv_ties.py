r"""Counts near ties of a convolution that feeds a sign: what rounding may decide.

A move takes the sums z of an image to :math:`z + D x`. As computed, these differ from
those of a network that holds the moved weight, summed in another order, by at most

.. math:: r = 2 (n + 4) u \sum |x| |w|,

for n products in a sum and a unit roundoff u; by nothing where all sums are exact, such as
those of signs by signs. The stages up to the sign are followed from both ends of the
interval :math:`z + D x \pm r`, and each end moves outwards by twice the rounding of each
stage, as a compiler may round a product and a sum once or twice. An example is a *near tie*
of a move if, at any position, a sign differs between the ends.

Stages move an end by nothing where they round nothing: factors of a power of two, sums
without an error, maxima and other choices. Means and
average pooling count as rounded. Functions whose inside is not known (`Pointwise`, and
`Examplewise` pooling) are taken to be monotone and to round their result once.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import sums as sums_lib
from bitjax import types
from bitjax.scans import _conv_split
from bitjax.scans import _conv_turns
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_sign
from bitjax.scans import _report
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['counts']

_EXACT = jax.lax.Precision.HIGHEST


def counts(
  view: _view.LayerView,
  moves: _flips_moves.Moves,
  chunk: int | None,
  report: Any = None,
) -> types.Array:
  """Returns how many examples are near ties of each move, int32 [moves, *kernel.shape].

  Signs behind the first, which a move reaches by way of other layers, are not followed.
  All counts are zero if there is no sign among the stages that keep channels apart.

  Args:
    view: a layer that `_conv_split` can cut.
    moves: all moves of its kernel.
    chunk: examples at a time; None for as many as suit the device.
    report: progress; None for no report.
  """
  parts = _conv_split.split(view)
  shape, size = moves.changes.shape, view.labels.size
  if not any(map(_is_sign, _stages.flat(_followed(parts)))):
    return jnp.zeros(shape, jnp.int32)
  reach = jnp.max(jnp.abs(moves.changes), axis=tuple(range(len(shape) - 1)))
  factor = _factor(parts, reach)
  one = _conv_split.take(parts, jnp.zeros(1, int))
  one = jax.eval_shape(lambda one: one.patches(), one).size
  room = sizes.here().mask_numbers // (moves.changes.size + one)
  chunk = min(size, chunk or max(1, room))

  def block(total, start):
    index = start + jnp.arange(chunk)
    some = _conv_split.take(parts, index)
    stages = _followed(some)
    z = some.products()
    radius = (factor * _magnitudes(some, reach)).reshape(z.shape)
    radius = radius.astype(z.dtype)

    def near(moved):
      found = []
      _follow(stages, moved - radius, moved + radius, found)
      return functools.reduce(jnp.logical_or, found)  # [examples, out]

    ties = _conv_split.each_move(some, moves.changes, z, near)
    ties &= (index < size)[None, None, :, None]
    return total + jnp.sum(ties, axis=2, dtype=jnp.int32), None

  zeros = jnp.zeros((shape[0], math.prod(shape[1:-1]), shape[-1]), jnp.int32)
  starts = jnp.arange(0, size, chunk)
  total, _ = _report.scan(report, block, zeros, starts)
  return jnp.where(moves.directions != 0, total.reshape(shape), 0)


def _followed(parts):
  """Returns the stages up to the first sign, or all of each entry by itself."""
  found = _conv_turns.cut((*parts.front, *parts.rest))
  return parts.front if found is None else found.before


def _is_sign(stage):
  return isinstance(stage, _stages.Activation) and stage.kind == 'sign'


def _factor(parts, reach):
  """Returns r relative to the sums of magnitudes; 0 if all sums are exact.

  Args:
    parts: all examples.
    reach: the largest change of each output channel's weights, [out].
  """
  arithmetic = parts.product.arithmetic
  inputs, weights = parts.inputs, parts.weights
  # Padding is a number that inputs may lack.
  _, padding = _conv_split.places(parts.product, inputs.shape[1:-1])
  summed = jax.eval_shape(parts.product, inputs, weights).dtype
  roundoff = float(jnp.finfo(summed).eps) / 2
  granularity = _flips_sign.granularity
  unit = jnp.minimum(granularity(inputs), granularity(padding))
  unit *= jnp.minimum(granularity(weights), granularity(reach))
  terms = math.prod(weights.shape[:-1])
  most = jnp.maximum(jnp.max(jnp.abs(inputs)), jnp.max(jnp.abs(padding)))
  largest = jnp.max(jnp.abs(weights)) * terms + jnp.max(reach)
  exact = most * largest * roundoff < unit
  factor = 2 * (terms + 4) * roundoff
  if coarse := arithmetic.roundoff:
    exact &= sums_lib.unrounded(inputs, padding, weights, reach)
    factor += 4 * coarse
  return jnp.where(exact, 0.0, factor)


def _magnitudes(parts, reach):
  """Returns bounds on sums of magnitudes, [examples, positions, groups, out / groups]."""
  x = jnp.abs(parts.patches())
  examples, _, places, groups, inner = x.shape
  weights = jnp.abs(parts.weights).reshape(places, inner, groups, -1)
  found = jnp.einsum('bpkgi,kigc->bpgc', x, weights, precision=_EXACT)
  largest = jnp.max(x.reshape(examples, -1), axis=1)[:, None, None, None]
  return found + largest * reach.reshape(1, 1, groups, -1)


def _follow(stages, low, high, found):
  """Follows an interval through stages; adds to ``found`` where signs differ.

  Args:
    stages: stages that keep channels apart.
    low: lower ends, [examples, *spatial, out].
    high: upper ends.
    found: list that receives, for each sign, whether the ends' signs differ at any
      position, [examples, out].

  Returns:
    Both ends behind the stages.
  """
  for stage in stages:
    low, high = _behind(stage, low, high, found)
    if _is_sign(stage):
      positions = tuple(range(1, low.ndim - 1))
      found.append(jnp.any(low != high, axis=positions))
  return low, high


def _behind(stage, low, high, found):
  """Returns the ends of an interval behind a stage, moved outwards by its rounding."""
  if isinstance(stage, _stages.Residual):
    ends = zip(
      _follow(stage.body, low, high, found),
      _follow(stage.shortcut, low, high, found),
      strict=True,
    )
    return _wider(*((a + b, _of_sum(a, b)) for a, b in ends))
  if isinstance(stage, _stages.Add):
    return _wider(*((stage(x), _of_sum(x, stage.value)) for x in (low, high)))
  if isinstance(stage, _stages.Affine):
    return _wider(*((stage(x), _of_affine(stage, x)) for x in (low, high)))
  ends = stage(low), stage(high)
  if isinstance(stage, _stages.Activation) or _chooses(stage):
    return _wider(*((end, 0) for end in ends))
  if isinstance(stage, _stages.Pointwise):
    return _wider(*((end, _unit(end) * jnp.abs(end)) for end in ends))
  # A mean or another sum of at most all positions.
  size = jnp.abs(stage(jnp.maximum(jnp.abs(low), jnp.abs(high))))
  noise = math.prod(low.shape[1:-1]) * _unit(size) * size
  return _wider(*((end, noise) for end in ends))


def _of_affine(stage, x):
  """Returns twice the rounding of a product and a sum, 0 where both are exact."""
  scaled = _stages.Affine(stage.scale)
  factor, info = scaled(jnp.ones((1,) * x.ndim, x.dtype)), jnp.finfo(x.dtype)
  power = jax.lax.reduce_precision(factor, info.nexp, 0)
  product = jnp.where(factor == power, 0, _unit(x)) * jnp.abs(scaled(x))
  shift = _stages.Affine(1.0, stage.shift)(jnp.zeros_like(x))
  return product + _of_sum(scaled(x), shift)


def _of_sum(a, b):
  """Returns twice the rounding of a + b, 0 where that is exact (Knuth's two-sum)."""
  total = a + b
  rest = total - a
  error = (a - (total - rest)) + (b - rest)
  return jnp.where(error == 0, 0, _unit(total) * jnp.abs(total))


def _unit(x):
  return float(jnp.finfo(x.dtype).eps)  # Twice the unit roundoff.


def _chooses(stage):
  return isinstance(stage, _stages.Examplewise) and stage.channels == 'chosen'


def _wider(one, other):
  """Returns ends in order, each moved outwards by its noise, from pairs of both."""
  (a, noise_a), (b, noise_b) = one, other
  low = jnp.minimum(a - noise_a, b - noise_b)
  return low, jnp.maximum(a + noise_a, b + noise_b)
