"""Judges the note's N11 and N12 from the results of `arms.compare`.

An effect is how much more a variant decreases the loss on the held-out batch B than
the normal STE does, as a share of the normal STE's own decrease. Learning rates are
chosen by the deployable protocol, for each variant on its own.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import intervals
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies.variant_ste import arms

if TYPE_CHECKING:
  import xarray

__all__ = [
  'MARGIN',
  'all_layers',
  'any_variant',
  'effects',
  'equivalent_decrease',
  'inert',
  'judge',
  'nearest',
  'replication',
  'spread',
]

# The largest difference that does not matter, as a share of nSTE's decrease.
MARGIN = 0.05

INFO = {'unit': "of nSTE's decrease", 'protocol': 'deployable, B'}

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
  results = divergence.without(results, ['start_search', 'start_holdout'])
  for state in results.state.values.tolist():
    primary = state == 'initialised'
    found += equivalent_decrease(results, arms.PRIMARY, state, primary=primary)
    found += any_variant(results, state)
    found += all_layers(results, arms.PRIMARY, state)
    found += nearest(results, state)
    found += replication(results, arms.PRIMARY, state)
  return found


def effects(
  results: xarray.Dataset,
  state: str,
  *,
  protocol: str = 'deployable',
  batch: str = 'holdout',
) -> xarray.DataArray:
  """Returns how much more each variant saves than the normal STE, [variant, seed].

  Args:
    results: of `arms.compare`.
    state: of the network.
    protocol: ``'oracle'`` or ``'deployable'``.
    batch: ``'search'`` for A, ``'holdout'`` for B.
  """
  return _relative(
    results, state, batch, ('search', 'holdout'), 'learning_rate',
    protocol, 'variant',
  )  # fmt: skip


def inert(results: xarray.Dataset, state: str) -> list[str]:
  """Lists the variants that change no entry of the first layer's gradients."""
  share = results['affected'].sel(state=state).max('seed')
  names = share.variant.values[share.values == 0].tolist()
  return [name for name in names if name != results.variant.values[0]]


def equivalent_decrease(
  results: xarray.Dataset, variant: str, state: str, *, primary: bool = False
) -> Verdicts:
  """Judges N11: one variant and the normal STE cannot be told apart (TOST).

  Args:
    results: of `arms.compare`.
    variant: name of the variant.
    state: of the network.
    primary: whether it is the study's primary contrast.
  """
  effect = effects(results, state).sel(variant=variant)
  start = results['start_holdout'].sel(state=state)
  normal = _losses(results, state, 'holdout', 'deployable').isel(variant=0)
  searched = effects(results, state, protocol='oracle', batch='search')
  verdict = contrasts.equivalent(
    'N11',
    f'{state}, first layer: {variant} decreases the loss as the normal STE '
    f'does, within {MARGIN:.0%} of its decrease.',
    effect,
    MARGIN,
    primary=primary,
    details={
      'decrease of nSTE (nats)': (start - normal).mean(),
      'share of gradient affected': _affected(results, state, variant),
      'effect, oracle, A': searched.sel(variant=variant).mean(),
    },
    **INFO,
  )
  yield _mark_inert(results, state, [variant], verdict)


def any_variant(results: xarray.Dataset, state: str) -> Verdicts:
  """Judges N11: at least one variant is better, or worse, than the normal STE."""
  table = effects(results, state)
  unchanged = inert(results, state)
  names = [n for n in table.variant.values.tolist()[1:] if n not in unchanged]
  if not names:
    return
  caveat = (
    f'Inert, no entry differs: {", ".join(unchanged)}.' if unchanged else ''
  )
  for sign, word in ((1, 'better'), (-1, 'worse')):
    yield contrasts.any_arm(
      f'N11 any {word}',
      f'{state}, first layer: at least one of {len(names)} variants is {word} '
      'than the normal STE (simultaneous intervals).',
      {name: sign * table.sel(variant=name) for name in names},
      caveat=caveat,
      **INFO,
    )


def spread(results: xarray.Dataset, state: str) -> list[intervals.Interval]:
  """Returns simultaneous intervals of all variants' effects, in the same order."""
  return intervals.simultaneous(
    effects(results, state).transpose('variant', 'seed').values
  )


def all_layers(results: xarray.Dataset, variant: str, state: str) -> Verdicts:
  """Judges N11 once more, with a step through all layers."""
  if variant not in results.chosen.values:
    return
  effect = _relative(
    results, state, 'all_holdout', ('all_search', 'all_holdout'), 'few_rate',
    'deployable', 'chosen',
  )  # fmt: skip
  verdict = contrasts.equivalent(
    'N11 all layers',
    f'{state}, all layers: {variant} decreases the loss as the normal STE '
    f'does, within {MARGIN:.0%} of its decrease.',
    effect.sel(chosen=variant),
    MARGIN,
    **INFO,
  )
  yield verdict


def nearest(results: xarray.Dataset, state: str) -> Verdicts:
  """Judges whether variants nearer to a gradient without estimator save more on B."""
  unchanged = inert(results, state)
  names = [n for n in results.variant.values.tolist() if n not in unchanged]
  table = effects(results, state).sel(variant=names)
  table = table.transpose('seed', 'variant')
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
      protocol='deployable, B',
      details={
        f'cosine of {names[index]}': means.values[index]
        for index in (*order[:3], order[-1])
      }
      | {'cosine of nSTE': means.values[names.index('normal')]},
    )


def replication(results: xarray.Dataset, variant: str, state: str) -> Verdicts:
  """Judges N12: a window makes the gradient vary less over batches.

  Args:
    results: of `arms.compare`.
    variant: name of the variant.
    state: of the network.
  """
  found = results['reliability'].sel(state=state)
  signal = results['gradient_signal_to_noise'].sel(state=state).isel(layer=0)
  bias = results['gradient_bias'].sel(state=state).isel(layer=0)
  details = {}
  for name in ('normal', variant):
    details |= {
      f'correlation A, B of {name}': found.sel(variant=name).mean(),
      f'signal to noise of {name}': signal.sel(variant=name).mean(),
      f'bias of {name}': bias.sel(variant=name).mean(),
    }
  verdict = contrasts.difference(
    'N12',
    f'{state}, first layer: {variant} makes the gradient replicate better '
    'from A to B.',
    found.sel(variant=variant) - found.sel(variant='normal'),
    unit='correlation of the gradients on A and B',
    bounds=(-2, 2),
    protocol='A, B',
    details=details,
  )
  yield _mark_inert(results, state, [variant], verdict)


def _relative(results, state, batch, names, over, protocol, axis):
  """Returns (normal - variant) / mean(start - normal), the mean over seeds."""
  read = batch.removeprefix('all_')
  losses = _chosen(results, state, names, over, protocol)[read]
  normal = losses.isel({axis: 0}, drop=True)
  start = results[f'start_{read}'].sel(state=state)
  return (normal - losses) / divergence.finite_mean(start - normal)


def _losses(results, state, batch, protocol):
  names = ('search', 'holdout')
  return _chosen(results, state, names, 'learning_rate', protocol)[batch]


def _chosen(results, state, names, over, protocol):
  outcomes = results[list(names)].sel(state=state)
  search, holdout = names
  outcomes = outcomes.rename({search: 'search', holdout: 'holdout'})
  return protocols.select(outcomes, [over], protocol)


def _affected(results, state, variant):
  return results['affected'].sel(state=state, variant=variant).mean().item()


def _mark_inert(results, state, variants, verdict):
  if set(variants) <= set(inert(results, state)):
    return dataclasses.replace(verdict, verdict='inert')
  return verdict


def _rank_correlation(a, b):
  from scipy import stats

  return stats.spearmanr(a, b).statistic
