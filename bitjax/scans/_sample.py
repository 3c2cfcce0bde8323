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

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _view

__all__ = ['Estimate', 'Sample', 'draw_sample']


class Estimate(NamedTuple):
  """An estimate for a whole layer, from a sample of its weights.

  Attributes:
    value: the estimate.
    error: its standard error from sampling; not from the examples, which are given.
  """

  value: types.Array
  error: types.Array


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
    A `Sample`, whose ``coordinates`` `flip_gains` takes.

  Raises:
    BadInput: for a size that is not between 1 and that of the kernel, or a kernel with
      less than two weights for each channel.
  """
  _view.check_filled(view)
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
