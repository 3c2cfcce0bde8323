"""Judges the note's findings on the toy problem from labelled results.

L1 is the loss of a single step, Lm that of several. Contrasts are logs of loss ratios,
paired by seed and averaged over the draws of the noise. Unless stated otherwise,
settings are chosen by the deployable protocol and losses are read on B. The details of a
verdict say what was chosen, and whether a wider grid might have held something better.
"""

from __future__ import annotations

from collections.abc import Iterator
import functools
from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies.multistep_ste import batches
from bitjax.studies.multistep_ste import choices
from bitjax.studies.multistep_ste import margins
from bitjax.studies.multistep_ste.choices import losses

if TYPE_CHECKING:
  import xarray

__all__ = [
  'adam',
  'clipped',
  'gain',
  'interaction',
  'judge',
  'momentum',
  'noise',
  'several_steps',
]

MARGIN = margins.LOSS  # The smallest difference that matters.
INFO = {'unit': 'log loss ratio', 'protocol': 'deployable, B'}

Verdicts = Iterator[verdicts.Verdict]


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges the note's findings N6 and N8-N10, for every network."""
  found: list[verdicts.Verdict] = []
  for network in results.network.values.tolist():
    primary = network == 'binary'
    found += several_steps(results, network, primary=primary)
    for finding in (adam, clipped, momentum, noise, batches.batch):
      found += finding(results, network)
  if 'vste_search' in results:
    found += batches.variant(results, 'binary', 'vste')
  return [*found, *interaction(results)]


def gain(
  results: xarray.Dataset, network: str, **options: Any
) -> xarray.DataArray:
  """Returns log(L1 / Lm) of the first optimiser without noise, by seed.

  Args:
    results: with arms ``single`` and ``multi``.
    network: the network.
    **options: further arguments of `choices.losses`, such as the protocol.
  """
  several = losses(results, 'multi', network=network, **options)
  single = losses(results, 'single', **_at_largest(results, network), **options)
  several = _over_draws(several.isel(optimizer=0, noise=0))
  return contrasts.log_ratio(single, several)


def several_steps(
  results: xarray.Dataset, network: str, *, primary: bool
) -> Verdicts:
  """Judges N8: several steps reach a lower loss than one scanned step."""
  details = {
    f'{protocol} {name}': gain(
      results, network, protocol=protocol, batch=batch
    ).mean()
    for protocol in protocols.PROTOCOLS
    for batch, name in (('search', 'A'), ('holdout', 'B'))
  }
  single = protocols.select_arm(
    results, 'single', **_at_largest(results, network)
  )
  several = protocols.select_arm(results, 'multi', network=network)
  several = several.isel(optimizer=0, noise=0, draw=0)
  for name, arm in (('single', single), ('multi', several)):
    over = [d for d in ('learning_rate', 'step_size', 'step') if d in arm.dims]
    chosen = protocols.oracle(arm[['search', 'flips', 'used']], over)
    details[f'flips {name}'] = chosen['flips'].mean()
    details[f'budget used {name}'] = chosen['used'].mean()
  details['reachable share of signs'] = single['reachable'].mean()
  for protocol in protocols.PROTOCOLS:
    details |= _made_once(results, network, 'single', protocol)
    details |= choices.made(
      results, 'multi', 'multi', protocol, **_plain(results, network)
    )
  rates, sizes = results.sizes['learning_rate'], results.sizes['step_size']
  updates = results['step'].max().item()
  details |= {
    'losses evaluated, single': rates,
    'gradients evaluated, single': 1,
    'losses evaluated, multi': sizes * (updates + 1),
    'gradients evaluated, multi': sizes * updates,
  }
  yield contrasts.difference(
    'N8',
    f'{network}: several steps reach a lower loss than one scanned step.',
    gain(results, network),
    primary=primary,
    smallest=MARGIN,
    details=details,
    **INFO,
  )


def clipped(results: xarray.Dataset, network: str) -> Verdicts:
  """Judges N6 in one reading: an l2 step against steps clipped element by element."""
  single = losses(results, 'single', **_at_largest(results, network))
  several = losses(results, 'clipped', network=network)
  yield contrasts.difference(
    'N6',
    f'{network}: several steps, clipped element by element (one reading of the '
    'note), reach a lower loss than one l2-normalised step.',
    contrasts.log_ratio(single, several),
    smallest=MARGIN,
    details=choices.made(results, 'clipped', 'clipped', network=network)
    | _made_once(results, network, 'single'),
    caveat='Unequal balls: the l2 budget binds, while 0.1 for each element '
    'reaches every sign pattern of a Xavier initialisation.',
    **INFO,
  )


def momentum(results: xarray.Dataset, network: str) -> Verdicts:
  """Judges N9: SGD and SGD with momentum are equally good."""
  if not {'sgd', 'sgdm'} <= set(results.optimizer.values):
    return
  several = losses(results, 'multi', network=network).isel(noise=0)
  several = _over_draws(several)
  names = ('sgd', 'sgdm')
  sgd, sgdm = (several.sel(optimizer=name) for name in names)
  details: dict[str, Any] = {}
  for name in names:
    details |= choices.made(
      results, 'multi', name, **_plain(results, network, name)
    )
  yield contrasts.equivalent(
    'N9 momentum',
    f'{network}: SGD and SGD with momentum are equally good.',
    contrasts.log_ratio(sgd, sgdm),
    MARGIN,
    details=details,
    **INFO,
  )


def adam(results: xarray.Dataset, network: str) -> Verdicts:
  """Judges N8, that Adam fluctuates, by its spread over the rates that SGD has too.

  A rate of 1 or more reaches the edge of the ball with the first step; below it, a
  spread may only say that the steps were too few.
  """
  names = ['sgd', 'adam']
  if not {*names} <= set(results.optimizer.values):
    return
  path = protocols.select_arm(results, 'multi', network=network)['holdout']
  path = path.sel(optimizer=names).isel(noise=0)
  path = _over_draws(contrasts.log_ratio(path, path.isel(step=0)))
  last = path.isel(step=-1)
  spread = _over_rates(last)
  far = _over_rates(last.sel(step_size=last.step_size >= 1))
  rises = path.diff('step').clip(min=0).sum('step').mean('step_size')
  details: dict[str, Any] = {'rates': results.sizes['step_size']}
  for name in names:
    at = {'optimizer': name}
    details[f'spread {name}'] = spread.sel(at).mean()
    details[f'spread {name}, rates of at least 1'] = far.sel(at).mean()
    details[f'rises on the way {name}'] = rises.sel(at).mean()
    details |= choices.made(
      results, 'multi', name, **_plain(results, network, name)
    )
  yield contrasts.difference(
    'N8 Adam',
    f'{network}: Adam depends on its learning rate more than SGD does.',
    spread.sel(optimizer='adam') - spread.sel(optimizer='sgd'),
    smallest=MARGIN,
    unit='std over learning rates of log(L/L0)',
    protocol='last step, B',
    details=details,
  )


def noise(results: xarray.Dataset, network: str) -> Verdicts:
  """Judges N9: noise helps on average, and the best draw finds a better point."""
  amplitudes = results.noise.values
  if len(amplitudes) < 2:
    return
  several = losses(results, 'multi', network=network).isel(optimizer=0)
  several = _over_draws(several)
  details: dict[str, Any] = {}
  for value in amplitudes:
    at = _plain(results, network, noise=value)
    details |= choices.made(results, 'multi', f'noise {value:g}', **at)
  path = protocols.select_arm(results, 'multi', network=network)['holdout']
  start = path.isel(optimizer=0, noise=0, draw=0, step=0, step_size=0)
  alone = protocols.select_arm(results, 'restarts', network=network)['holdout']
  yield contrasts.any_arm(
    'N9 noise, mean',
    f'{network}: noise at the start lowers the loss on average.',
    {
      f'noise {value:g}': contrasts.log_ratio(
        several.isel(noise=0), several.sel(noise=value)
      )
      for value in amplitudes[1:]
    },
    smallest=MARGIN,
    details=details
    | {
      f'noise {value:g} alone': contrasts.log_ratio(
        start, alone.sel(noise=value)
      ).mean()
      for value in amplitudes[1:]
    },
    **INFO,
  )
  read = functools.partial(losses, results, protocol='oracle', batch='search')
  single = read('single', **_at_largest(results, network))
  several = read('multi', network=network).isel(optimizer=0)
  noised = {'noise': slice(1, None)}
  reached = {
    'several steps without noise': several.isel(noise=0, draw=0),
    'noise, several steps, one draw': several.isel(noised | {'draw': 0}).min(
      'noise'
    ),
    'noise, one step': read('noisy', network=network).isel(noised).min('noise'),
    'noise alone': read('restarts', network=network).isel(noised).min('noise'),
  }
  yield contrasts.difference(
    'N9 noise, best',
    f'{network}: the ball holds better points than the best single step, and '
    'the best of all noise draws finds one.',
    contrasts.log_ratio(single, several.isel(noised).min(('noise', 'draw'))),
    smallest=MARGIN,
    unit='log loss ratio',
    protocol='oracle, A',
    details={
      n: contrasts.log_ratio(single, loss).mean() for n, loss in reached.items()
    },
    caveat='The best of many draws shows that a point exists, not that noise '
    'helps; the controls spend as many evaluations as one draw does.',
  )


def interaction(results: xarray.Dataset) -> Verdicts:
  """Judges N9: full precision gains as much from several steps as binary does."""
  if not {'full_precision', 'binary'} <= set(results.network.values):
    return
  full, binary = (gain(results, n) for n in ('full_precision', 'binary'))
  details: dict[str, Any] = {}
  for name, samples in (('full_precision', full), ('binary', binary)):
    called = name.replace('_', ' ')
    details[called] = samples.mean()
    details |= _made_once(results, name, f'{called} single')
    details |= choices.made(
      results, 'multi', f'{called} multi', **_plain(results, name)
    )
  yield contrasts.equivalent(
    'N9 interaction',
    'Full precision gains as much from several steps as binary does.',
    full - binary,
    MARGIN,
    details=details,
    **INFO,
  )


def _over_draws(values):
  return divergence.unless_any(values.mean('draw'), values, 'draw')


def _at_largest(results, network):
  return {'network': network, 'batch_size': results.batch_size.max().item()}


def _made_once(results, network, name, protocol='deployable'):
  """Returns details of what the single step of a network chose."""
  at = _at_largest(results, network)
  return choices.made(results, 'single', name, protocol, **at)


def _plain(results, network, optimizer=None, noise=0.0) -> dict[str, Any]:
  """Labels of several steps, of the first optimiser unless named."""
  optimizer = optimizer or results.optimizer.values[0]
  return {'network': network, 'optimizer': optimizer, 'noise': noise}


def _over_rates(values):
  """Returns the standard deviation over step sizes; NaN if one of them diverged."""
  return divergence.unless_any(values.std('step_size'), values, 'step_size')
