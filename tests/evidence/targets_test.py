"""Measured numbers compared with their targets."""

import pytest

from bitjax.evidence import targets

TARGETS = {
  'speed': targets.Target('of peak', 0.7, higher_is_better=True),
  'memory': targets.Target('GiB', 2.0),
}


@pytest.mark.parametrize(
  ('speed', 'memory', 'met'),
  [
    (0.7, 2.0, ['supported', 'supported']),
    (0.69, 2.01, ['contradicted', 'contradicted']),
  ],
)
def test_what_is_met(speed, memory, met):
  results = targets.table(TARGETS, {'memory': memory, 'speed': speed})
  assert results.case.values.tolist() == ['speed', 'memory']
  found = targets.judge(TARGETS, results, {'memory': {'part': 1.0}})
  assert [verdict.verdict for verdict in found] == met
  assert [verdict.claim for verdict in found] == [
    'At least 0.7 of peak.',
    'At most 2 GiB.',
  ]
  assert found[1].details == {'part': 1.0} and not found[0].details


def test_what_was_not_measured_is_inconclusive():
  results = targets.table(TARGETS, {'speed': 1.0})
  found = targets.judge(TARGETS, results, {})
  assert [v.verdict for v in found] == ['supported', 'inconclusive']
  with pytest.raises(ValueError, match="case 'x' needs a target"):
    targets.table(TARGETS, {'speed': 1.0, 'x': 2.0})
