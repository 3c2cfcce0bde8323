"""Numbers beside their targets."""

import numpy as np
import pytest

from bitjax.studies import targets

TARGETS = {
  'speed': targets.Target('of peak', 0.7, more=True),
  'memory': targets.Target('GiB', 2.0),
}


@pytest.mark.parametrize(
  ('speed', 'memory', 'met'),
  [
    (0.7, 2.0, ['supported', 'supported']),
    (0.69, 2.01, ['contradicted', 'contradicted']),
    (np.nan, np.nan, ['contradicted', 'contradicted']),
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


@pytest.mark.parametrize(
  'measured', [{'speed': 1.0}, {'speed': 1, 'x': 2, 'memory': 1}]
)
def test_every_case_has_both(measured):
  with pytest.raises(ValueError, match='needs a number and a target'):
    targets.table(TARGETS, measured)
