"""Judges the note's N11 from the results of the study; N12 is `variation`'s.

An effect is how much more a variant decreases the loss on the held-out batch B than
the normal STE does, as a share of the normal STE's own decrease. It is undefined where
that decrease is not clearly positive. Learning rates are chosen by the deployable
protocol, for each variant on its own.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import verdicts
from bitjax.studies.variant_ste import arms
from bitjax.studies.variant_ste import effects
from bitjax.studies.variant_ste import families
from bitjax.studies.variant_ste import variation
from bitjax.studies.variant_ste import widths

if TYPE_CHECKING:
  import xarray

__all__ = [
  'MARGIN',
  'all_layers',
  'any_variant',
  'by_layer',
  'equivalent_decrease',
  'judge',
  'nearest',
  'relative',
]

MARGIN = effects.MARGIN
INFO = effects.INFO

# Prefixes of results -> names of the gradients that directions are compared with.
_TRUTHS = {
  'discrete': 'discrete gradient on A',
  'central': 'central difference on A',
  'holdout_discrete': 'discrete gradient on B',
}

Verdicts = Iterator[verdicts.Verdict]


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges N11 and N12, for every state."""
  found: list[verdicts.Verdict] = []
  results = effects.sound(results)
  for state in results.state.values.tolist():
    primary = state == 'initialised'
    found += equivalent_decrease(results, arms.PRIMARY, state, primary=primary)
    found += any_variant(results, state)
    found += all_layers(results, arms.PRIMARY, state)
    found += by_layer(results, state)
    for step in effects.STEPS:
      found += relative(results, state, step)
      found += widths.judge(results, state, step)
    found += nearest(results, state)
    found += variation.judge(results, state)
  return found


def equivalent_decrease(
  results: xarray.Dataset, variant: str, state: str, *, primary: bool = False
) -> Verdicts:
  """Judges N11: one variant and the normal STE cannot be told apart (TOST).

  Args:
    results: of `study.run`.
    variant: name of the variant.
    state: of the network.
    primary: whether it is the study's primary contrast.
  """
  found = effects.saved(results, state)
  searched = effects.saved(results, state, protocol='oracle', batch='search')
  verdict = contrasts.equivalent(
    'N11',
    f'{state}, first layer: {variant} decreases the loss as the normal STE '
    f'does, within {MARGIN:.0%} of its decrease.',
    found.extra.sel(variant=variant),
    MARGIN,
    whole=found.own,
    primary=primary,
    details={
      'decrease of nSTE (nats)': divergence.finite_mean(found.own),
      'share of gradient affected': effects.affected(results, state, variant),
      'extra decrease, oracle, A (nats)': divergence.finite_mean(
        searched.extra.sel(variant=variant)
      ),
    }
    | effects.unsettled(results, state, 'first layer', [variant]),
    **INFO,
  )
  if variant in effects.inert(results, state):
    verdict = dataclasses.replace(verdict, verdict='inert')
  yield verdict


def any_variant(results: xarray.Dataset, state: str) -> Verdicts:
  """Judges N11: at least one variant is better, or worse, than the normal STE."""
  found = effects.saved(results, state)
  unchanged = effects.inert(results, state)
  names = [n for n in effects.variants(results)[1:] if n not in unchanged]
  if not names:
    return
  caveat = (
    f'Inert, no entry differs: {", ".join(unchanged)}.' if unchanged else ''
  )
  yield from _better_and_worse(
    'N11 any',
    f'{state}, first layer: at least one of {len(names)} variants',
    found,
    names,
    caveat=caveat,
    details=effects.unsettled(results, state, 'first layer', names),
  )


def all_layers(results: xarray.Dataset, variant: str, state: str) -> Verdicts:
  """Judges N11 once more, with a step through all layers."""
  if variant not in results.chosen.values:
    return
  found = effects.saved(results, state, step='all layers')
  yield contrasts.equivalent(
    'N11 all layers',
    f'{state}, all layers: {variant} decreases the loss as the normal STE '
    f'does, within {MARGIN:.0%} of its decrease.',
    found.extra.sel(variant=variant),
    MARGIN,
    whole=found.own,
    details={'decrease of nSTE (nats)': divergence.finite_mean(found.own)}
    | effects.unsettled(results, state, 'all layers', [variant]),
    **INFO,
  )


def by_layer(results: xarray.Dataset, state: str) -> Verdicts:
  """Judges which layer's narrower window helps or hurts, and whether its height does.

  Window 0.5 is that of one layer, while all others keep the normal STE's, or that of
  all layers. Steps through all layers are also taken with windows that keep their mass
  (height 2): a lower gradient in early layers leaves more of the budget to later ones.
  The intervals hold for all these claims at once.
  """
  cells = []
  for step in effects.STEPS:
    found = effects.saved(results, state, step=step)
    names = [
      name
      for name in found.extra.variant.values.tolist()
      if name.startswith(families.LAYERWISE[0])
      or name == arms.PRIMARY + families.KEPT
      or (name, step) == (arms.PRIMARY, 'all layers')
    ]
    tuned = effects.unsettled(results, state, step, names)
    for name in names:
      own = [f'tuned otherwise, {each}' for each in ('normal', name)]
      cells.append(
        contrasts.Cell(
          f'N11 layers, {step} steps, {name}',
          f'{state}, {step}: {_words(name)} decreases the loss by more than the '
          'normal STE does.',
          found.extra.sel(variant=name),
          details={label: tuned[label] for label in own},
          whole=found.own,
        )
      )
  yield from contrasts.family(cells, smallest=MARGIN, **INFO)


def relative(results: xarray.Dataset, state: str, step: str) -> Verdicts:
  """Judges windows in units of each layer's spread, in one layer or in all.

  Args:
    results: of `study.run`.
    state: of the network.
    step: which layers step, a name in `effects.STEPS`.
  """
  found = effects.saved(results, state, step=step)
  names = effects.within_layers(found.extra.variant)
  if not names:
    return
  yield from _better_and_worse(
    f'N11 relative windows, {step} steps, any',
    f"{state}, {step}: at least one of {len(names)} windows in units of a layer's "
    'spread',
    found,
    names,
    details=units(results, state)
    | effects.unsettled(results, state, step, names),
  )


def units(results: xarray.Dataset, state: str) -> dict[str, float]:
  """Returns each hidden layer's spread, and the normal STE's window in units of it."""
  rms = results['entering_rms'].sel(state=state)
  found = {}
  for layer in results.layer.values.tolist()[:-1]:
    own = rms.sel(layer=layer)
    found |= {
      f'spread after {layer}': divergence.finite_mean(own),
      f'window 1 in spreads after {layer}': divergence.finite_mean(1 / own),
    }
  return found


def nearest(results: xarray.Dataset, state: str) -> Verdicts:
  """Judges whether variants nearer to a gradient without estimator save more on B."""
  unchanged = effects.inert(results, state)
  names = [n for n in effects.variants(results) if n not in unchanged]
  table = effects.saved(results, state).extra.sel(variant=names)
  table = table.transpose('seed', 'variant')
  tuned = effects.unsettled(results, state, 'first layer', names[1:])
  for truth, words in _TRUTHS.items():
    cosine = results[f'{truth}_cosine'].sel(state=state, variant=names)
    cosine = cosine.transpose('seed', 'variant')
    means = cosine.mean('seed')
    order = np.argsort(-means.values)
    rows = zip(cosine.values, table.values, strict=True)
    yield contrasts.difference(
      f'N11 nearness, {words}',
      f'{state}: the nearer (cosine) a gradient on A is to the {words}, the lower '
      'the loss on B.',
      [_rank_correlation(a, b) for a, b in rows],
      unit='rank correlation over variants',
      bounds=(-1, 1),
      smallest=variation.SMALLEST,
      protocol='deployable, B',
      details={
        f'cosine of {names[index]}': means.values[index]
        for index in (*order[:3], order[-1])
      }
      | {
        'cosine of nSTE': means.values[names.index('normal')],
        'tuned otherwise, mean over variants': np.mean([*tuned.values()]),
      },
    )


def _better_and_worse(finding, claim, found, names, **info):
  for sign, word in ((1, 'better'), (-1, 'worse')):
    yield contrasts.any_arm(
      f'{finding} {word}',
      f'{claim} is {word} than the normal STE by more than {MARGIN:.0%} of its '
      'decrease (simultaneous intervals).',
      {name: sign * found.extra.sel(variant=name) for name in names},
      wholes=dict.fromkeys(names, found.own),
      smallest=MARGIN,
      **INFO,
      **info,
    )


def _words(name):
  """Returns the words for window 0.5 in some of the layers."""
  kept = name.endswith(families.KEPT)
  name = name.removesuffix(families.KEPT)
  inside = 'all layers'
  if name.startswith(families.LAYERWISE[0]):
    place = name.removeprefix(families.LAYERWISE[0]).rpartition(' ')[0]
    inside = f'the {place} alone'
  height = f', of height {1 / families.HALF:g},' if kept else ''
  return f'window {families.HALF:g} in {inside}{height}'


def _rank_correlation(a, b):
  from scipy import stats

  return stats.spearmanr(a, b).statistic
