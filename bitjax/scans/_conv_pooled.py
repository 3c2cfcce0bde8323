r"""Computes the gains of all moves of the last convolution, before pooling and a classifier.

Behind it come only stages of each entry by itself (the *front*), the mean over P
positions, and a linear classifier, or none, where channels are classes. So a move of weight (k, i, c) by D moves one pooled
channel of image b, and the logits along that channel's row v of the classifier:

.. math::
  s = \frac1P \sum_p [\mathrm{front}(z_{bpc} + D x_{bpki}) - \mathrm{front}(z_{bpc})],
  \qquad \ell_b' - \ell_b = \log \sum_j p_{bj} e^{s (v_{cj} - v_{cy})}.

*The sum.* Where inputs are +1, -1, or 0 (padding), and all moves have one magnitude d, an
entry can go to two values only. With :math:`D^\pm = \mathrm{front}(z \pm d) -
\mathrm{front}(z)`, a move by :math:`\sigma d` gives

.. math::
  s = \frac1{2P} \sum_p [|x| (D^+ + D^-) + \sigma x (D^+ - D^-)],

a product of two matrices for each image; |x| depends on the place of the kernel only.
Otherwise the front is evaluated at every moved value.

*The loss.* Where all exponents are within a quarter, the sum of exponentials is a
polynomial in s, whose coefficients are moments of image and channel,
:math:`\sum_j p_{bj} (v_{cj} - v_{cy})^n / n!`. Other images and channels are listed, and
evaluated as they are.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _conv_split
from bitjax.scans import _flips_moves
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['moments', 'obstacle']

_LARGEST = 0.25  # Exponents up to which the polynomial is evaluated.
_EXACT = jax.lax.Precision.HIGHEST


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why this path does not apply to a view, or None if it does."""
  if reason := _conv_split.obstacle(view):
    return reason
  _, rest = _conv_split.cut(view.tail)
  if not rest or not isinstance(rest[0], _stages.Mean):
    return (
      'behind its layer come other stages before the mean over positions than '
      'those of each entry by itself'
    )
  dense = [isinstance(stage, _stages.Dense) for stage in rest[1:]]
  affine = [isinstance(stage, _stages.Affine) for stage in rest[1:]]
  if sum(dense) > 1 or sum(dense) + sum(affine) != len(rest) - 1:
    return (
      'behind the mean over positions comes something else than scales and at most '
      'one dense layer'
    )
  return None


def moments(
  view: _view.LayerView,
  moves: _flips_moves.Moves,
  chunk: int | None,
  report: Any = None,
) -> tuple[types.Array, types.Array, types.Array]:
  """Returns the mean loss, and the first two moments of its decrease by each move.

  Args:
    view: a layer without an `obstacle`.
    moves: all moves of its kernel.
    chunk: examples at a time; None for as many as suit the device.
    report: progress; None for no report.

  Returns:
    The mean loss, and the means over the examples of the decrease of the loss
    and of its square, [moves, *kernel.shape] each.
  """
  parts = _conv_split.split(view)
  matrix = _matrix(parts.rest[1:], parts.weights)
  shifts = functools.partial(_shifts, moves)
  if moves.spacing is not None and _conv_split.has_sign_inputs(view):
    shifts = functools.partial(_sign_shifts, moves)
  size, shape = view.labels.size, _by_channel(moves.changes).shape
  dtype = jax.eval_shape(view.losses, view.kernel).dtype
  chunk = min(size, chunk or _examples(parts, shape))

  def block(totals, start):
    index = start + jnp.arange(chunk)
    some = _conv_split.take(parts, index)
    z = some.products()
    h = _stages.apply(some.front, z)
    logits = _stages.apply(some.rest, h)
    log_p = jax.nn.log_softmax(logits)
    labels = some.labels[:, None]
    losses = -jnp.take_along_axis(log_p, labels, axis=1)[:, 0]
    # Of the classes against that of the label, [examples, out, classes].
    towards = matrix[None] - jnp.take(matrix, some.labels, axis=1).T[:, :, None]
    valid = index < size
    decreases = _decreases(log_p, towards, shifts(some, z, h), valid)
    sums = jnp.sum(jnp.where(valid, losses, 0)), *decreases
    return jax.tree.map(lambda a, b: a + b.astype(dtype), totals, sums), None

  zeros = tuple(jnp.zeros(s, dtype) for s in ((), shape, shape))
  starts = jnp.arange(0, size, chunk)
  (loss, first, second), _ = _report.scan(report, block, zeros, starts)
  first, second = (
    _by_weight(total / size, moves.changes.shape) for total in (first, second)
  )
  return loss / size, first, second


def _by_channel(x):
  """Turns [moves, *spatial, in, out] into [moves, out, weights of a channel]."""
  return jnp.swapaxes(x.reshape(x.shape[0], -1, x.shape[-1]), 1, 2)


def _by_weight(x, shape):
  """Does the opposite of `_by_channel`."""
  return jnp.swapaxes(x, 1, 2).reshape(shape)


def _examples(parts, shape):
  """Returns how many examples are done at a time."""
  patches = jax.eval_shape(
    lambda parts: parts.patches(), _conv_split.take(parts, jnp.zeros(1, int))
  )
  each = patches.size + 2 * math.prod(shape)
  return max(1, sizes.here().pooled_numbers // each)


def _matrix(stages, weights):
  """Returns the logits' change for a unit of each pooled channel, [out, classes].

  Without a dense layer, the channels are the classes.
  """
  x = jnp.eye(weights.shape[-1], dtype=weights.dtype)
  for stage in stages:
    if isinstance(stage, _stages.Affine):
      x = _stages.Affine(stage.scale)(x)
    else:
      layer = stage.freeze()
      x = x.astype(types.promoted(x, layer.kernel))
      x = jnp.matmul(x, layer.kernel, precision=_EXACT)
      x = _stages.Affine(layer.affine.scale)(x)
  return types.widened(x)


def _sign_shifts(moves, parts, z, h):
  """Returns s for inputs of +1, -1 and 0, [moves, examples, out, weights]."""
  groups, channels = parts.product.groups, z.shape[-1]
  spacing = moves.spacing.astype(z.dtype)
  up, down = (
    (_stages.apply(parts.front, moved) - h).reshape(len(h), -1, channels)
    for moved in (z + spacing, z - spacing)
  )
  positions = up.shape[1]
  mean, half = ((up + s * down) / (2 * positions) for s in (1, -1))
  x = parts.patches()
  odd = _over_positions(half, x)
  met, padding = _conv_split.places(parts.product, parts.inputs.shape[1:-1])
  inside = jnp.where(met > 0, 1, jnp.abs(padding)).astype(x.dtype)
  inside = inside[None, :, :, None, None]
  even = _over_positions(mean, jnp.tile(inside, (len(h), 1, 1, groups, 1)))
  even = jnp.repeat(even, x.shape[-1], axis=2)
  sign = _by_channel(moves.directions).astype(z.dtype)[:, None]
  return jnp.abs(sign) * even[None] + sign * odd[None]


def _over_positions(change, x):
  """Returns sums of products over positions, [examples, out, weights].

  Args:
    change: [examples, positions, out].
    x: patches, [examples, positions, places, groups, in].
  """
  examples, positions, _, groups, _ = x.shape
  change = change.reshape(examples, positions, groups, -1)
  sums = jnp.einsum('bpgc,bpkgi->bgcki', change, x, precision=_EXACT)
  return sums.reshape(examples, change.shape[-1] * groups, -1)


def _shifts(moves, parts, z, h):
  """Returns s for any inputs, [moves, examples, out, weights]."""

  def pooled(moved):
    change = _stages.apply(parts.front, moved) - h
    return _stages.Mean()(change)

  found = _conv_split.each_move(parts, moves.changes, z, pooled)
  return jnp.moveaxis(found, 1, 3)


def _decreases(log_p, towards, shifts, valid):
  """Returns sums over the examples of the decrease of the loss and of its square.

  Args:
    log_p: logarithms of the probabilities of classes, [examples, classes].
    towards: change of the classes' logits, against that of the label, for a unit of
      s, [examples, out, classes].
    shifts: s, [moves, examples, out, weights].
    valid: which examples count, [examples].

  Returns:
    Both sums, [moves, out, weights].
  """
  dtype = types.promoted(towards, shifts)
  largest = jnp.max(jnp.abs(towards), axis=-1)
  unit = towards / jnp.where(largest == 0, 1, largest)[..., None]
  farthest = largest * jnp.max(jnp.abs(shifts), axis=(0, 3))
  near = farthest <= _LARGEST
  coefficients, power = [], jnp.exp(log_p)[:, None]
  for n in range(1, _terms(dtype) + 1):
    power = power * unit / n
    coefficients.append(jnp.sum(power, axis=-1))
  # Nothing moves where the polynomial does not hold, or an example does not count.
  scale = jnp.where(near & valid[:, None], largest, 0)

  def add(sums, example):
    s, scale, coefficients = example
    u = s * scale[None, :, None]
    y = jnp.zeros_like(u)
    for coefficient in coefficients[::-1]:
      y = (y + coefficient[None, :, None]) * u
    decrease = -jnp.log1p(y)
    first, second = sums
    return (first + decrease, second + decrease * decrease), None

  zeros = 2 * (jnp.zeros((shifts.shape[0], *shifts.shape[2:]), dtype),)
  columns = (
    jnp.swapaxes(shifts, 0, 1),
    scale,
    jnp.stack(coefficients, axis=1),
  )
  sums, _ = jax.lax.scan(add, zeros, columns, unroll=4)
  return _add_far(sums, log_p, towards, shifts, ~near & valid[:, None])


def _terms(dtype):
  """Returns how many terms of the exponential series float numbers need."""
  terms = 1
  while _LARGEST**terms / math.factorial(terms + 1) > jnp.finfo(dtype).eps / 4:
    terms += 1
  return terms


def _add_far(sums, log_p, towards, shifts, far):
  """Adds the decreases of listed examples and channels, [examples, out]."""
  moves, _, channels, weights = shifts.shape
  classes = log_p.shape[-1]
  rows = max(1, sizes.here().pooled_numbers // (8 * moves * weights * classes))
  rows = min(rows, far.size)
  ((listed,), (count,)) = _split.true_indices(far.reshape(1, -1), room=rows)

  def visit(state):
    start, (first, second) = state
    pairs = jax.lax.dynamic_slice(listed, (start,), (rows,))
    example, channel = jnp.divmod(jnp.minimum(pairs, far.size - 1), channels)
    s = shifts[:, example, channel]  # [moves, rows, weights]
    exponents = log_p[example].T[:, None, :, None] + (
      towards[example, channel].T[:, None, :, None] * s[None]
    )
    decrease = -jax.nn.logsumexp(exponents, axis=0)
    there = (pairs < far.size)[:, None] & (
      channel[:, None] == jnp.arange(channels)[None]
    )
    there = there.astype(decrease.dtype)

    def into(total, x):
      return total + jnp.einsum('rc,mrw->mcw', there, x, precision=_EXACT)

    return start + rows, (into(first, decrease), into(second, decrease**2))

  _, sums = jax.lax.while_loop(lambda state: state[0] < count, visit, (0, sums))
  return sums
