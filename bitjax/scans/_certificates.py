r"""Tests whether a layer is at a local optimum of single moves, and on which data.

A weight pattern is a *1-flip optimum* of a loss if no single move lowers it. On the
training loss that is a yes or no. As a statement about the data it is an estimate:
a gain is a mean over examples, with a standard error, and of 200 000 moves some
improve any finite sample by chance. So four numbers are reported together: the share
of moves that improve the loss, the share that does so by more than two standard
errors, the share of those that improves held-out data too, and the same share for
moves taken at random, which the third must exceed to mean anything.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitjax import tree
from bitjax import types
from bitjax.scans import _flips
from bitjax.scans import _report
from bitjax.scans import _sample
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['Certificate', 'flip_certificate', 'merge_gains', 'stream_gains']


class Certificate(NamedTuple):
  """How near a layer is to a 1-flip optimum.

  Attributes:
    is_optimum: whether no single move lowers the loss, bool; of a sample of the
      weights, whether none of theirs does.
    best: the largest gain in nats.
    best_error: its standard error. The largest of many estimates is biased upwards.
    improving: share of moves that lower the loss.
    significant: share of moves that lower it by more than ``num_errors`` standard
      errors.
    mirrored: share of moves that raise it by more than as many; if gains are noise
      around 0, it is about as large as ``significant``.
    holds: of the improving moves, the share that also lowers the held-out loss;
      None without held-out data, like the fields that follow.
    significant_holds: the same share of the significant moves.
    random_holds: the same share of all moves, as a random move achieves it.
    mean_holdout: mean held-out gain of the improving moves in nats.
    random_mean_holdout: mean held-out gain of all moves in nats.
    sampling_errors: for gains of a sample of the weights, standard errors of these
      shares and means as estimates for the whole layer, by field; None for gains of
      all weights.
  """

  is_optimum: types.Array
  best: types.Array
  best_error: types.Array
  improving: types.Array
  significant: types.Array
  mirrored: types.Array
  holds: types.Array | None = None
  significant_holds: types.Array | None = None
  random_holds: types.Array | None = None
  mean_holdout: types.Array | None = None
  random_mean_holdout: types.Array | None = None
  sampling_errors: dict[str, types.Array] | None = None

  def __repr__(self) -> str:
    shown = self._asdict()
    del shown['sampling_errors']
    return _text.describe(self, **shown)


def flip_certificate(
  gains: _flips.FlipGains,
  holdout: _flips.FlipGains | None = None,
  *,
  num_errors: types.Scalar = 2.0,
  tolerance: types.Scalar = 1e-6,
) -> Certificate:
  r"""Returns how near a layer is to a 1-flip optimum, from the gains of its moves.

  A move counts as improving if its gain is more than ``tolerance`` times the loss,
  and as significant if, besides, :math:`g > n \cdot \mathrm{SE}(g)`.

  Args:
    gains: gains of all moves (`flip_gains`), or of a sample of the weights, on the
      data whose loss is in question: for a trained network the whole training set,
      merged by `merge_gains`.
    holdout: gains of the same moves on other data; None for none, which leaves the
      fields of held-out data None.
    num_errors: n, how many standard errors a significant gain exceeds.
    tolerance: gains up to this fraction of the loss count as rounding.

  Returns:
    A `Certificate`. Shares and means over an empty set of moves are NaN. Where a loss
    or a gain is not finite, under ``jit``, it is no optimum, and all else is NaN.

  Raises:
    BadInput: if the two differ in shape or in their sample, for a negative number, or for
      gains that are concrete and not finite.

  References:
    Benjamini and Hochberg, Controlling the false discovery rate, 1995, on why a
    share above two standard errors is no list of discoveries.
  """
  types.check_non_negative('num_errors', num_errors, finite=True)
  types.check_non_negative('tolerance', tolerance, finite=True)
  if holdout is not None and holdout.gains.shape != gains.gains.shape:
    raise types.BadInput(
      'gains and holdout must be of the same moves; got shapes '
      f'{gains.gains.shape} and {holdout.gains.shape}.'
    )
  both = [g for g in (gains, holdout) if g is not None]
  for one in both:
    types.check_finite('The loss', one.loss)
    types.check_finite('A gain', one.gains, arrays=True)
  known = jnp.stack(
    [jnp.isfinite(x).all() for g in both for x in (g.loss, g.gains)]
  )
  broken = ~jnp.all(known)
  gain, error = gains.gains, gains.standard_errors()
  sample = _sample.shared([g.sample for g in both])
  least = tolerance * gains.loss
  improving = gain > least
  significant = improving & (gain > num_errors * error)
  mirrored = (gain < -least) & (gain < -num_errors * error)
  best = jnp.argmax(gain)
  # Each is the mean of the first over the moves for which the second holds.
  means: dict[str, tuple[types.Array, types.Array | None]] = {
    'improving': (improving, None),
    'significant': (significant, None),
    'mirrored': (mirrored, None),
  }
  if holdout is not None:
    other = holdout.gains
    falls = other > tolerance * holdout.loss
    means |= {
      'holds': (falls, improving),
      'significant_holds': (falls, significant),
      'random_holds': (falls, None),
      'mean_holdout': (other, improving),
      'random_mean_holdout': (other, None),
    }
  found: dict[str, Any] = {name: _mean(*pair) for name, pair in means.items()}
  found |= {
    'best': gain.reshape(-1)[best],
    'best_error': error.reshape(-1)[best],
  }
  errors = None
  if sample is not None:
    errors = {name: _error(sample, *pair) for name, pair in means.items()}
  found, errors = jax.tree.map(
    lambda x: types.nan_where(broken, x), (found, errors)
  )
  return Certificate(
    ~(broken | jnp.any(improving)), **found, sampling_errors=errors
  )


def merge_gains(*parts: _flips.FlipGains) -> _flips.FlipGains:
  r"""Returns the gains on several batches taken together.

  .. math:: g = \sum_t \frac{B_t}{B} g_t, \qquad
    m_2 = \sum_t \frac{B_t}{B} m_{2,t}, \qquad B = \sum_t B_t

  As a running total it streams a training set of any size, also from a disk:
  ``total = merge_gains(total, flip_gains(view))``. The result is exact but for
  rounding, if the loss does not couple the examples of a batch.

  Args:
    *parts: gains of the same moves on disjoint batches.

  Returns:
    `FlipGains` of all examples; its path names every path taken.

  Raises:
    BadInput: for no parts, parts of different shapes or samples, or a loss that is
      concrete and not finite.
  """
  shapes = list(dict.fromkeys(part.gains.shape for part in parts))
  if len(shapes) != 1:
    raise types.BadInput(
      'merge_gains needs gains of the same moves, at least one; got the shapes '
      f'{shapes}.'
    )
  total = sum(part.num_examples for part in parts)
  shares = [part.num_examples / total for part in parts]

  def mean(values):
    return sum(
      share * value for share, value in zip(shares, values, strict=True)
    )

  for part in parts:
    types.check_finite('The loss', part.loss)
  ties = [part.near_ties for part in parts if part.near_ties is not None]
  return _flips.FlipGains(
    gains=jnp.asarray(mean([part.gains for part in parts])),
    second_moments=jnp.asarray(mean([part.second_moments for part in parts])),
    loss=jnp.asarray(mean([part.loss for part in parts])),
    near_ties=jnp.asarray(sum(ties)) if len(ties) == len(parts) else None,
    num_examples=total,
    path=', '.join(dict.fromkeys(part.path for part in parts)),
    sample=_sample.shared([part.sample for part in parts]),
  )


@_report.reports
def stream_gains(
  make_view: Callable[[types.Array, types.Array], _view.LayerView],
  inputs: types.Array,
  labels: types.Array,
  batch_size: int,
  *,
  report: _report.Report | None = None,
  **options: Any,
) -> _flips.FlipGains:
  """Returns the gains on a whole data set, from one batch of examples at a time.

  The memory needed is that of `flip_gains` on ``batch_size`` examples, whatever its
  path. The function can be jitted: one program visits the parts one after another.

  Args:
    make_view: maps inputs and labels of some examples to the layer's view of them.
    inputs: inputs of the data set, [examples, ...].
    labels: their classes, [examples].
    batch_size: number of examples at a time.
    report: as for `flip_gains`.
    **options: keyword arguments of `flip_gains`.

  Returns:
    `FlipGains` of all examples.

  Raises:
    BadInput: for a batch size below 1, no examples, labels that are not one class for
      each of them, a network that normalises by the statistics of a batch (which gains
      would depend on how the set is cut), or what `flip_gains` objects to.
  """
  types.check_integer('batch_size', batch_size, 1)
  if inputs.shape[0] == 0:
    raise types.BadInput('A data set must not be empty; got 0 examples.')
  types.check_labels('labels', labels, inputs.shape[0])
  labels = jnp.asarray(labels)
  batch_size = min(batch_size, labels.shape[0])
  num_parts, rest = divmod(labels.shape[0], batch_size)
  whole = num_parts * batch_size

  first = jax.eval_shape(make_view, inputs[:batch_size], labels[:batch_size])
  if first.normalizes_by_batch:
    raise types.BadInput(
      'The network normalises by the statistics of a batch, so its gains on a data '
      'set depend on how that is cut; use running statistics.'
    )

  def gains(number, batch):
    progress = _report.part(report, number, num_parts + (rest > 0))
    found = _flips.flip_gains(make_view(*batch), report=progress, **options)
    return dataclasses.replace(found, sample=None)  # It is not summed.

  def add(total, numbered):
    return jax.tree.map(jnp.add, total, gains(*numbered)), None

  parts = tuple(
    x[:whole].reshape(num_parts, batch_size, *x.shape[1:])
    for x in (inputs, labels)
  )
  total, _ = jax.lax.scan(
    add,
    gains(0, [x[0] for x in parts]),
    (
      _report.numbers(report, 1, num_parts),
      tuple(x[1:] for x in parts),
    ),
  )
  found = dataclasses.replace(
    total,
    gains=total.gains / num_parts,
    second_moments=total.second_moments / num_parts,
    loss=total.loss / num_parts,
    num_examples=whole,
  )
  if rest:
    last = gains(num_parts, (inputs[whole:], labels[whole:]))
    found = merge_gains(found, last)
  types.check_finite('The loss', found.loss)
  sample = options.get('coordinates')
  if isinstance(sample, _sample.Sample):
    found = dataclasses.replace(found, sample=sample)
  return found


def _mean(x, mask):
  """Returns the mean where a mask is true, or everywhere; a share for booleans."""
  if mask is None:
    return tree.share(x) if x.dtype == bool else jnp.mean(x)
  count = tree.count(mask)
  if x.dtype == bool:
    total, dtype = tree.count(x & mask), jnp.float32
  else:
    total, dtype = jnp.sum(jnp.where(mask, x, 0)), x.dtype
  return total.astype(dtype) / count.astype(dtype)  # NaN without any.


def _error(sample, x, mask):
  """Returns the standard error of `_mean` from the sampling of weights."""
  mask = jnp.ones(x.shape, bool) if mask is None else mask
  dtype = types.promoted(jnp.float32, x)
  # A weight may have two moves: its own means come first.
  total, count = (
    part.astype(dtype).reshape(-1, x.shape[-1]).mean(axis=0)
    for part in (jnp.where(mask, x, 0), mask)
  )

  def mean(weights, total, count):
    return jnp.sum(weights * total) / jnp.sum(weights * count)

  return sample.estimate(mean, total, count).error
