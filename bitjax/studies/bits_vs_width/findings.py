r"""Judges the note's N14: three challenges of low bits, and whether bits or units help.

Over all networks of 1 to 8 bits that learn from random weights, a plane is fitted to each
seed's losses by least squares,

.. math:: \log L = a - \beta \log_2 (\text{bits}) - \gamma \log_2 (\text{weights}),

so that :math:`\beta` and :math:`\gamma` are what a doubling of the total bits gains if it
goes into bits per weight, or into more weights. Both have an interval over seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax.evidence import contrasts
from bitjax.evidence import divergence
from bitjax.evidence import protocols
from bitjax.evidence import verdicts
from bitjax.studies import recipes
from bitjax.studies.bits_vs_width import arms as arms_lib
from bitjax.studies.recipes import families

if TYPE_CHECKING:
  from collections.abc import Iterator

  import xarray

__all__ = ['LEVEL', 'MARGIN', 'Table', 'epochs_to', 'judge']

MARGIN = 0.05  # Nats of training loss: a smaller difference does not matter.
LEVEL = 0.5  # Nats of training loss, up to which epochs are counted.
_SLOPE = 0.05  # Of a log loss, by a doubling.
_POINTS = 0.5  # Of accuracy.
_EPOCHS = 1.0
_FULL = '32'
_CAVEAT = 'Small networks, and one recipe whose rate alone is tuned.'
_EQUAL = {
  'bits': 'equal total bits',
  'width': 'equal width',
  'operations': 'equal operations',
}


class Table:
  """Looks up trainings by what they are, without networks that diverged.

  Args:
    results: of `trainings.compare`.
  """

  def __init__(self, results: xarray.Dataset):
    self.found = divergence.without(results, ['train_loss', 'test_loss'])
    losses = results.tuning_train_loss.to_dataset(name='tuning_holdout')
    self._doubt = protocols.unsettled(losses, ['rate'])
    self._rates = recipes.chosen(results.tuning_train_loss)

  def arms(self, kind: str = 'scratch', equal: str = '', bits: str = '') -> Any:
    """Returns the labels of arms of a kind, a series and bits, by bits and width."""
    own = self.found.kind == kind
    if equal:
      own = own & self.found[f'equal_{equal}']
    if bits:
      own = own & (self.found.bits == bits)
    at = self.found.arm[own.values]
    order = list(families.BITS)
    return sorted(
      at.values.tolist(),
      key=lambda arm: (
        order.index(at.bits.sel(arm=arm).item()),
        at.width.sel(arm=arm).item(),
      ),
    )

  def one(self, kind: str, equal: str, bits: str) -> str | None:
    """Returns the label of the only arm of a kind, a series and bits; None for none."""
    found = self.arms(kind, equal, bits)
    return found[0] if found else None

  def of(self, name: str, arm: str, **labels: Any) -> np.ndarray:
    """Returns a variable of an arm, [seeds, ...]."""
    return self.found[name].sel(arm=arm, **labels).values

  def bits(self, equal: str) -> list[str]:
    """Returns the numbers of bits of a series."""
    return self.found.bits.sel(arm=self.arms('scratch', equal)).values.tolist()

  def details(self, *arms: str) -> dict[str, float]:
    """Returns losses, rates, and how often other tuning seeds choose otherwise."""
    found = {}
    for arm in arms:
      at = self.found.sel(arm=arm)
      found |= {
        arm: float(divergence.finite_mean(at.train_loss)),
        f'test accuracy, {arm}': 100
        * float(divergence.finite_mean(at.test_accuracy)),
        f'rate, {arm}': float(self._rates.sel(arm=arm)),
      }
    return found | self.unsettled(*arms)

  def unsettled(self, *arms: str) -> dict[str, float]:
    """Returns how often other tuning seeds choose otherwise, for each arm."""
    return {
      f'tuned otherwise, {arm}': float(self._doubt.sel(arm=arm)) for arm in arms
    }


def judge(results: xarray.Dataset) -> list[verdicts.Verdict]:
  """Judges every claim.

  Args:
    results: of `trainings.compare`.
  """
  table = Table(results)
  info: dict[str, Any] = {
    'protocol': 'deployable, last epoch, over seeds',
    'unit': 'nats of training loss',
    'caveat': _CAVEAT,
    'smallest': MARGIN,
  }
  return [
    *_equal(table, info),
    *_capacity(table, info),
    *_optimisation(table, info),
    *_generalisation(table, info),
    *_regression(table, info),
  ]


def _equal(table: Table, info: dict[str, Any]) -> Iterator[verdicts.Verdict]:
  """Judges the primary contrast, then all other bits against the reference."""
  reference = arms_lib.REFERENCE
  for equal, words in _EQUAL.items():
    own = [
      (bits, table.one('scratch', equal, bits)) for bits in table.bits(equal)
    ]
    same = table.one('scratch', equal, reference)
    if same is None:
      continue
    loss = table.of('train_loss', same)
    cells = []
    for bits, arm in own:
      if bits == reference or arm is None:
        continue
      gain = loss - table.of('train_loss', arm)
      claim = f'{words}: "{arm}" reaches a lower training loss than "{same}".'
      if equal == 'bits' and bits == arms_lib.PRIMARY:
        yield contrasts.difference(
          f'N14 {words}',
          claim,
          -gain,
          direction=-1,
          primary=True,
          details=table.details(arm, same),
          **info,
        )
        continue
      cells.append(
        contrasts.Cell(
          f'N14 {words}, {bits} bit{"s" * (bits != "1")}',
          claim,
          gain,
          table.details(arm, same),
        )
      )
    yield from contrasts.family(cells, **_less(info, 'caveat'))


def _capacity(table: Table, info: dict[str, Any]) -> Iterator[verdicts.Verdict]:
  """Judges whether few bits fit random labels worse."""
  few = arms_lib.PRIMARY
  for equal, other in (('width', _FULL), ('bits', arms_lib.REFERENCE)):
    low, high = (table.one('random', equal, bits) for bits in (few, other))
    if low is None or high is None:
      continue
    own = dict(info)
    own['caveat'] = (
      'What a training fits is less than what the network could. One draw of '
      f'random labels. {_CAVEAT}'
    )
    own['unit'] = 'nats of training loss, random labels'
    details = table.details(low, high)
    for arm in (low, high):
      accuracy = divergence.finite_mean(table.found.train_accuracy.sel(arm=arm))
      details[f'random labels fitted (%), {arm}'] = 100 * float(accuracy)
    yield contrasts.difference(
      f'N14 capacity, {_EQUAL[equal]}',
      f'{_EQUAL[equal]}: "{low}" fits random labels worse than "{high}".',
      table.of('train_loss', low) - table.of('train_loss', high),
      details=details,
      **own,
    )


def _gap(table, equal, bits):
  """Returns how much lower the loss from full precision on is, and the arms."""
  scratch, projected = (
    table.one(kind, equal, bits) for kind in ('scratch', 'projected')
  )
  if scratch is None or projected is None:
    return None, ()
  losses = [table.of('train_loss', arm) for arm in (scratch, projected)]
  return losses[0] - losses[1], (scratch, projected)


def _optimisation(
  table: Table, info: dict[str, Any]
) -> Iterator[verdicts.Verdict]:
  """Judges whether training from random weights misses what there is."""
  gap, arms = _gap(table, 'width', arms_lib.PRIMARY)
  control, others = _gap(table, 'width', _FULL)
  if gap is not None:
    yield contrasts.difference(
      'N14 optimisation',
      '1 bit: a start from the projected full-precision network reaches a lower '
      'training loss than one from random weights.',
      gap,
      details=table.details(*arms),
      **info,
    )
  if gap is not None and control is not None:
    yield contrasts.difference(
      'N14 optimisation, because of bits',
      'The start from full precision lowers the training loss more at 1 bit than '
      'as many further epochs do at 32 bits.',
      gap - control,
      details=table.details(*arms, *others),
      **info,
    )
  few, full = (
    table.one('scratch', 'width', bits) for bits in (arms_lib.PRIMARY, _FULL)
  )
  if few is None or full is None:
    return
  arms = few, full
  curves = [table.found.curve.sel(arm=arm) for arm in arms]
  counts, never = zip(*map(epochs_to, curves), strict=True)
  own = info | {'unit': 'epochs', 'smallest': _EPOCHS}
  if any(n.any() for n in never):
    own['caveat'] = (
      f'Where the loss stays above {LEVEL:g} nats, all epochs count. {_CAVEAT}'
    )
  yield contrasts.difference(
    'N14 epochs',
    f'1 bit takes more epochs to a training loss of {LEVEL:g} nats than 32 bits, at '
    'equal width.',
    counts[0] - counts[1],
    details={
      **{f'epochs, {a}': c.mean() for a, c in zip(arms, counts, strict=True)},
      **{f'never, {a}': n.mean() for a, n in zip(arms, never, strict=True)},
      **table.unsettled(*arms),
    },
    **own,
  )


def epochs_to(curve: xarray.DataArray) -> tuple[Any, Any]:
  """Returns the epochs up to a training loss of `LEVEL`, and which seeds never reach it.

  Args:
    curve: training loss by epoch, (seed, epoch).

  Returns:
    For each seed the number of epochs, all if it never does; NaN if it diverged.
  """
  values = curve.transpose('seed', 'epoch').values
  reached = values <= LEVEL
  never = ~reached.any(axis=1)
  epochs = curve.epoch.values
  found = np.where(never, epochs[-1], epochs[reached.argmax(axis=1)])
  found = np.where(np.isfinite(values).all(axis=1), found, np.nan)
  return found, never


def _generalisation(
  table: Table, info: dict[str, Any]
) -> Iterator[verdicts.Verdict]:
  """Judges what a doubling of the width does to the gap, and under disturbances."""
  own = info | {'unit': 'points of accuracy, by doubling', 'smallest': _POINTS}
  found = table.found
  test = 100 * found.test_accuracy
  measured = {
    '': (
      100 * found.train_accuracy - test,
      'wider networks overfit more (training less test accuracy)',
    ),
    ' noise': (
      100 * found.noisy_accuracy.isel(noise=-1),
      'wider networks are more accurate on images with noise',
    ),
    ' noise, loss of accuracy': (
      test - 100 * found.noisy_accuracy.isel(noise=-1),
      'wider networks lose more accuracy by noise on images',
    ),
    ' flips': (
      100 * found.flipped_accuracy.isel(flips=-1),
      'wider networks are more accurate after flips of weights',
    ),
    ' flips, loss of accuracy': (
      test - 100 * found.flipped_accuracy.isel(flips=-1),
      'wider networks lose more accuracy by flips of weights',
    ),
  }
  for bits in (arms_lib.PRIMARY, _FULL):
    arms = table.arms('scratch', bits=bits)
    widths = np.log2(found.width.sel(arm=arms).values.astype(float))
    if len(set(widths)) < 2:
      continue
    for name, (values, claim) in measured.items():
      label = 'robustness' if name else 'generalisation'
      words = f'{bits} bit{"s" * (bits != "1")}'
      rows = values.sel(arm=arms).transpose('arm', 'seed').values
      (slope,) = _least_squares([widths], rows)
      yield contrasts.difference(
        f'N14 {label}{name}, {words}',
        f'{words}: {claim}.',
        slope,
        details={'widths': len(arms), 'at most': float(2 ** widths.max())}
        | table.unsettled(*arms),
        **own,
      )


def _regression(
  table: Table, info: dict[str, Any]
) -> Iterator[verdicts.Verdict]:
  """Judges what a doubling of total bits gains, as bits or as weights."""
  own = [
    arm for arm in table.arms() if table.found.bits.sel(arm=arm).item() != _FULL
  ]
  at = table.found.sel(arm=own)
  bits = np.log2([families.BITS[b][0] for b in at.bits.values])
  weights = np.log2(at.weights.values.astype(float))
  columns = np.stack([np.ones_like(bits), bits, weights])
  if np.linalg.matrix_rank(columns) < len(columns):
    return
  losses = np.log(at.train_loss.transpose('arm', 'seed').values)
  per_bits, per_weights = (-x for x in _least_squares([bits, weights], losses))
  fitted = -np.outer(bits, per_bits) - np.outer(weights, per_weights)
  explained = 1 - (losses - fitted).var(axis=0) / losses.var(axis=0)
  explained = explained[np.isfinite(explained)]
  details = {
    'networks': len(own),
    'variance of log losses explained': explained.mean()
    if len(explained)
    else np.nan,
    **_summary(table.unsettled(*own).values()),
  }
  info = info | {
    'unit': 'log training loss, by doubling of total bits',
    'smallest': _SLOPE,
  }
  info['caveat'] = f'A plane for {len(own)} networks of 1 to 8 bits. {_CAVEAT}'
  for finding, claim, samples in (
    (
      'N14 bits',
      'With as many weights, twice the bits of each lower the training loss.',
      per_bits,
    ),
    (
      'N14 units',
      'With as many bits each, twice the weights lower the training loss.',
      per_weights,
    ),
    (
      'N14 bits or units',
      'Twice the total bits lower the training loss more as weights than as bits of '
      'each weight.',
      per_weights - per_bits,
    ),
  ):
    yield contrasts.difference(finding, claim, samples, details=details, **info)


def _summary(unsettled):
  """Returns the mean and the largest share, for many arms."""
  return {
    'tuned otherwise, mean of all': np.mean([*unsettled]),
    'tuned otherwise, most of all': max(unsettled),
  }


def _least_squares(columns, rows):
  """Returns the slopes of each seed's least squares, without the constant.

  Args:
    columns: what is varied, each [arms].
    rows: what is measured, [arms, seeds]. A seed that lacks an arm has no slope.
  """
  design = np.stack([np.ones_like(columns[0]), *columns], axis=1)
  known = np.isfinite(rows).all(axis=0)
  found = np.full((len(columns) + 1, rows.shape[1]), np.nan)
  found[:, known] = np.linalg.lstsq(design, rows[:, known], rcond=None)[0]
  return found[1:]


def _less(info, *names):
  return {name: value for name, value in info.items() if name not in names}
