"""Judges whether what a gradient is worth at the start predicts what a training reaches.

Over the estimators that are trained from a start, what is measured of each before the
training is ranked, and so is the accuracy after it: Spearman's correlation, one for each
seed, with its interval over seeds. Estimators of one family resemble each other, so they are
no independent sample: the details tell the range of the mean correlation when each
family in turn is left out, and the correlation of the families' means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import verdicts
from bitjax.studies.resnet_windows import arms as arms_lib
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import tables

if TYPE_CHECKING:
  import xarray

__all__ = ['judge', 'rank_correlations']

_SMALLEST = 0.1  # A weaker rank correlation does not matter.
_FEWEST = 4  # Estimators that can be ranked.


def judge(results: xarray.Dataset) -> Iterator[verdicts.Verdict]:
  """Judges every start of trainings whose gradients were looked at.

  Args:
    results: of the study.
  """
  trained = tables.Trained(results)
  network = results.network.values.tolist()[0]
  for start in arms_lib.STARTS[::-1]:
    if start not in results.state.values:
      continue
    looked = tables.Looked(results, network, start)
    names = [name for name in trained.names(start) if name in looked.names]
    if len(names) < _FEWEST or looked.found.sizes['position'] < 2:
      continue
    accuracy = np.stack([trained.accuracy(name, start) for name in names])
    families = [estimators.of(name).family for name in names]
    for finding, words, read in (
      (
        'nearness, A',
        'the nearer (cosine) a gradient on A is to the exact gains on A',
        lambda name, looked=looked: looked.mean('cosine', estimator=name),
      ),
      (
        'nearness, B',
        'the nearer (cosine) a gradient on A is to the exact gains on B',
        lambda name, looked=looked: looked.mean(
          'holdout_cosine', estimator=name
        ),
      ),
      (
        'replication',
        'the better a gradient replicates from A to B',
        lambda name, looked=looked: looked.mean('reliability', estimator=name),
      ),
      (
        'one step',
        'the more one step through all layers lowers the loss on B',
        looked.saved,
      ),
    ):
      measured = np.stack([read(name) for name in names])
      yield contrasts.difference(
        f'N18 predicts accuracy: {finding}, {start}',
        f'{start}, before the training: {words}, the higher the accuracy after it, over '
        f'{len(names)} estimators of {len({*families})} families.',
        rank_correlations(measured, accuracy),
        unit='rank correlation over estimators',
        bounds=(-1, 1),
        smallest=_SMALLEST,
        protocol='over seeds',
        details=_by_family(measured, accuracy, families)
        | trained.unsettled(names, start),
        caveat='The estimators are chosen, not drawn; those of a family are alike.',
      )


def rank_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns Spearman's correlation over the rows, for each column.

  Args:
    a: numbers, [estimators, seeds].
    b: other numbers of the same estimators and seeds.

  Returns:
    [seeds]; NaN where a number is NaN, or where all of one side are equal.
  """
  from scipy import stats

  def one(x, y):
    if np.isnan(x).any() or np.isnan(y).any():
      return np.nan
    x, y = (stats.rankdata(z) - (len(z) + 1) / 2 for z in (x, y))
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size else np.nan

  return np.asarray([one(*pair) for pair in zip(a.T, b.T, strict=True)])


def _by_family(
  measured: np.ndarray, accuracy: np.ndarray, families: Sequence[str]
) -> dict[str, float]:
  """Returns the correlation without each family, and that of the families' means."""
  every = list(dict.fromkeys(families))
  own = np.asarray(families)
  without = {
    name: _mean(rank_correlations(measured[own != name], accuracy[own != name]))
    for name in every
  }
  found = {f'without {name}': value for name, value in without.items()}
  known = [value for value in without.values() if np.isfinite(value)]
  if known:
    found |= {
      'lowest without a family': min(known),
      'highest without a family': max(known),
    }
  means = [
    np.stack([x[own == name].mean(0) for name in every])
    for x in (measured, accuracy)
  ]
  return found | {'over means of families': _mean(rank_correlations(*means))}


def _mean(values):
  known = values[np.isfinite(values)]
  return float(known.mean()) if known.size else float('nan')
