"""Judges the note's N20: which parts of a super-resolution network do not suit low bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies import recipes
from bitjax.studies.super_resolution import arms as arms_lib

if TYPE_CHECKING:
  from collections.abc import Iterator

  import xarray

__all__ = ['MARGIN', 'Table', 'judge']

MARGIN = 0.1  # Decibels: a smaller difference does not matter.
_SSIM = 0.002
_POINTS = 1.0  # Per cent.
_CAVEAT = 'Short trainings of a small network, unless told longer.'
_PROTOCOL = 'deployable, last update, over seeds'


class Table:
  """Looks up networks by arm, without those that diverged.

  Args:
    results: of `trainings.compare`.
  """

  def __init__(self, results: xarray.Dataset):
    self.found = divergence.without(results, ['validation_loss'])
    losses = results.tuning_validation_loss.to_dataset(name='tuning_holdout')
    self._doubt = protocols.unsettled(losses, ['rate'])
    self._rates = recipes.chosen(results.tuning_validation_loss)

  @property
  def arms(self) -> list[str]:
    """The arms, in order."""
    return self.found.arm.values.tolist()

  def has(self, *arms: str) -> bool:
    """Returns whether all of some arms were trained."""
    return {*arms} <= {*self.arms}

  def psnr(self, arm: str) -> np.ndarray:
    """Returns decibels of an arm, [seeds, images]."""
    return self._of('psnr', arm, 'image')

  def gain(self, arm: str) -> np.ndarray:
    """Returns by how many decibels an arm exceeds bicubic resampling, [seeds]."""
    return (self.psnr(arm) - self.found.bicubic_psnr.values).mean(axis=1)

  def ssim(self, arm: str) -> np.ndarray:
    """Returns the mean SSIM of an arm, [seeds]."""
    return self._of('ssim', arm, 'image').mean(axis=1)

  def passing(self, arm: str) -> np.ndarray:
    """Returns the gradient that passes the body's layers, per cent, [seeds]."""
    return 100 * self._of('passing', arm, 'layer').mean(axis=1)

  def variation(self, name: str, arm: str) -> np.ndarray:
    """Returns how much ``range`` or ``deviation`` varies from image to image, [seeds].

    It is the standard deviation over images, in per cent of the mean, averaged over layers.
    """
    values = self._of(name, arm, 'layer', 'probe')
    return 100 * (values.std(axis=2, ddof=1) / values.mean(axis=2)).mean(axis=1)

  def by_image(self, arm: str, other: str) -> dict[str, float]:
    """Returns by how many decibels an arm exceeds another on each image."""
    cells = self.psnr(arm) - self.psnr(other)
    names = self.found.image.values.tolist()
    return {
      f'dB on {name}': float(np.nanmean(column))
      if np.isfinite(column).any()
      else np.nan
      for name, column in zip(names, cells.T, strict=True)
    }

  def layers(self, arm: str) -> dict[str, float]:
    """Returns the gradient that passes each layer of an arm, per cent."""
    return {
      f'% passes {layer}, {arm}': 100
      * float(
        divergence.finite_mean(self.found.passing.sel(arm=arm, layer=layer))
      )
      for layer in self.found.layer.values.tolist()
    }

  def details(self, *arms: str) -> dict[str, float]:
    """Returns what is measured of arms, costs, rates, and how settled these are."""
    found = {}
    for arm in arms:
      at = self.found.sel(arm=arm)
      found |= {
        f'dB, {arm}': float(divergence.finite_mean(at.psnr)),
        f'SSIM, {arm}': float(divergence.finite_mean(at.ssim)),
        f'% passes, {arm}': _mean(self.passing(arm)),
        f'% of the mean, range, {arm}': _mean(self.variation('range', arm)),
        f'% of the mean, deviation, {arm}': _mean(
          self.variation('deviation', arm)
        ),
        f'rate, {arm}': float(self._rates.sel(arm=arm)),
        f'operations, {arm}': float(at.operations),
        f'bit operations, {arm}': float(at.bit_operations),
        f'memory, {arm}': float(at.memory),
        f'mJ from, {arm}': float(at.energy_low),
        f'mJ to, {arm}': float(at.energy_high),
      }
    return found | self.unsettled(*arms)

  def unsettled(self, *arms: str) -> dict[str, float]:
    """Returns how often other tuning seeds would have chosen another rate."""
    return {
      f'tuned otherwise, {arm}': float(self._doubt.sel(arm=arm)) for arm in arms
    }

  def _of(self, name, arm, *dims):
    return self.found[name].sel(arm=arm).transpose('seed', *dims).values


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges every claim.

  Args:
    results: of `trainings.compare`.
  """
  table = Table(results)
  return [
    *_shortcuts(table),
    *_parts(table),
    *_bicubic(table),
    *_activations(table),
  ]


def _mean(samples: np.ndarray) -> float:
  """Returns the mean over the seeds that did not diverge, NaN without any."""
  finite = samples[np.isfinite(samples)]
  return float(finite.mean()) if finite.size else np.nan


def _info(unit: str, smallest: float) -> dict[str, Any]:
  return {
    'unit': unit,
    'smallest': smallest,
    'protocol': _PROTOCOL,
    'caveat': _CAVEAT,
  }


def _shortcuts(table: Table) -> Iterator[verdicts.Verdict]:
  """Judges the primary contrast, on other images too, and by SSIM."""
  each, block = arms_lib.PRIMARY
  info = _info('dB', MARGIN)
  cells = table.psnr(each) - table.psnr(block)
  claim = (
    'a shortcut around every convolution ends better than one around each block'
  )
  yield contrasts.difference(
    'N20 shortcuts',
    f'One bit, by PSNR: {claim}.',
    cells.mean(axis=1),
    primary=True,
    details=table.details(each, block) | table.by_image(each, block),
    **info,
  )
  yield contrasts.difference(
    'N20 shortcuts, other images',
    f'One bit, by PSNR, on other images like these: {claim}.',
    cells,
    crossed=True,
    details=table.unsettled(each, block),
    **info | {'protocol': f'{_PROTOCOL} and test images'},
  )
  yield contrasts.difference(
    'N20 shortcuts, SSIM',
    f'One bit, by SSIM: {claim}.',
    table.ssim(each) - table.ssim(block),
    details=table.unsettled(each, block),
    **_info('SSIM', _SSIM),
  )


def _parts(table: Table) -> Iterator[verdicts.Verdict]:
  """Judges what each part costs, all at once."""
  cells = []
  for name in table.arms:
    arm = arms_lib.ARMS[name]
    if name == arms_lib.BLOCK or not arm.base or not table.has(arm.base):
      continue
    difference = table.psnr(arm.base) - table.psnr(name)
    cells.append(
      contrasts.Cell(
        f'N20 part, {name}',
        f'"{name}" against "{arm.base}": {arm.part} costs decibels.',
        difference.mean(axis=1),
        table.details(name, arm.base) | table.by_image(arm.base, name),
      )
    )
  info = _info('dB', MARGIN)
  del info['caveat']  # It says with how many claims each is simultaneous.
  yield from contrasts.family(cells, **info)


def _bicubic(table: Table) -> Iterator[verdicts.Verdict]:
  """Judges which networks are better than none, all at once."""
  cells = [
    contrasts.Cell(
      f'N20 bicubic, {arm}',
      f'"{arm}" ends above bicubic resampling.',
      table.gain(arm),
      table.details(arm),
    )
    for arm in table.arms
  ]
  info = _info('dB', MARGIN)
  del info['caveat']
  yield from contrasts.family(cells, **info)


def _activations(table: Table) -> Iterator[verdicts.Verdict]:
  """Judges what BatchNorm does to activations, and shortcuts to gradients."""
  if table.has(arms_lib.ONE, arms_lib.BATCH_NORM):
    for name, words in (
      ('range', 'the range of activations'),
      ('deviation', 'the standard deviation of activations'),
    ):
      yield contrasts.difference(
        f'N20 {name}',
        f'One bit: without BatchNorm, {words} varies more from image to image.',
        table.variation(name, arms_lib.ONE)
        - table.variation(name, arms_lib.BATCH_NORM),
        details={
          f'% of the mean, {arm}': _mean(table.variation(name, arm))
          for arm in (arms_lib.ONE, arms_lib.BATCH_NORM)
        }
        | table.unsettled(arms_lib.ONE, arms_lib.BATCH_NORM),
        **_info('% of the mean', _POINTS),
      )
  each, block = arms_lib.PRIMARY
  cell = contrasts.Cell(
    'N20 gradient',
    'One bit: with a shortcut around every convolution more of the gradient passes '
    'the quantizers of activations, and the activations themselves.',
    table.passing(each) - table.passing(block),
    {f'% passes, {arm}': _mean(table.passing(arm)) for arm in (each, block)}
    | table.layers(each)
    | table.layers(block)
    | table.unsettled(each, block),
  )
  yield from contrasts.family([cell], **_info('% of the gradient', _POINTS))
