r"""Measures of gradients: how two of them agree, and how one of them varies.

A straight-through gradient is a surrogate, so there are two things to ask of it:
does it point where a gradient that is true in some sense points (`agreement`), and
is it the same for the next batch (`split_half`, `gradient_statistics`)? All
functions take the arrays of one layer; map them over a tree for several layers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import tree
from bitjax import types

__all__ = [
  'Agreement',
  'Entering',
  'GradientStatistics',
  'Ranked',
  'SplitHalf',
  'agreement',
  'correlation',
  'entering',
  'gradient_statistics',
  'ranked',
  'ranks',
  'split_half',
]


class Agreement(NamedTuple):
  """How two gradients a and b agree, as scalars.

  Attributes:
    cosine: ``a . b / (|a| |b|)``; 0 if either is zero.
    correlation: Pearson's correlation over coordinates; 0 if either is constant.
    rank_correlation: Spearman's correlation; ties share their mean rank.
    sign_agreement: of the coordinates where neither is zero, the share with equal
      signs; 0 if there are none.
    top_precision: of the coordinates with the largest ``|a|``, the share that is
      also among those with the largest ``|b|``. By chance it is about the share of
      coordinates in the top.
  """

  cosine: types.Array
  correlation: types.Array
  rank_correlation: types.Array
  sign_agreement: types.Array
  top_precision: types.Array


class Ranked(NamedTuple):
  """A gradient that is sorted once, to be compared with many others.

  Attributes:
    values: the gradient, [n], float32 at least.
    ranks: ranks of the values from 0, where ties share their mean rank, [n].
    top: indices of the largest magnitudes, [top], int32.
  """

  values: types.Array
  ranks: types.Array
  top: types.Array


def ranked(gradient: types.Array, *, top: float = 0.01) -> Ranked:
  """Sorts a gradient once, so that it can be compared with many others.

  Args:
    gradient: array of any shape.
    top: size of the top, as a share of the coordinates in (0, 1]; at least one
      coordinate is taken. Of equal magnitudes the first ones are taken.

  Raises:
    BadInput: for an empty gradient or a ``top`` outside (0, 1].
  """
  values = jnp.ravel(types.widened(gradient))
  if values.size == 0:
    raise types.BadInput('A gradient must not be empty.')
  types.check_number('top', top)
  if not 0 < top <= 1:
    raise types.BadInput(f'top must be in (0, 1]; got {top}.')
  num_top = math.ceil(top * values.size)
  indices = jax.lax.top_k(jnp.abs(values), num_top)[1]
  return Ranked(values, ranks(values), indices)


def agreement(
  a: types.Array | Ranked, b: types.Array | Ranked, *, top: float = 0.01
) -> Agreement:
  """Measures how two gradients agree, coordinate by coordinate.

  Args:
    a: a gradient of any shape, or the result of `ranked`.
    b: another gradient, of the same size.
    top: size of the top for ``top_precision``; see `ranked`.

  Returns:
    An `Agreement`; all of it is NaN if an input has a NaN.

  Raises:
    BadInput: for sizes that differ, for an empty gradient, or for a ``top``
      outside (0, 1].
  """
  a, b = (x if isinstance(x, Ranked) else ranked(x, top=top) for x in (a, b))
  if a.values.shape != b.values.shape or a.top.shape != b.top.shape:
    raise types.BadInput(
      'Two gradients must have as many coordinates, and tops of one size; got '
      f'{a.values.size} and {b.values.size}, tops {a.top.size} and '
      f'{b.top.size}.'
    )
  x, y = a.values, b.values
  # A NaN in an input makes every result NaN, also where a convention gives 0.
  bad = jnp.any(jnp.isnan(x) | jnp.isnan(y))
  both = (x != 0) & (y != 0)
  equal = tree.count(both & ((x > 0) == (y > 0)))
  in_top = jnp.zeros(x.shape, bool).at[b.top].set(True)
  mean_rank = (x.size - 1) / 2
  measured = Agreement(
    _cosine(x, y),
    correlation(x, y),
    _cosine(a.ranks - mean_rank, b.ranks - mean_rank),
    equal.astype(x.dtype) / jnp.maximum(tree.count(both), 1).astype(x.dtype),
    tree.share(in_top[a.top]).astype(x.dtype),
  )
  return Agreement(*(types.nan_where(bad, value) for value in measured))


def correlation(a: types.Array, b: types.Array) -> types.Array:
  """Returns Pearson's correlation over coordinates; 0 if either input is constant.

  Args:
    a: array of any shape.
    b: array of the same shape.
  """
  a, b = (jnp.asarray(x) for x in (a, b))
  dtype = types.promoted(a, b, jnp.float32)
  a, b = (tree.centred(x.astype(dtype))[0] for x in (a, b))
  return _cosine(a - jnp.mean(a), b - jnp.mean(b))


def ranks(values: types.Array) -> types.Array:
  """Returns the ranks of ``values`` from 0, where ties share their mean rank.

  Args:
    values: a vector, [n]; NaN ranks at one of the ends.

  Returns:
    [n], float32 at least.
  """
  # Integers sort ten times faster than floats, and two searches are cheaper than
  # sorting indices along with them. Adding 0 turns -0 into 0.
  values = types.widened(values)
  info = jnp.iinfo(f'int{jnp.finfo(values.dtype).bits}')
  bits = jax.lax.bitcast_convert_type(values + 0.0, info.dtype)
  keys = bits ^ ((bits >> (info.bits - 1)) & info.max)
  ordered = jnp.sort(keys)
  first = jnp.searchsorted(ordered, keys, side='left')
  last = jnp.searchsorted(ordered, keys, side='right') - 1
  # Each rank is converted by itself: float32 holds integers up to 2^24 exactly.
  return 0.5 * first.astype(values.dtype) + 0.5 * last.astype(values.dtype)


def _cosine(a, b):
  # Divide by the largest entry first: squares of small gradients underflow.
  a, b = (x / jnp.maximum(jnp.max(jnp.abs(x)), _TINY) for x in (a, b))
  size = jnp.sqrt(jnp.sum(a * a) * jnp.sum(b * b))
  return jnp.where(size > 0, jnp.sum(a * b) / jnp.where(size > 0, size, 1), 0)


_TINY = float(jnp.finfo(jnp.float32).tiny)


class SplitHalf(NamedTuple):
  """Reliability of a gradient, from two halves of its batches.

  Attributes:
    halves: agreement of the two halves' mean gradients.
    reliability: 2 r / (1 + r), with r the halves' correlation. It estimates
      (Spearman-Brown) the correlation of two gradients that are each the mean over
      as many batches as were given.
  """

  halves: Agreement
  reliability: types.Array


def split_half(gradients: types.Array, *, top: float = 0.01) -> SplitHalf:
  """Measures how reproducible a gradient is, from two halves of its batches.

  Args:
    gradients: one for each of an even number of batches of equal size,
      [batches, ...]; the even batches make one half, the odd ones the other.
    top: size of the top; see `agreement`.

  Raises:
    BadInput: for an odd number of batches, or none.

  References:
    Brown (1910) and Spearman (1910), British J. of Psychology 3.
  """
  gradients = jnp.asarray(gradients)
  if gradients.ndim < 1 or gradients.shape[0] < 2 or gradients.shape[0] % 2:
    raise types.BadInput(
      f'Two halves need an even number of batches; got shape {gradients.shape}.'
    )
  halves = agreement(
    jnp.mean(gradients[::2], axis=0), jnp.mean(gradients[1::2], axis=0), top=top
  )
  r = halves.correlation
  known = r > -1
  reliability = 2 * r / jnp.where(known, 1 + r, 1)
  return SplitHalf(halves, types.nan_where(~known, reliability))


class GradientStatistics(NamedTuple):
  r"""Mean and variance of a gradient, over coordinates and over batches.

  With :math:`g_{bi}` the gradient of batch b at coordinate i, and
  :math:`\bar g_i` its mean over n batches:

  Attributes:
    mean: mean of :math:`\bar g` over coordinates.
    coordinate_variance: variance of :math:`\bar g` over coordinates.
    batch_variance: variance over batches (unbiased), averaged over coordinates.
    sparsity: share of the entries :math:`g_{bi}` that are exactly zero.
    signal_to_noise: :math:`(\|\bar g\|^2 - v / n) / v`, with v the sum over
      coordinates of the variance over batches: an unbiased estimate of the signal's
      power, over the power of one batch's noise. It can be negative where there is
      no signal, and is infinite without noise.
    gain: the a for which :math:`\|\bar g - a r\|` is smallest: the gradient's length
      along the reference r, in units of r. 0 without a reference.
    bias: :math:`\|\bar g - a r\| / \|a r\|`, an error that no learning rate corrects:
      the tangent of the angle between the gradient and r. Infinite if they are
      orthogonal; 0 without a reference.
  """

  mean: types.Array
  coordinate_variance: types.Array
  batch_variance: types.Array
  sparsity: types.Array
  signal_to_noise: types.Array
  gain: types.Array
  bias: types.Array


def gradient_statistics(
  gradients: types.Array, reference: types.Array | None = None
) -> GradientStatistics:
  """Measures how a gradient is distributed, and how it varies over batches.

  Args:
    gradients: one for each of at least two batches, [batches, ...].
    reference: the gradient that is taken as the true one, [...], or None.

  Returns:
    A `GradientStatistics` of scalars.

  Raises:
    BadInput: for fewer than two batches, or a reference of another shape.
  """
  gradients = jnp.asarray(gradients)
  if gradients.ndim < 1 or gradients.shape[0] < 2 or gradients.size == 0:
    raise types.BadInput(
      f'A variance over batches needs two; got shape {gradients.shape}.'
    )
  if reference is not None and reference.shape != gradients.shape[1:]:
    raise types.BadInput(
      f'The reference must have shape {gradients.shape[1:]}; got '
      f'{reference.shape}.'
    )
  num = gradients.shape[0]
  sparsity = tree.share(gradients == 0)
  # Divide by the largest entry first: squares of small gradients underflow.
  gradients, unit = tree.in_units(gradients.reshape(num, -1))
  mean = jnp.mean(gradients, axis=0)
  noise = jnp.sum(tree.deviation(gradients, 0, ddof=1) ** 2)
  signal = jnp.sum(mean**2) - noise / num
  spread = tree.deviation(mean)
  gain = bias = jnp.zeros((), mean.dtype)
  if reference is not None:
    true, true_unit = tree.in_units(reference.reshape(-1))
    true, true_unit = true.astype(mean.dtype), true_unit.astype(mean.dtype)
    power = jnp.sum(true**2)
    gain = jnp.sum(mean * true) / jnp.where(power > 0, power, 1)
    across = jnp.sqrt(jnp.sum((mean - gain * true) ** 2))
    along = jnp.abs(gain) * jnp.sqrt(power)
    bias = jnp.where(
      along > 0, across / jnp.where(along > 0, along, 1), jnp.inf
    )
    gain *= unit / true_unit
  return GradientStatistics(
    jnp.mean(mean) * unit,
    (spread * unit) ** 2,
    (jnp.sqrt(noise / mean.size) * unit) ** 2,  # unit**2 may be infinite.
    sparsity,
    jnp.where(noise > 0, signal / jnp.where(noise > 0, noise, 1), jnp.inf),
    gain,
    bias,
  )


class Entering(NamedTuple):
  """Statistics of the input x of a quantizer.

  Attributes:
    mean: mean of the entries, a scalar.
    std: standard deviation of the entries, a scalar.
    shares: share of the entries with ``|x| <= c``, for each half-width c,
      [half_widths].
  """

  mean: types.Array
  std: types.Array
  shares: types.Array


def entering(x: types.Array, half_widths: types.Array) -> Entering:
  """Measures the tensor to which an estimator applies its window.

  Args:
    x: pre-activations or latent weights, any shape.
    half_widths: half-widths c of windows, [half_widths], in units of x.
  """
  x = types.widened(x)
  magnitudes = jnp.abs(x)
  shares = jax.lax.map(
    lambda c: tree.share(magnitudes <= c),
    jnp.asarray(half_widths, x.dtype),
  )
  return Entering(jnp.mean(x), tree.deviation(x), shares)
