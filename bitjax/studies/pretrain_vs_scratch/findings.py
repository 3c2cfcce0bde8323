"""Judges the note's N19, and whether low-bit networks overfit (N14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies import recipes
from bitjax.studies.recipes import outcomes

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'judge', 'tested']

MARGIN = 0.5  # Points of accuracy: a smaller difference does not matter.

_CAVEAT = (
  'Short trainings of a small network on small images, unless told longer.'
)
# (finding, start, the start that it is compared with, claim), the primary one first.
_STARTS = (
  (
    'N19',
    'pretrained',
    'scratch',
    'a start from full precision ends better than one from scratch, at an equal '
    'number of epochs in all',
  ),
  (
    'N19 equal low-bit epochs',
    'pretrained',
    'half',
    'a start from full precision ends better than one from scratch, at an equal '
    'number of low-bit epochs',
  ),
  (
    'N19 staged',
    'staged',
    'scratch',
    'quantizing activations first, weights later, ends better than both at once',
  ),
)


def tested(results: xarray.Dataset) -> xarray.Dataset:
  """Returns what the last weights reach, NaN for networks that diverged.

  Args:
    results: of `trainings.compare`.

  Returns:
    The results with ``right``, 100 for each test example that is guessed correctly and 0
    for others, in points, with a last axis ``test_example``; and ``gap``, by how many
    points the accuracy on the training set, without augmentation, exceeds that.
  """
  gap = 100 * (results.clean_train_accuracy - results.test_accuracy)
  return outcomes.tested(results.assign(gap=gap))


class _Table:
  """Looks up arms by what they are."""

  def __init__(self, results):
    self._found = tested(results)
    losses = results.tuning_validation_loss.to_dataset(name='tuning_holdout')
    self._doubt = protocols.unsettled(losses, ['rate'])
    self._rates = recipes.chosen(results.tuning_validation_loss)
    self._labels = {
      (str(p), str(s), float(a)): str(label)
      for label, p, s, a in zip(
        results.arm.values,
        results.precision.values,
        results.start.values,
        results.alpha.values,
        strict=True,
      )
    }

  @property
  def precisions(self):
    return list(dict.fromkeys(p for p, _, _ in self._labels))

  @property
  def mixups(self):
    return sorted({alpha for _, _, alpha in self._labels})

  def has(self, *arms):
    return all(arm in self._labels for arm in arms)

  def right(self, *arm):
    """Returns the answers of an arm, [seeds, test examples]."""
    found = self._found.right.sel(arm=self._labels[arm])
    return found.transpose('seed', 'test_example').values

  def gap(self, *arm):
    """Returns the gaps of an arm, [seeds]."""
    return self._found.gap.sel(arm=self._labels[arm]).values

  def details(self, *arms):
    names = [self._labels[arm] for arm in arms]
    reached = self._found.right.mean(['seed', 'test_example'])
    found = {name: float(reached.sel(arm=name)) for name in names}
    for name in names:
      found[f'rate, {name}'] = float(self._rates.sel(arm=name))
    return found | self.unsettled(*arms)

  def unsettled(self, *arms):
    """Returns how often other tuning seeds would have chosen another rate."""
    names = [self._labels[arm] for arm in arms]
    return {
      f'tuned otherwise, {name}': float(self._doubt.sel(arm=name))
      for name in names
    }


def _named(precision, alpha):
  return f'{precision}, {f"mixup {alpha:g}" if alpha else "no mixup"}'


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges every claim for all bits and amounts of mixup.

  Args:
    results: of `trainings.compare`.
  """
  table = _Table(results)
  info: dict[str, Any] = {
    'unit': 'points of test accuracy',
    'caveat': _CAVEAT,
    'smallest': MARGIN,
  }
  over = 'deployable, last epoch, over seeds and test images'
  crossed = info | {'protocol': over, 'crossed': True, 'bounds': (-100, 100)}
  found: list[verdicts.Verdict] = []
  for precision in table.precisions:
    for alpha in table.mixups:
      where = _named(precision, alpha)
      for finding, start, against, claim in _STARTS:
        pair = [(precision, name, alpha) for name in (start, against)]
        if table.has(*pair):
          found.append(
            contrasts.difference(
              f'{finding}, {where}',
              f'{where}: {claim}.',
              table.right(*pair[0]) - table.right(*pair[1]),
              primary=not found,
              details=table.details(*pair),
              **crossed,
            )
          )
    found += _of_mixup(table, precision, crossed)
    found += _of_overfitting(table, precision, info)
    found += _of_bits(table, precision, crossed)
  return found


def _pair(precision, alpha):
  return (precision, 'pretrained', alpha), (precision, 'scratch', alpha)


def _gain(table, precision, alpha):
  """Returns what a start from full precision gains, [seeds, test examples]."""
  return np.subtract(*(table.right(*arm) for arm in _pair(precision, alpha)))


def _of_mixup(table, precision, info):
  """Judges what mixup does, and whether it does more from full precision on."""
  for alpha in filter(None, table.mixups):
    for start in ('scratch', 'pretrained'):
      pair = [(precision, start, a) for a in (alpha, 0.0)]
      yield contrasts.difference(
        f'N19 mixup, {precision}, {start}, mixup {alpha:g}',
        f'{precision}, {start}: mixup with alpha = {alpha:g} ends better than none.',
        table.right(*pair[0]) - table.right(*pair[1]),
        details=table.details(*pair),
        **info,
      )
    yield contrasts.difference(
      f'N19 interaction, {precision}, mixup {alpha:g}',
      f'{precision}: a start from full precision gains more with mixup (alpha = '
      f'{alpha:g}) than without.',
      _gain(table, precision, alpha) - _gain(table, precision, 0.0),
      details=table.unsettled(*_pair(precision, alpha), *_pair(precision, 0.0)),
      **info | {'bounds': (-400, 400)},
    )


def _of_overfitting(table, precision, info):
  """Judges the gap between training and test accuracy."""
  info = info | {
    'protocol': 'deployable, last epoch, over seeds',
    'unit': 'points of accuracy',
    'bounds': (-100, 100),
  }
  own = precision, 'scratch', 0.0
  gap = table.gap(*own)
  yield contrasts.difference(
    f'N14 overfits, {precision}',
    f'{precision}, from scratch, no mixup: more of the training images than of the '
    'test images are guessed correctly.',
    gap,
    details=table.unsettled(own),
    **info,
  )
  for alpha in filter(None, table.mixups):
    yield contrasts.difference(
      f'N14 mixup closes the gap, {precision}, mixup {alpha:g}',
      f'{precision}, from scratch: mixup (alpha = {alpha:g}) narrows the gap between '
      'training and test accuracy.',
      gap - table.gap(precision, 'scratch', alpha),
      details=table.unsettled(own, (precision, 'scratch', alpha)),
      **info | {'bounds': (-200, 200)},
    )


def _of_bits(table, precision, info):
  """Judges whether a start from full precision gains more in low bits."""
  control = ('FP', 'pretrained', 0.0), ('FP', 'scratch', 0.0)
  if precision != 'FP' and table.has(*control):
    yield contrasts.difference(
      f'N19 low bits, {precision}',
      f'{precision}, no mixup: the start in full precision gains more in low bits '
      'than a restart does in full precision.',
      _gain(table, precision, 0.0) - _gain(table, 'FP', 0.0),
      details=table.unsettled(*_pair(precision, 0.0), *control),
      **info | {'bounds': (-400, 400)},
    )
