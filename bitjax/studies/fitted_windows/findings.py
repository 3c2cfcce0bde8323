"""Judges whether windows that fit their layer train better than one of half-width 1.

And whether Bop's rule is led better by smoothed gains than by a gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies import recipes
from bitjax.studies.fitted_windows import arms as arms_lib
from bitjax.studies.fitted_windows import flips
from bitjax.studies.recipes import outcomes

if TYPE_CHECKING:
  import xarray

__all__ = ['MARGIN', 'fitted_layers', 'judge']

MARGIN = 0.5  # Points of accuracy: a smaller difference does not matter.
_OCTAVES = 0.5  # Of a width: one step of the grid from which widths are fitted.
_BEFORE = 'window 1'
_CAVEAT = (
  'Short trainings of a small network on small images, unless told longer.'
)
# (finding, arm, the arm that it is compared with, claim), the primary contrast first.
_CLAIMS = (
  (
    'relative',
    *arms_lib.PRIMARY,
    'a Gaussian whose width is one number in units of the spread of each layer ends '
    'better than a window of half-width 1',
  ),
  (
    'fixed',
    'fixed window',
    _BEFORE,
    'a window of another half-width, the same in all layers, ends better than one of 1',
  ),
  (
    'relative, window',
    'relative window',
    'fixed window',
    'a window in units of the spread ends better than one in absolute units',
  ),
  (
    'fitted',
    arms_lib.FITTED,
    _BEFORE,
    'widths that are fitted to exact gains, layer by layer, end better than a window '
    'of half-width 1',
  ),
  (
    'fitted, beyond one number',
    arms_lib.FITTED,
    'relative Gaussian',
    'fitted widths end better than one relative width for all layers',
  ),
  (
    'Bop',
    *arms_lib.PRIMARY_FLIPPED,
    "Bop's rule ends better by gains that are averaged over random flips, without "
    "any derivative, than by the straight-through estimator's gradient",
  ),
  (
    'Bop, averaged',
    flips.SMOOTHED,
    flips.EXACT,
    "Bop's rule ends better by gains averaged over random flips than by single ones",
  ),
  (
    'Bop, exact',
    flips.EXACT,
    flips.STE,
    "Bop's rule ends better by exact gains of single flips than by the straight-through "
    "estimator's gradient",
  ),
)


def fitted_layers(results: xarray.Dataset) -> list[str]:
  """Returns the layers, first to last, whose inputs have a fitted width."""
  if arms_lib.FITTED not in results.arm.values:
    return []
  widths = results.width.sel(arm=arms_lib.FITTED)
  known = (widths > 0).any(['seed', 'epoch'])
  return widths.layer[known.values].values.tolist()


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges every claim.

  Args:
    results: of `trainings.compare`.
  """
  found: list[verdicts.Verdict] = []
  last = outcomes.tested(results)
  right = last.right
  losses = results.tuning_validation_loss
  settings = recipes.settings(losses, ['rate', 'shape'])
  unsettled = protocols.unsettled(
    losses.to_dataset(name='tuning_holdout'), ['rate', 'shape']
  )
  known = right.arm.values.tolist()
  info: dict[str, Any] = {
    'unit': 'points of test accuracy',
    'protocol': 'deployable, last epoch, over seeds and test images',
    'caveat': _CAVEAT,
    'crossed': True,
    'smallest': MARGIN,
    'bounds': (-100, 100),
  }

  def details(*names: str) -> dict[str, float]:
    rows: dict[str, float] = {}
    for name in names:
      arm, shape = arms_lib.arm_of(name), int(settings['shape'].sel(arm=name))
      rate = float(settings['rate'].sel(arm=name)) * arm.factor(shape)
      rows |= {
        f'accuracy, {name}': float(right.sel(arm=name).mean()),
        f'rate, {name}': rate,
        f'tuned otherwise, {name}': float(unsettled.sel(arm=name)),
      }
      if arm.values:
        rows[f'{arm.parameter}, {name}'] = arm.values[shape]
    return rows

  for finding, name, against, claim in _CLAIMS:
    if {name, against} <= {*known}:
      found.append(
        contrasts.difference(
          finding,
          f'{claim[0].upper()}{claim[1:]}.',
          _difference(right, name, against),
          primary=(name, against) == arms_lib.primary(known),
          details=details(name, against),
          **info,
        )
      )
  others = [name for name in known if name != _BEFORE]
  if _BEFORE not in known:
    return found
  found.append(
    contrasts.any_arm(
      'any',
      'Some other estimator ends better than a window of half-width 1.',
      {name: _difference(right, name, _BEFORE) for name in others},
      details=details(*known),
      **info,
    )
  )
  return [*found, *_widths(results, last, unsettled)]


def _difference(right, arm, against):
  """Returns the paired differences of two arms, [seeds, test examples]."""
  both = right.sel(arm=arm) - right.sel(arm=against)
  return both.transpose('seed', 'test_example').values


def _widths(results, last, unsettled):
  """Judges how fitted widths differ between layers, and change in training."""
  layers = fitted_layers(results)
  if not layers:
    return
  ends = last.test_accuracy.sel(arm=arms_lib.FITTED).notnull()
  widths = results.width.sel(arm=arms_lib.FITTED).where(ends)
  widths = np.log2(widths.sel(layer=layers).transpose('seed', 'epoch', 'layer'))
  info: dict[str, Any] = {
    'unit': 'doublings of the width',
    'protocol': 'fitted on batches of the training set, over seeds',
    'smallest': _OCTAVES,
    'caveat': _CAVEAT,
  }
  rows = {
    f'width, {layer}': float(2 ** widths.sel(layer=layer)[:, -1].mean())
    for layer in layers
  }
  doubt = float(unsettled.sel(arm=arms_lib.FITTED))
  rows[f'tuned otherwise, {arms_lib.FITTED}'] = doubt
  if len(layers) > 1:
    end = widths.isel(epoch=-1)
    yield contrasts.difference(
      'widths, layers',
      'At the end the fitted width, in units of the spread, is larger in the last '
      'layer than in the first.',
      (end.sel(layer=layers[-1]) - end.sel(layer=layers[0])).values,
      details=rows,
      **info,
    )
  if widths.sizes['epoch'] > 1:
    mean = widths.mean('layer')
    yield contrasts.difference(
      'widths, training',
      'Fitted widths, in units of the spread, shrink from the first epoch to the last.',
      (mean.isel(epoch=0) - mean.isel(epoch=-1)).values,
      details=rows,
      **info,
    )
