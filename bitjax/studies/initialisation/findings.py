"""Judges what initialisations do, with and without training (N16)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import functools
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies import recipes
from bitjax.studies.initialisation import arms as arms_lib

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'Table', 'judge']

MARGIN = 0.5  # Points of accuracy: a smaller difference does not matter.
_SHARE = 1.0  # Points of the gradient's l1 norm.
_HALVINGS = 0.01  # Of the gradient, in a layer: 0.7 %.
_FLIPS = 0.1  # Doublings of the share of signs that flip.
_CAVEAT = (
  'Short trainings of a small network on small images, unless told longer.'
)
_WORDS = {
  'small': "a classifier that begins with PyTorch's spread, not Kaiming's,",
  'fast': 'a classifier with a larger learning rate than all else',
  'decayed': 'a classifier with a weight decay of its own',
}


class Table:
  """Looks up what arms reach; networks that diverged have NaN.

  Args:
    results: of the study.
  """

  def __init__(self, results: xarray.Dataset):
    right = 100 * recipes.right(results)
    found = results.drop_vars('test_right').assign(right=right)
    self.found = divergence.without(found, ['validation_loss', 'test_accuracy'])
    losses = results.tuning_validation_loss.to_dataset(name='tuning_holdout')
    self._doubt = protocols.unsettled(losses, ['rate'])
    self.rates = recipes.chosen(results.tuning_validation_loss)

  @property
  def factorial(self) -> list[arms_lib.Arm]:
    """The arms of the classifier's factorial, which differ in nothing else."""
    flags = [
      self.found[name].values[self.found.begun.values == arms_lib.REFERENCE]
      for name in arms_lib.CHANGES
    ]
    return [
      arms_lib.Arm(arms_lib.REFERENCE, *map(bool, row))
      for row in zip(*flags, strict=True)
    ]

  @property
  def starts(self) -> list[str]:
    """The other initialisations."""
    names = self.found.begun.values.tolist()
    return [name for name in names if name != arms_lib.REFERENCE]

  def right(self, arm: Any) -> np.ndarray:
    """Returns the answers of an arm in points, [seeds, test examples]."""
    found = self.found.right.sel(arm=str(arm))
    return found.transpose('seed', 'test_example').values

  def of(self, name: str, arm: Any) -> np.ndarray:
    """Returns a number of an arm's networks, [seeds] or [seeds, epochs]."""
    return self.found[name].sel(arm=str(arm)).values

  def effect(self, *changes: str, read: Any = None) -> np.ndarray:
    """Returns the effect of a change, or the interaction of two, averaged over the rest.

    Args:
      *changes: one or two names in `arms.CHANGES`.
      read: arm -> numbers by seed; None for its answers.
    """
    read = read or self.right
    terms = [
      functools.reduce(
        operator.mul, (1 if getattr(arm, c) else -1 for c in changes)
      )
      * read(arm)
      for arm in self.factorial
    ]
    # Half of the arms have a change; differences of two halves, and of two differences.
    return sum(terms) / (len(terms) / 2 ** len(changes))

  def details(self, arms: Iterable[Any]) -> dict[str, float]:
    """Returns the accuracy and rate of each arm, and whether its rate is in doubt."""
    found: dict[str, float] = {}
    for name in map(str, arms):
      found |= {
        name: float(divergence.finite_mean(self.found.right.sel(arm=name))),
        f'rate, {name}': float(self.rates.sel(arm=name)),
      }
    return found | self.unsettled(arms)

  def unsettled(self, arms: Iterable[Any]) -> dict[str, float]:
    """Returns how often other tuning seeds would have chosen another rate."""
    return {
      f'tuned otherwise, {name}': float(self._doubt.sel(arm=name))
      for name in map(str, arms)
    }


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges every claim, the primary one first.

  Args:
    results: of the study.
  """
  table = Table(results)
  return [
    *_of_classifier(table),
    *_of_mechanism(table),
    *_of_starts(table),
    *_of_windows(results),
    *_of_depth(results),
    *_of_gradients(results),
  ]


def _points(table, arms) -> dict[str, Any]:
  return {
    'unit': 'points of test accuracy',
    'protocol': 'deployable, last epoch, over seeds and test images',
    'caveat': _CAVEAT,
    'crossed': True,
    'smallest': MARGIN,
    'bounds': (-100, 100),
    'details': table.details(arms),
  }


def _of_classifier(table) -> Iterator[verdicts.Verdict]:
  """Judges the factorial: each change, and whether spread depends on the others."""
  info = _points(table, table.factorial)
  names = {'small': '', 'fast': ', rate', 'decayed': ', decay'}
  for change, suffix in names.items():
    others = ' and '.join(name for name in names if name != change)
    yield contrasts.difference(
      f'N16 classifier{suffix}',
      f'{_WORDS[change]} ends better, on average over the others ({others}).',
      table.effect(change),
      primary=change == 'small',
      **info,
    )
  for change in ('fast', 'decayed'):
    yield contrasts.difference(
      f'N16 classifier{names[change]} and spread',
      f'the small classifier gains more if it is {change} than if it is not.',
      table.effect('small', change),
      **info | {'bounds': (-200, 200)},
    )
  pair = arms_lib.Arm(small=True), arms_lib.Arm()
  yield contrasts.difference(
    'N16 classifier, as published',
    f'{_WORDS["small"]} ends better, with the rate and decay of all else.',
    table.right(pair[0]) - table.right(pair[1]),
    **info | {'details': table.details(pair)},
  )


def _of_mechanism(table) -> Iterator[verdicts.Verdict]:
  """Judges why: is it the relative rate, the flips, or where the classifier ends?"""
  pair = arms_lib.Arm(small=True), arms_lib.Arm(fast=True)
  info = _points(table, pair)
  info = {k: v for k, v in info.items() if k not in ('smallest', 'bounds')}
  yield contrasts.equivalent(
    'N16 classifier, small or fast',
    'a fast classifier does the same as a small one: they end within '
    f'{MARGIN:g} points of each other.',
    table.right(pair[1]) - table.right(pair[0]),
    MARGIN,
    **info,
  )
  over: dict[str, Any] = {
    'protocol': 'deployable, over seeds',
    'caveat': _CAVEAT,
    'details': table.unsettled(table.factorial),
  }
  yield contrasts.difference(
    'N16 classifier, flips',
    'with a small classifier fewer signs flip in the first epoch, on average over '
    'the others.',
    table.effect(
      'small', read=lambda arm: np.log2(table.of('flips', arm)[:, 0])
    ),
    direction=-1,
    smallest=_FLIPS,
    unit='doublings of flips per weight and update',
    **over,
  )
  yield contrasts.difference(
    'N16 classifier, end',
    'a small classifier is still smaller after the training, on average over the '
    'others.',
    table.effect('small', read=lambda arm: np.log2(table.of('spread', arm))),
    direction=-1,
    smallest=_FLIPS,
    unit='doublings of the spread of its kernel',
    **over,
  )
  yield contrasts.difference(
    'N16 classifier, fit',
    'with a small classifier the training loss ends lower, on average over the '
    'others.',
    table.effect('small', read=lambda arm: table.of('train_loss', arm)),
    direction=-1,
    smallest=0.02,
    unit='nats of training loss',
    **over,
  )


def _of_starts(table) -> Iterator[verdicts.Verdict]:
  """Judges whether any other initialisation ends better, or worse."""
  if not table.starts:
    return
  arms = [arms_lib.Arm(name) for name in table.starts]
  info = _points(table, [arms_lib.Arm(), *arms])
  reached = table.right(arms_lib.Arm())
  for word, sign in (('better', 1), ('worse', -1)):
    yield contrasts.any_arm(
      f'N16 initialisation, {word}',
      f"some other initialisation ends {word} than Kaiming's normal one.",
      {str(arm): sign * (table.right(arm) - reached) for arm in arms},
      **info,
    )


def _cases(results) -> list[tuple[str, str]]:
  """Returns the networks that were measured: depths and shortcuts."""
  return [
    (depth, shortcut)
    for shortcut in results.shortcut.values.tolist()
    for depth in results.depth.values.tolist()
  ]


def _sampled(results, name, case, start):
  depth, shortcut = case
  at = results[name].sel(depth=depth, shortcut=shortcut, start=start)
  return at.values.astype(float)


_UNTRAINED = {'protocol': 'untrained, over seeds, each with a batch of its own'}


def _of_windows(results) -> Iterator[verdicts.Verdict]:
  """Judges which initialisation changes how much gradient passes the windows."""
  cases, others = _cases(results), results.start.values.tolist()
  others = [start for start in others if start != arms_lib.REFERENCE]
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'N16 window of signs, {depth}, {shortcut}',
        f'{depth}, {shortcut}: the window 1 of a sign behind a hardtanh stops some '
        'gradient, at any initialisation.',
        100 - 100 * results.inner.sel(depth=depth, shortcut=shortcut).min('start').values,
      )
      for depth, shortcut in cases
    ],
    smallest=_SHARE,
    unit='points of gradient mass',
    **_UNTRAINED,
  )  # fmt: skip
  deepest = results.depth.values.tolist()[-1]
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'N16 share, {start}, {shortcut}',
        f'{deepest}, {shortcut}: more gradient passes the activations from {start} than '
        "from Kaiming's normal initialisation.",
        100 * np.subtract(*_pair(results, 'mass', (deepest, shortcut), start)),
        _means(results, 'mass', (deepest, shortcut), start, 100),
      )
      for shortcut in results.shortcut.values.tolist()
      for start in others
    ],
    smallest=_SHARE,
    unit='points of gradient mass',
    **_UNTRAINED,
  )


def _of_depth(results) -> Iterator[verdicts.Verdict]:
  """Judges whether the gradient vanishes towards the first layer."""
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'N16 depth, {depth}, {shortcut}',
        f'{depth}, {shortcut}: the gradient of latent weights vanishes towards the '
        'first layer.',
        samples := _sampled(
          results, 'halvings', (depth, shortcut), arms_lib.REFERENCE
        ),
        {'factor of a layer': 2.0 ** -float(samples.mean())},
      )
      for depth, shortcut in _cases(results)
    ],
    smallest=_HALVINGS,
    unit='halvings in a layer',
    **_UNTRAINED,
  )
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'N16 first layer, {depth}, {shortcut}',
        f'{depth}, {shortcut}: the gradient is smaller in the first quantized layer '
        'than in the last, which has more weights.',
        _sampled(results, 'span', (depth, shortcut), arms_lib.REFERENCE),
      )
      for depth, shortcut in _cases(results)
    ],
    smallest=_FLIPS,
    unit='doublings of its norm',
    **_UNTRAINED,
  )
  deepest = results.depth.values.tolist()[-1]
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'N16 depth, {start}, {shortcut}',
        f'{deepest}, {shortcut}: the gradient vanishes faster from {start} than from '
        "Kaiming's normal initialisation.",
        np.subtract(*_pair(results, 'halvings', (deepest, shortcut), start)),
        _means(results, 'halvings', (deepest, shortcut), start, 1),
      )
      for shortcut in results.shortcut.values.tolist()
      for start in results.start.values.tolist()
      if start != arms_lib.REFERENCE
    ],
    smallest=_HALVINGS,
    unit='halvings in a layer',
    **_UNTRAINED,
  )


def _pair(results, name, case, start):
  """Returns what a start and the reference have, each [seeds]."""
  return [
    _sampled(results, name, case, one) for one in (start, arms_lib.REFERENCE)
  ]


def _means(results, name, case, start, factor):
  return {
    one: factor * float(_sampled(results, name, case, one).mean())
    for one in (start, arms_lib.REFERENCE)
  }


def _of_gradients(results) -> Iterator[verdicts.Verdict]:
  """Judges what the classifier's spread does to the gradient of all other layers."""
  small = f'{arms_lib.REFERENCE}, small'
  if small not in results.start.values:
    return
  yield from contrasts.family(
    [
      contrasts.Cell(
        f'N16 gradient, {case[0]}, {case[1]}',
        f'{case[0]}, {case[1]}: the gradient of latent weights is smaller with a small '
        'classifier.',
        _sampled(results, 'log_norm', case, arms_lib.REFERENCE)
        - _sampled(results, 'log_norm', case, small),
        {'if proportional to the spread': -float(np.log2(arms_lib.SMALL))},
      )
      for case in _cases(results)
    ],
    smallest=_FLIPS,
    unit='doublings of its norm',
    **_UNTRAINED,
  )
