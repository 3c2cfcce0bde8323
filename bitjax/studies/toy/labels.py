"""What figures call the methods that spend a budget.

Results label methods briefly (`searches`); these are the words for readers. *Exact* and
*linear* are the signals by which flips are ranked: what the loss really does, and STE's
linear prediction of it.
"""

from __future__ import annotations

from bitjax.studies.toy import searches

__all__ = [
  'ball',
  'between',
  'direction',
  'flips',
  'optimizer',
  'order',
  'ranking',
  'rounds',
  'steps',
]

_DIRECTIONS = {
  'gradient': 'one STE step',
  'sign': "one STE step, gradient's sign",
  'central': 'one central-difference step',
  'variant': 'one STE step, window 0.5',
}
_OPTIMIZERS = {'sgd': 'SGD', 'sgdm': 'SGD + momentum', 'adam': 'Adam'}
_RANKINGS = {
  'gain': 'largest first',
  'per cost': 'per cost',
  'per squared cost': 'per squared cost',
}
_ORDERS = {
  'linear': 'flip after flip, by linear gain',
  'cost': 'flip after flip, cheapest first',
}
_NORMS = {
  'l2': r'$\ell_2$ ball',
  'linf': r'$\ell_\infty$ ball',
  'l1': r'$\ell_1$ ball',
  'flips': 'ball of flips',
}


def direction(name: str) -> str:
  """Returns the words for one step, by a name of `searches.DIRECTIONS`."""
  return _DIRECTIONS[name]


def optimizer(name: str) -> str:
  """Returns the words for an optimiser."""
  return _OPTIMIZERS[name]


def steps(name: str) -> str:
  """Returns the words for several steps of an optimiser."""
  return f'several STE steps, {optimizer(name)}'


def ranking(name: str) -> str:
  """Returns the words for a ranking of flips, by a name of `searches.RANKINGS`."""
  return _RANKINGS[name]


def flips(signal: str, name: str) -> str:
  """Returns the words for flips of a signal and a ranking, made all at once."""
  if signal == 'cost':  # Every ranking by cost alone is the same.
    return 'cheapest flips first'
  if signal == 'random':
    return f'random gains, {ranking(name)}'
  return f'{signal} gains, {ranking(name)}'


def between(crossing: str, behind: str) -> str:
  """Returns the words for flips by a signal between exact and linear gains."""
  return {
    ('true', 'linear'): 'exact gains, only linearised',
    ('smoothed', 'exact'): 'exact gains, only smoothed',
  }[crossing, behind]


def rounds(number: int, signal: str, name: str | None, split: str) -> str:
  """Returns the words for flips that are ranked anew in each of several rounds.

  Args:
    number: of rounds.
    signal: by which flips are ranked.
    name: of the ranking; None if all that is shown has the same.
    split: of the budget over the rounds.
  """
  short = {'even': 'even', 'cumulative': 'growing'}[split]
  ranked = f'{signal} gains' if name is None else flips(signal, name)
  return f'{number} rounds: {ranked}, {short}'


def order(name: str) -> str:
  """Returns the words for a search that tries flip after flip."""
  return _ORDERS[name]


def ball(name: str) -> str:
  """Returns the words for a ball that is written ``norm:radius``."""
  found = searches.ball(name)
  return f'{_NORMS[found.norm]}, {found.radius:g}'
