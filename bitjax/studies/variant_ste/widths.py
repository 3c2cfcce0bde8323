"""Judges windows in units of each layer's spread one by one: N11, layer by layer.

`findings.relative` asks whether some of these windows is better, or worse. Here each has
a claim of its own: for a window of a half-width in one layer or in all, at height 1 or
with its mass kept, how much more it saves than the normal STE, as a share of what the
normal STE saves, and in nats. A share is not defined where the normal STE's own decrease
is not clearly positive; a difference in nats always is. No difference in nats is fixed
beforehand as too small to matter, so there the claim is about the sign alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bitjax.evidence import contrasts
from bitjax.evidence import verdicts
from bitjax.studies.variant_ste import effects

if TYPE_CHECKING:
  import xarray

__all__ = ['judge']


def judge(
  results: xarray.Dataset, state: str, step: str
) -> Iterator[verdicts.Verdict]:
  """Judges every window, in both units.

  In each unit the intervals hold for all windows at once.

  Args:
    results: of `study.run`.
    state: of the network.
    step: which layers step, a name in `effects.STEPS`.
  """
  found = effects.saved(results, state, step=step)
  names = effects.within_layers(found.extra.variant)
  if not names:
    return
  tuned = effects.unsettled(results, state, step, names)

  def cells(unit, whole, more):
    for name in names:
      place, width, kept = effects.placed(name)
      mass = ', mass kept' if kept else ''
      own = [f'tuned otherwise, {each}' for each in ('normal', name)]
      yield contrasts.Cell(
        f'N11 relative windows, {step} steps{mass}{unit}',
        f'{state}, a window of {width:g} spreads in {place}{mass}: a step of {step} '
        f'decreases the loss by more than with the normal STE{more}.',
        found.extra.sel(variant=name),
        details={label: tuned[label] for label in own},
        whole=whole,
      )

  yield from contrasts.family(
    list(cells('', found.own, f', by {effects.MARGIN:.0%} of its decrease')),
    smallest=effects.MARGIN,
    **effects.INFO,
  )
  yield from contrasts.family(
    list(cells(', nats', None, ', by any amount')),
    unit='nats',
    protocol=effects.INFO['protocol'],
  )
