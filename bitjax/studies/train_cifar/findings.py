"""Judges a training: its accuracy, its overfitting and whether its signs settle.

Intervals of accuracies are over other seeds and other test images; a single seed has none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts
from bitjax.studies import recipes

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'SETTLED', 'generalisation', 'judge', 'reaches', 'settles']

MARGIN = 0.5  # Points of accuracy: a smaller difference does not matter.
SETTLED = math.log10(2)  # Nor does a change of the flip ratio by less than 2.


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges the accuracy (against the results' ``target``), overfitting and sign flips."""
  right = 100 * recipes.right(results)
  results = results.assign(right=right).drop_vars('test_right')
  results = divergence.without(
    results, ['clean_train_loss', 'test_loss', 'test_accuracy']
  )
  return [
    reaches(results, results.target),
    generalisation(results),
    settles(results),
  ]


def reaches(
  results: xarray.Dataset, target: float, *, primary: bool = True
) -> verdicts.Verdict:
  """Judges whether the test accuracy of the last weights is above ``target`` %.

  Args:
    results: outcomes of trainings with ``right``, (seed, test_example): 100 where a
      network guesses an example correctly, else 0.
    target: what to compare with, in %.
    primary: whether this is the study's primary claim.
  """
  own = f' ({results.own})' if results.attrs.get('own') else ''
  return contrasts.difference(
    'accuracy',
    f'The test accuracy of the last weights is above {target:g} %{own}; within '
    f'{MARGIN:g} points it is the same.',
    _cells(results) - target,
    crossed=True,
    smallest=MARGIN,
    unit='points above it',
    bounds=(-float(target), 100 - float(target)),
    protocol='last epoch, over seeds and test images, test set looked at once',
    primary=primary,
    caveat='The number it is compared with has no interval here; published ones are '
    'often those of the best epoch on the test set.',
    details={
      'test accuracy, %': float(results.right.mean()),
      'validation accuracy, %': 100
      * float(results.validation_accuracy.isel(epoch=-1).mean()),
    },
  )


def generalisation(results: xarray.Dataset) -> verdicts.Verdict:
  """Judges whether networks are worse on test images than on their training images."""
  training = 100 * results.clean_train_accuracy.values[:, None]
  return contrasts.difference(
    'overfitting',
    'The network overfits: it is better on its training images, without '
    'augmentation, than on test images.',
    training - _cells(results),
    crossed=True,
    smallest=MARGIN,
    unit='points',
    bounds=(-100, 100),
    protocol='last epoch, over seeds and test images',
    caveat='A training that is cut short has not overfitted yet.',
    details={
      'training accuracy, %': 100 * float(results.clean_train_accuracy.mean())
    },
  )


def settles(results: xarray.Dataset) -> verdicts.Verdict:
  """Judges whether signs flip less than half as often in the last epoch as in the first."""
  ratio = results.flip_ratio.mean('layer')
  first, last = (ratio.isel(epoch=number) for number in (0, -1))
  info: dict[str, Any] = {
    'unit': 'log10 of the ratio of flip ratios',
    'protocol': 'mean over layers, first against last epoch',
    'details': {
      'first epoch, flips per weight and update': float(first.mean()),
      'last epoch': float(last.mean()),
    },
    'caveat': 'A falling learning rate does the same to any network.',
  }
  tiny = 1e-12
  change = np.log10((first + tiny) / (last + tiny)).values
  return contrasts.difference(
    'settled',
    'Latent weights change their signs less than half as often in the last epoch as '
    'in the first.',
    change,
    smallest=SETTLED,
    **info,
  )


def _cells(results):
  return results.right.transpose('seed', 'test_example').values
