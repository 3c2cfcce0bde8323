"""Judges what windows do to trainings (N18); of gradients, see `onestep` and `nearness`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import verdicts
from bitjax.studies.resnet_windows import arms as arms_lib
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import nearness
from bitjax.studies.resnet_windows import onestep
from bitjax.studies.resnet_windows import tables

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'judge']

MARGIN = 0.5  # Points of accuracy: a smaller difference does not matter.
_INITIALISED, _PRETRAINED = arms_lib.STARTS
_WORDS = {
  _INITIALISED: 'from random weights',
  _PRETRAINED: 'from full precision',
}
_INFO: dict[str, Any] = {
  'unit': 'points of test accuracy',
  'protocol': 'deployable, last epoch, over seeds and test images',
  'caveat': 'Short trainings of a small network on small images, unless told longer.',
  'crossed': True,
}
_COUNTS: dict[str, Any] = {'smallest': MARGIN, 'bounds': (-100, 100)}
# (finding, estimator, the one that it is compared with, claim).
_PAIRS = (
  (
    'N18 no window',
    estimators.NONE,
    estimators.ONE,
    'no window ends better than one of half-width 1',
  ),
  (
    'N18 mass',
    estimators.MASS,
    estimators.HALF,
    'a window of half-width 1/2 that keeps its mass ends better than one of height 1',
  ),
  *(
    (
      f'N18 shrinking, against {fixed}',
      estimators.SHRINKING,
      fixed,
      f'a window that shrinks from 2 to 1/4 ends better than the fixed {fixed}',
    )
    for fixed in estimators.FIXED
  ),
)

Verdicts = Iterator[verdicts.Verdict]


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges every claim, the primary one first.

  Args:
    results: of the study.
  """
  table = tables.Trained(results)
  return [
    *_half_against_one(table),
    *_of_starts(table),
    *(v for start in arms_lib.STARTS[::-1] for v in _of_windows(table, start)),
    *_of_shapes(table),
    *onestep.judge(results),
    *nearness.judge(results),
  ]


def _half_against_one(table) -> Verdicts:
  for start in arms_lib.STARTS[::-1]:
    primary = start == _PRETRAINED
    yield contrasts.equivalent(
      f'N18{"" if primary else f", {start}"}',
      f'{_WORDS[start]}: a training with window 1/2 ends as accurate as one with window '
      f'1, within {MARGIN:g} points.',
      table.difference(estimators.HALF, estimators.ONE, start),
      MARGIN,
      primary=primary,
      details=table.details((estimators.HALF, estimators.ONE), start),
      **_INFO,
    )


def _of_starts(table) -> Verdicts:
  """Judges whether starts differ, and whether the window matters more in one of them."""
  names = [
    name
    for name in table.names(_INITIALISED)
    if name in table.names(_PRETRAINED)
  ]
  yield contrasts.difference(
    'N18 start',
    'trainings end better from full precision than from random weights, on average over '
    f'{len(names)} estimators (after more epochs in all).',
    np.mean(
      [
        table.right(name, _PRETRAINED) - table.right(name, _INITIALISED)
        for name in names
      ],
      axis=0,
    ),
    details=table.unsettled(names, _PRETRAINED)
    | table.unsettled(names, _INITIALISED),
    **_INFO,
    **_COUNTS,
  )
  both = (
    table.difference(estimators.HALF, estimators.ONE, start)
    for start in (_PRETRAINED, _INITIALISED)
  )
  yield contrasts.difference(
    'N18 start and window',
    'window 1/2, less window 1, does better from full precision than from random '
    'weights.',
    np.subtract(*both),
    details=table.unsettled((estimators.HALF, estimators.ONE), _PRETRAINED)
    | table.unsettled((estimators.HALF, estimators.ONE), _INITIALISED),
    **_INFO,
    **_COUNTS | {'bounds': (-200, 200)},
  )


def _of_windows(table, start) -> Verdicts:
  """Judges widths, units, no window, mass and shrinking, from one start."""
  names = table.names(start)
  absolute, relative = (
    tables.half_widths(names, family) for family in estimators.FAMILIES
  )
  others = [
    name for name in (*absolute.values(), estimators.NONE) if name in names
  ]
  others.remove(estimators.ONE)
  for word, sign in (('better', 1), ('worse', -1)):
    yield contrasts.any_arm(
      f'N18 widths, {start}, {word}',
      f'{_WORDS[start]}: some other half-width than 1, or none, ends {word} '
      '(simultaneous intervals).',
      {
        name: sign * table.difference(name, estimators.ONE, start)
        for name in others
      },
      details=table.details((*others, estimators.ONE), start),
      **_INFO,
      **_COUNTS,
    )
  if shared := [c for c in absolute if c in relative]:
    pairs = {c: (relative[c], absolute[c]) for c in shared}
    yield contrasts.difference(
      f'N18 units, {start}',
      f'{_WORDS[start]}: windows in units of what enters each layer end better than '
      f'absolute ones, on average over the half-widths '
      f'{", ".join(f"{c:g}" for c in shared)}.',
      np.mean(
        [table.difference(*pair, start) for pair in pairs.values()], axis=0
      ),
      details={
        f'relative less absolute, {c:g}': float(
          np.nanmean(table.difference(*pair, start))
        )
        for c, pair in pairs.items()
      }
      | table.unsettled([n for pair in pairs.values() for n in pair], start),
      **_INFO,
      **_COUNTS,
    )
  for finding, name, against, claim in _PAIRS:
    if {name, against} <= {*names}:
      yield contrasts.difference(
        f'{finding}, {start}',
        f'{_WORDS[start]}: {claim}.',
        table.difference(name, against, start),
        details=table.details((name, against), start),
        **_INFO,
        **_COUNTS,
      )


def _of_shapes(table) -> Verdicts:
  shapes = [n for n in table.names(_PRETRAINED) if n in estimators.SHAPES]
  if shapes:
    yield contrasts.any_arm(
      'N18 shapes',
      f'{_WORDS[_PRETRAINED]}: some other shape ends better than window 1 '
      '(simultaneous intervals).',
      {
        name: table.difference(name, estimators.ONE, _PRETRAINED)
        for name in shapes
      },
      details=table.details((*shapes, estimators.ONE), _PRETRAINED),
      **_INFO,
      **_COUNTS,
    )
