"""Judges a training: its accuracy, its overfitting and whether its signs settle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts

if TYPE_CHECKING:
  import xarray

__all__ = ['generalisation', 'judge', 'reaches', 'settles']


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges the accuracy (against the results' ``target``), N14 and the sign flips."""
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
  """Judges whether the test accuracy of the last weights reaches ``target`` %."""
  accuracy = 100 * results.test_accuracy
  own = f' ({results.own})' if results.attrs.get('own') else ''
  return contrasts.difference(
    'accuracy',
    f'The test accuracy of the last weights reaches {target:g} %{own}.',
    (accuracy - target).values,
    unit='points above it',
    bounds=(-float(target), 100 - float(target)),
    protocol='last epoch, test set looked at once',
    primary=primary,
    caveat='Published numbers are often those of the best epoch on the test set.',
    details={
      'test accuracy, %': float(accuracy.mean()),
      'validation accuracy, %': 100
      * float(results.validation_accuracy.isel(epoch=-1).mean()),
    },
  )


def generalisation(results: xarray.Dataset) -> verdicts.Verdict:
  """Judges N14: the network is worse on test images than on training images."""
  gap = results.clean_train_accuracy - results.test_accuracy
  return contrasts.difference(
    'N14',
    'The network overfits: it is better on its training images, without '
    'augmentation, than on test images.',
    100 * gap.values,
    unit='points',
    bounds=(-100, 100),
    protocol='last epoch',
    caveat='A training that is cut short has not overfitted yet.',
    details={
      'training accuracy, %': 100 * float(results.clean_train_accuracy.mean())
    },
  )


def settles(results: xarray.Dataset) -> verdicts.Verdict:
  """Judges whether signs flip less often in the last epoch than in the first."""
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
    'settled', 'Latent weights change their signs ever less.', change, **info
  )
