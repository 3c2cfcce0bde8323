"""Every number of a card, with its interval over seeds, beside that of the normal STE.

Differences from the normal STE are paired: both had the same initialisations and batches,
so what a seed is good or bad for cancels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from bitjax import evidence
from bitjax.commands.report_card import balls
from bitjax.commands.report_card import measure

if TYPE_CHECKING:
  import xarray

__all__ = [
  'BATCHES',
  'CERTIFICATES',
  'STEPS',
  'Number',
  'Sample',
  'find',
  'numbers',
  'samples',
]

BATCHES = {'search': 'A', 'holdout': 'B'}
STEPS = {'once': 'one step', 'rounds': 'several steps'}
_SHARE, _UNIT = (0.0, 1.0), (-1.0, 1.0)
CERTIFICATES = {
  'improving': ('flips that lower the training loss', -1),
  'significant': ('flips that lower it by more than 2 standard errors', -1),
  'holds': ('of the first, those that lower the test loss', 0),
  'random_holds': ('of all flips, those that lower the test loss', 0),
  'is_optimum': ('networks that no single flip improves', 1),
}


@dataclasses.dataclass(frozen=True)
class Sample:
  """What was measured on every seed.

  Attributes:
    section: the part of the card.
    name: what it is, in words.
    where: its labels, such as layer and batch size.
    values: one value for each seed (or turn, of times), [seeds].
    unit: of the values; empty for none.
    better: 1 if larger is better, -1 if smaller is, 0 if neither.
    bounds: the smallest and the largest possible value.
    exact: whether values are 1 and 0, whose share has an exact interval.
  """

  section: str
  name: str
  where: dict[str, Any]
  values: np.ndarray
  unit: str = ''
  better: int = 0
  bounds: tuple[float, float] | None = None
  exact: bool = False

  @property
  def key(self) -> tuple[Any, ...]:
    """What tells it from the other samples of an estimator."""
    return self.section, self.name, *self.where.items()


@dataclasses.dataclass(frozen=True)
class Number:
  """A number of a card.

  Attributes:
    sample: what was measured.
    found: its mean over seeds with its interval.
    normal: that of the normal STE; None on its own card.
    difference: of this less the normal STE, paired by seed; None without one.
  """

  sample: Sample
  found: evidence.Interval
  normal: evidence.Interval | None = None
  difference: evidence.Interval | None = None

  def to_json(self) -> dict[str, Any]:
    """Returns the number in JSON values."""
    own = self.sample
    found: dict[str, Any] = {
      'section': own.section,
      'name': own.name,
      'where': own.where,
      'unit': own.unit,
      'better': own.better,
      **_ends(self.found),
    }
    for name in ('normal', 'difference'):
      interval = getattr(self, name)
      found[name] = None if interval is None else _ends(interval)
    return found


def numbers(one: measure.Kept, normal: measure.Kept | None) -> list[Number]:
  """Returns all numbers of an estimator.

  Args:
    one: what was measured of it.
    normal: what was measured of the normal STE; None on its own card.
  """
  others = {}
  if normal is not None:
    others = {sample.key: sample for sample in samples(normal.results)}
  found = []
  for sample in samples(one.results):
    other = others.get(sample.key)
    if other is None or sample.section == 'speed':  # Turns are not paired.
      found.append(Number(sample, _interval(sample)))
      continue
    gap = (
      None  # Differences of 1 and 0 have no interval that holds for few seeds.
    )
    if not sample.exact:
      gap = evidence.interval(sample.values - other.values)
    found.append(Number(sample, _interval(sample), _interval(other), gap))
  return found


def _interval(sample):
  if sample.exact:
    return evidence.proportion(sample.values)
  return evidence.interval(sample.values, bounds=sample.bounds)


def find(found: Iterable[Number], section: str, **where: Any) -> list[Number]:
  """Returns the numbers of a section with given labels; ``name`` is one of them."""
  name = where.pop('name', None)
  return [
    one
    for one in found
    if one.sample.section == section
    and name in (None, one.sample.name)
    and where.items() <= one.sample.where.items()
  ]


def samples(results: xarray.Dataset) -> Iterator[Sample]:
  """Yields everything that was measured, in the order of the card."""
  yield from _nearness(results)
  yield from _variance(results)
  yield from _decreases(results)
  yield from _trained(results)
  yield from _speed(results)


def _nearness(results):
  axes = ('state', 'batch_size', 'layer')
  for where in _every(results, axes):
    for truth in results.truth.values.tolist():
      for name in ('correlation', 'cosine'):
        yield Sample(
          'nearness',
          f'{name} with {truth} gains',
          _worded(where),
          _values(results[name].sel(where | {'truth': truth})),
          better=1,
          bounds=_UNIT,
        )
  for where in _every(results, axes):
    yield Sample(
      'replication',
      'correlation of A and B',
      _worded(where),
      _values(results['replication'].sel(where)),
      better=1,
      bounds=_UNIT,
    )


def _variance(results):
  names = {
    'bias': ('tangent of the angle to the discrete gradient', -1),
    'signal_to_noise': ('signal-to-noise ratio of a part', 1),
    'sparsity': ('share of entries that are 0', 0),
  }
  for where in _every(results, ('state', 'layer')):
    for key, (name, better) in names.items():
      values = _values(results[key].sel(where))
      yield Sample('variance', name, _worded(where), values, better=better)


def _decreases(results):
  saved = {arm: balls.saved(results, arm) for arm in balls.ARMS}
  for where in _every(results, ('state', 'ball')):
    for arm, batch in itertools.product(balls.ARMS, BATCHES):
      yield Sample(
        'decrease',
        f'{STEPS[arm]}, on {BATCHES[batch]}',
        where,
        _values(saved[arm][batch].sel(where)),
        unit='nats',
        better=1,
      )


def _trained(results):
  for part in results.part.values.tolist():
    for key, (name, better) in CERTIFICATES.items():
      yield Sample(
        'optimality',
        name,
        _worded({'layer': part}),
        _values(results[key].sel(part=part)),
        unit='share',
        better=better,
        bounds=_SHARE,
        exact=key == 'is_optimum',
      )
  for data, kinds in (('training', 'train'), ('test', 'test')):
    yield Sample(
      'accuracy',
      f'{data} accuracy',
      {'data': 'digits'},
      _values(results[f'{kinds}_accuracy']),
      unit='share',
      better=1,
      bounds=_SHARE,
    )
    yield Sample(
      'accuracy',
      f'{data} loss',
      {'data': 'digits'},
      _values(results[f'{kinds}_loss']),
      unit='nats',
      better=-1,
    )
  if 'cifar_test_accuracy' in results:
    yield Sample(
      'accuracy',
      'test accuracy',
      {'data': 'CIFAR-10, 16 x 16'},
      _values(results['cifar_test_accuracy']),
      unit='share',
      better=1,
      bounds=_SHARE,
    )


def _speed(results):
  for key, name, unit in (
    ('entry_ns', 'time for an entry of the cotangent', 'ns'),
    ('entry_ratio', 'that time, as a multiple of the normal STE', ''),
    ('step_ratio', 'time for a gradient of the network, likewise', ''),
  ):
    yield Sample('speed', name, {}, _values(results[key]), unit, better=-1)


def _every(results, axes):
  """Yields the labels of every point of some axes."""
  labels = [results[axis].values.tolist() for axis in axes]
  for values in itertools.product(*labels):
    yield dict(zip(axes, values, strict=True))


def _worded(where):
  """Returns labels in which layers are numbered from 1."""
  words = dict(where)
  name = words.get('layer', '')
  if name.startswith('Dense_'):
    words['layer'] = f'layer {int(name.removeprefix("Dense_")) + 1}'
  elif name == 'all':
    words['layer'] = 'all layers'
  return words


def _values(found):
  return np.asarray(found.values, float)


def _ends(found):
  return {
    'mean': found.mean,
    'low': found.low,
    'high': found.high,
    'seeds': found.num,
    'dropped': found.dropped,
  }
