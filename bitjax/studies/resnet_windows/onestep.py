"""Judges gradients of networks that are not trained further: one step, and N12.

A threshold may be read as that of the window, of the quantizer that is scaled (a window
that keeps its mass) and of the quantizer that is shifted. Variation from batch to batch is
judged twice, as in `variant_ste`: by the correlation of the gradients on A and on B, and by
the variance over parts of A relative to the squared mean. Numbers by layer are averaged
over all quantized layers but the last, whose gradient passes no window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import models
from bitjax.studies.resnet_windows import tables
from bitjax.studies.toy import outcomes

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'judge']

# Of the loss on B: a smaller difference does not matter.
MARGIN = outcomes.LOG_RATIO
_LARGER = float(np.log(1.1))  # Nor do variances that are equal to a tenth.
_STEP: dict[str, Any] = {'unit': 'log loss ratio', 'protocol': 'deployable, B'}
_CORRELATION: dict[str, Any] = {
  'unit': 'correlation of the gradients on A and B',
  'bounds': (-2, 2),
  'smallest': outcomes.CORRELATION,
  'protocol': 'A, B',
}
_VARIANCE: dict[str, Any] = {
  'unit': 'log variance ratio, relative to the squared mean',
  'smallest': _LARGER,
  'protocol': 'parts of A',
}
_COSINE: dict[str, Any] = {
  'unit': 'cosine with exact gains',
  'bounds': (-2, 2),
  'smallest': outcomes.CORRELATION,
}

Verdicts = Iterator[verdicts.Verdict]


def judge(results: xarray.Dataset) -> Verdicts:
  """Judges every network in every state, the second contrast first.

  Args:
    results: of the study.
  """
  networks = results.network.values.tolist()
  states = results.state.values.tolist()
  states.sort(key=lambda state: state != models.TRAINED)
  for network in networks:
    for state in states:
      looked = tables.Looked(results, network, state)
      second = (network, state) == (networks[0], models.TRAINED)
      yield from _steps(looked, second)
      yield from _windows(looked)
      yield from _thresholds(looked)


def _label(looked):
  return f'{looked.network}, {looked.state}'


def _steps(looked, second) -> Verdicts:
  where = _label(looked)
  one = looked.reached(estimators.ONE)
  pair = estimators.HALF, estimators.ONE
  yield contrasts.equivalent(
    f'N18 one step, {where}',
    f'{where}: after one step through all layers, window 1/2 leaves the loss on B that '
    f'window 1 does, within {MARGIN:g} of its log'
    f'{" (the second contrast, declared beforehand)" if second else ""}.',
    contrasts.log_ratio(one, looked.reached(estimators.HALF)),
    MARGIN,
    details={
      f'decrease (nats), {name}': divergence.finite_mean(
        looked.found.start_holdout - looked.reached(name)
      )
      for name in pair
    }
    | looked.unsettled(pair),
    **_STEP,
  )
  by_layer = contrasts.log_ratio(
    looked.reached_alone(estimators.ONE), looked.reached_alone(estimators.HALF)
  )
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'N18 one layer, {where}, {int(position)}',
        f'{where}: after a step of the {int(position)}. quantized layer alone, the loss on B '
        'is lower with window 1/2 than with window 1.',
        by_layer.sel(position=position).values,
        looked.unsettled_alone(pair, position),
      )
      for position in looked.found.position.values[:-1]
    ],
    smallest=MARGIN,
    **_STEP,
  )
  others = [name for name in looked.names if name != estimators.ONE]
  for word, sign in (('better', 1), ('worse', -1)):
    yield contrasts.any_arm(
      f'N18 one step, {where}, {word}',
      f'{where}: one step of some of {len(others)} other estimators is {word} than that '
      'of window 1 (simultaneous intervals).',
      {
        name: sign * contrasts.log_ratio(one, looked.reached(name))
        for name in others
      },
      smallest=MARGIN,
      details=looked.unsettled(looked.names),
      **_STEP,
    )


def _windows(looked) -> Verdicts:
  """Judges what window 1/2 does to the gradient of each layer but the last."""
  where = _label(looked)
  if looked.found.sizes['position'] < 2:
    return
  pair = estimators.HALF, estimators.ONE

  def difference(name):
    return np.subtract(*(looked.mean(name, estimator=each) for each in pair))

  details = {
    f'{words}, {each}': float(np.nanmean(looked.mean(name, estimator=each)))
    for name, words in (
      ('passing', 'share of the gradient that passes'),
      ('sparsity', 'sparsity'),
      ('signal_to_noise', 'signal to noise'),
      ('mean', 'mean over coordinates'),
      ('coordinate_variance', 'variance over coordinates'),
    )
    for each in pair
  }
  yield contrasts.difference(
    f'N12, {where}',
    f'{where}: window 1/2 makes the gradient replicate better from A to B than window 1.',
    difference('reliability'),
    details=details,
    **_CORRELATION,
  )
  yield contrasts.difference(
    f'N12 variance, {where}',
    f'{where}: with window 1/2 the gradient varies less over batches, relative to its '
    'size, than with window 1.',
    _variance(looked, 'signal_to_noise', estimator=pair[0])
    - _variance(looked, 'signal_to_noise', estimator=pair[1]),
    direction=-1,
    **_VARIANCE,
  )
  for name, batch in (('cosine', 'A'), ('holdout_cosine', 'B')):
    yield contrasts.difference(
      f'N18 exact gains on {batch}, {where}',
      f'{where}: window 1/2 brings the gradient on A nearer to the exact gains on {batch} '
      'than window 1.',
      difference(name),
      details={
        f'cosine, {each}': float(np.nanmean(looked.mean(name, estimator=each)))
        for each in pair
      }
      | {
        'standard error from sampling weights, one layer': float(
          np.nanmean(looked.mean(f'{name}_error', estimator=estimators.ONE))
        )
      },
      protocol=f'A, exact on {batch}; sampled weights',
      **_COSINE,
    )


def _thresholds(looked) -> Verdicts:
  """Judges shifted and scaled quantizers, each by both measures of variation."""
  where = _label(looked)
  if looked.found.sizes['position'] < 2:
    return
  base: dict[str, Any] = {'estimator': estimators.ONE}
  kept = tables.half_widths(looked.names, estimators.KEPT_FAMILY)
  groups: dict[str, tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = {
    'scaled': (
      '',
      base,
      {f'scaled by {c:g}': {'estimator': name} for c, name in kept.items()},
    )
  }
  if 'shifted_reliability' in looked.found:
    values = looked.found.threshold.values[1:].tolist()
    groups['shifted'] = (
      'shifted_',
      {'threshold': 0.0},
      {f'shifted by {value:g}': {'threshold': value} for value in values},
    )
  for word, (prefix, normal, others) in groups.items():
    if not others:
      continue
    details = {}
    if prefix:
      losses = looked.found.shifted_loss
      details = {
        f'loss on A (nats), {name}': divergence.finite_mean(losses.sel(case))
        for name, case in {'no threshold': normal, **others}.items()
      }
    for finding, claim, samples, info in (
      (
        'replicates',
        'makes the gradient replicate better from A to B',
        {
          name: looked.mean(f'{prefix}reliability', **case)
          - looked.mean(f'{prefix}reliability', **normal)
          for name, case in others.items()
        },
        _CORRELATION,
      ),
      (
        'varies less',
        'makes the gradient vary less over batches, relative to its size',
        {
          name: _variance(looked, f'{prefix}signal_to_noise', **normal)
          - _variance(looked, f'{prefix}signal_to_noise', **case)
          for name, case in others.items()
        },
        _VARIANCE,
      ),
    ):
      yield contrasts.any_arm(
        f'N12 {word} quantizer, {where}, {finding}',
        f'{where}: some sign that is {word}, in all layers, {claim} (simultaneous '
        'intervals).',
        samples,
        details=details,
        **info,
      )


def _variance(looked, name, **labels):
  """Returns the log variance relative to the squared mean, averaged over layers.

  It is NaN where no signal is seen in a layer.
  """
  signal = looked.layered(name).sel(labels)
  found = contrasts.log_ratio(1.0, signal.where(signal > 0))
  return found.mean('position', skipna=False).values
