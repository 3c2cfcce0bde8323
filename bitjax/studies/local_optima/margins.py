"""What verdicts of this study have in common: margins, and the nulls of significance.

What is *significant* is judged against two nulls. If the gains of all flips were noise
around 0, 2.3 % of them would exceed two standard errors (`NOMINAL`), and as many would
lie below minus two (``mirrored``). Either null assumes that flips do not harm: where
most do, fewer than 2.3 % exceed two errors by chance, and an excess is understated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import math
from typing import TYPE_CHECKING, Any

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import protocols
from bitjax.evidence import verdicts

if TYPE_CHECKING:
  import xarray

__all__ = [
  'INFO',
  'NAMES',
  'NOMINAL',
  'PROTOCOL',
  'SHARE',
  'SHARES',
  'Verdicts',
  'excess',
  'sound',
  'unsettled',
]

NAMES = {'search': 'training', 'holdout': 'held-out'}
PROTOCOL = 'rate chosen on tuning seeds'
# Fixed beforehand: half a percent of a loss, and one flip in a hundred.
LOSS, SHARE = 0.005, 0.01
INFO: dict[str, Any] = {
  'protocol': PROTOCOL,
  'unit': 'log loss ratio',
  'smallest': LOSS,
}
SHARES: dict[str, Any] = {
  'protocol': PROTOCOL,
  'unit': 'share of all flips',
  'smallest': SHARE,
  'bounds': (-1, 1),
}
# The share of a normal distribution beyond two standard deviations, on one side.
NOMINAL = math.erfc(math.sqrt(2)) / 2

Verdicts = Iterator[verdicts.Verdict]


def sound(results: xarray.Dataset, prefix: str = '') -> xarray.Dataset:
  """Returns a group of variables, with NaN for networks that diverged.

  Args:
    results: of the study.
    prefix: with which the names of the group begin, and which they lose here:
      ``'control_'``, ``'precise_'``, or none for what `arms.compare` returns.
  """
  names = [str(name) for name in results.data_vars]
  names = [name for name in names if name.startswith(prefix)]
  own = results[names].rename({n: n.removeprefix(prefix) for n in names})
  return divergence.without(own, ['trained_search', 'trained_holdout'])


def excess(
  where: str,
  subject: str,
  own: xarray.Dataset,
  details: Mapping[str, Any],
) -> Verdicts:
  """Judges the share of significant flips against both nulls.

  Args:
    where: what follows in the label of the finding.
    subject: how the claim begins.
    own: a table over seeds.
    details: further numbers: at least how settled the rate is.
  """
  nulls = {'nominal': NOMINAL, 'mirrored': own['mirrored']}
  shares = {
    'significant': own['significant'].mean(),
    'mirrored': own['mirrored'].mean(),
    'nominal': NOMINAL,
    'improving': own['improving'].mean(),
  }
  claims = {
    'nominal': 'than the 2.3 % that would if all gains were noise around 0.',
    'mirrored': 'than raise it by as much.',
  }
  for null, claim in claims.items():
    label = f'N15 {where}significant, less {null}'
    yield contrasts.difference(
      label,
      f'{subject} more of the single flips lower the training loss by over two '
      f'standard errors {claim}',
      own['significant'] - nulls[null],
      details={**shares, **details},
      **SHARES,
    )


def unsettled(name: str, results: xarray.Dataset) -> dict[str, Any]:
  """Returns, for details, how often other tuning seeds would choose another rate.

  Args:
    name: what the details call the training.
    results: its ``tuning_holdout``, over no other arms.
  """
  tuning = results[['tuning_holdout']]
  found = protocols.unsettled(tuning, ['learning_rate'])
  return {f'tuned otherwise, {name}': found}
