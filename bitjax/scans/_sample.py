r"""Draws some weights of a layer, the same number of each channel, to speak for all.

Where a question about every weight costs too much, as in a convolution far from the
output, it is asked of a sample. Channels differ more than the weights of one channel do,
so they are strata: of the N weights of each of C channels, n are drawn without
replacement. A mean over the sample then estimates that over the layer, with the variance

.. math:: \frac1{C^2} \sum_c \left(1 - \frac nN\right) \frac{s_c^2}{n},

where :math:`s_c^2` is the sample variance within channel c. Any other statistic is a smooth
function f of the weights w that sampled values have; to first order it varies as the mean of
:math:`\partial f / \partial w_i`, its influence (the infinitesimal jackknife).

References:
  Cochran, Sampling Techniques, 3rd edition, 1977, chapter 5; Efron and Stein, The Jackknife
  Estimate of Variance, 1981.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.scans import _network
from bitjax.scans import _view

__all__ = [
  'Estimate',
  'Sample',
  'SampledAgreement',
  'check',
  'draw_sample',
  'shared',
]


class Estimate(NamedTuple):
  """An estimate for a whole layer, from a sample of its weights.

  Attributes:
    value: the estimate.
    error: its standard error from sampling; not from the examples, which are given.
  """

  value: types.Array
  error: types.Array


class SampledAgreement(NamedTuple):
  """How two gradients agree over a whole layer, estimated from a sample of its weights.

  See `measures.Agreement`; its ``top_precision`` is no smooth function of the weights.

  Attributes:
    cosine: ``a . b / (|a| |b|)``; 0 if either is zero.
    correlation: Pearson's correlation; 0 if either is constant.
    rank_correlation: Spearman's correlation; ties share their mean rank. In a sample of
      n it is biased towards Kendall's by about 3 / n of their difference.
    sign_agreement: of the weights where neither is zero, the share with equal signs;
      0 if there are none.
  """

  cosine: Estimate
  correlation: Estimate
  rank_correlation: Estimate
  sign_agreement: Estimate


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
  """Weights that were drawn from a layer, the same number of each channel.

  Attributes:
    coordinates: indices in the flattened kernel, [channels * each], int32; those of a
      channel follow one another.
    channels: number of output channels.
    population: number of weights of a channel.
  """

  coordinates: types.Array
  channels: int = dataclasses.field(metadata={'static': True})
  population: int = dataclasses.field(metadata={'static': True})

  def __repr__(self) -> str:
    size = self.coordinates.shape[-1]
    return f'Sample({size} of {self.channels * self.population} weights)'

  def mean(self, values: types.Array) -> Estimate:
    """Estimates the mean over all weights of the layer.

    Args:
      values: one for each sampled weight, [..., coordinates], such as
        `flip_gains` returns.

    Returns:
      An `Estimate`, [...].
    """
    values = jnp.asarray(values)
    return Estimate(jnp.mean(values, axis=-1), self._error(values))

  def estimate(
    self,
    statistic: Callable[..., types.Array],
    *values: types.Array,
  ) -> Estimate:
    """Estimates a statistic of all weights of the layer, such as a correlation.

    Args:
      statistic: a differentiable function ``(weights, *values)`` of the weights with which
        the sampled values count, [coordinates], that sum to 1; it returns a scalar that is
        not changed if all weights are multiplied by a number.
      *values: what it is a statistic of, [coordinates] each.

    Returns:
      An `Estimate`, scalars. The standard error is that of first order, for samples that are
      not small.
    """
    size = self.coordinates.shape[-1]
    dtype = types.promoted(jnp.float32, *values)
    weights = jnp.full(size, 1 / size, dtype)
    value, influence = jax.value_and_grad(statistic)(weights, *values)
    return Estimate(value, self._error(influence))

  def agreement(self, a: types.Array, b: types.Array) -> SampledAgreement:
    """Estimates how two gradients agree over all weights of the layer.

    Args:
      a: one gradient at the sampled weights, [coordinates], such as gains.
      b: another one, [coordinates].

    Returns:
      A `SampledAgreement`, all NaN if an input has a NaN. Standard errors are those of `estimate`, and of ranks those
      that consider that ranks are estimated too.

    Raises:
      BadInput: for gradients of another shape than the sample's.
    """
    a, b = (types.widened(jnp.asarray(x)) for x in (a, b))
    for x in (a, b):
      if x.shape != self.coordinates.shape:
        raise types.BadInput(
          f'A gradient must have an entry for each of the {self.coordinates.size} '
          f'sampled weights; got shape {x.shape}.'
        )
    # A NaN in an input makes every result NaN, also where a convention gives 0.
    bad = jnp.any(jnp.isnan(a) | jnp.isnan(b))
    statistics = _cosine, _correlation, _rank_correlation, _sign_agreement
    found = [self.estimate(fn, a, b) for fn in statistics]
    return SampledAgreement(
      *(Estimate(*(types.nan_where(bad, x) for x in each)) for each in found)
    )

  def _error(self, values):
    groups = values.reshape(*values.shape[:-1], self.channels, -1)
    each = groups.shape[-1]
    variance = jnp.var(groups, axis=-1, ddof=1)
    rest = 1 - each / self.population
    return jnp.sqrt(rest * jnp.mean(variance, axis=-1) / (each * self.channels))


def draw_sample(view: _view.LayerView, size: int, key: types.Array) -> Sample:
  """Draws weights of a layer without replacement, the same number of each channel.

  Args:
    view: the layer, whose output channels are the last axis of its kernel.
    size: how many weights; rounded up to a multiple of the number of channels, and at
      least two of each channel.
    key: random key.

  Returns:
    A `Sample`, which `flip_gains` takes as its ``coordinates``.

  Raises:
    BadInput: for a size that is not between 1 and that of the kernel, a kernel with
      less than two weights for each channel, or the view of a whole network.
  """
  _view.check_filled(view)
  if isinstance(view.product, _network.Network):
    raise types.BadInput(
      'A network has no channels in common with its layers: draw a sample from the '
      "view of each, as 'view.product.views(view)' yields them."
    )
  whole, channels = view.kernel.size, view.kernel.shape[-1]
  size = types.check_integer('size', size, 1)
  if size > whole:
    raise types.BadInput(
      f'size must be at most that of the layer, {whole} weights; got {size}.'
    )
  population = whole // channels
  if population < 2:
    raise types.BadInput(
      'A sample needs at least two weights for each channel; the kernel has shape '
      f'{view.kernel.shape}.'
    )
  each = min(max(2, -(-size // channels)), population)

  def draw(key, channel):
    rows = jax.random.choice(key, population, (each,), replace=False)
    return jnp.sort(rows).astype(jnp.int32) * channels + channel

  keys = jax.random.split(key, channels)
  drawn = jax.vmap(draw)(keys, jnp.arange(channels, dtype=jnp.int32))
  return Sample(drawn.reshape(-1), channels, population)


def check(sample: Sample, view: _view.LayerView) -> None:
  """Raises `BadInput` for a sample of a layer of another shape than the view's."""
  size, channels = view.kernel.size, view.kernel.shape[-1]
  if (size, channels) != (sample.channels * sample.population, sample.channels):
    raise types.BadInput(
      f'The sample was drawn from a layer of {sample.channels} channels of '
      f'{sample.population} weights; this one has a kernel of shape '
      f'{view.kernel.shape}. Draw one from this view (draw_sample).'
    )


def shared(samples: Sequence[Sample | None]) -> Sample | None:
  """Returns the sample that all have in common, or None if none has one.

  Raises:
    BadInput: if they differ, as far as that is known before they are computed.
  """
  first, *others = samples
  for other in others:
    same = jax.tree.structure(other) == jax.tree.structure(first)
    if same and first is not None and other is not None:
      a, b = first.coordinates, other.coordinates
      traced = any(isinstance(x, jax.core.Tracer) for x in (a, b))
      same = traced or np.array_equal(a, b)
    if not same:
      raise types.BadInput(
        'Gains must be of the same moves; these are of different samples of the '
        'weights, or only some are of a sample.'
      )
  return first


def _mean(weights, x):
  return jnp.sum(weights * x) / jnp.sum(weights)


def _cosine(weights, a, b):
  # Divide by the largest entry first: squares of small gradients underflow.
  a, b = (
    x / jnp.where(jnp.any(x != 0), jnp.max(jnp.abs(x)), 1) for x in (a, b)
  )
  powers = _mean(weights, a * a) * _mean(weights, b * b)
  known = powers > 0
  ratio = _mean(weights, a * b) / jnp.sqrt(jnp.where(known, powers, 1))
  return jnp.where(known, ratio, 0)


def _correlation(weights, a, b):
  # A constant input stays exactly 0 when its first entry is subtracted.
  a, b = (x - x[0] for x in (a, b))
  return _cosine(weights, *(x - _mean(weights, x) for x in (a, b)))


def _rank_correlation(weights, a, b):
  return _correlation(weights, *(_ranks(weights, x) for x in (a, b)))


def _ranks(weights, x):
  """Returns the share of the weights below each one's value, and half of those at it."""
  order = jnp.argsort(x)
  below = jnp.cumsum((weights / jnp.sum(weights))[order])
  below = jnp.concatenate([jnp.zeros(1, below.dtype), below])
  first, last = (
    jnp.searchsorted(x[order], x, side=side) for side in ('left', 'right')
  )
  return 0.5 * (below[first] + below[last])


def _sign_agreement(weights, a, b):
  both = (a != 0) & (b != 0)
  count = jnp.sum(jnp.where(both, weights, 0))
  equal = jnp.sum(jnp.where(both & ((a > 0) == (b > 0)), weights, 0))
  return equal / jnp.where(jnp.any(both), count, 1)
