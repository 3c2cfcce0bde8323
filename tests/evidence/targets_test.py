"""Measured numbers compared with their targets."""

from matplotlib import pyplot
import pytest

from bitjax.evidence import plots
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


def test_shorter_is_better_whatever_the_direction():
  cases = {
    'fast': targets.Target('of peak', 0.5, higher_is_better=True),
    'slow': targets.Target('of peak', 0.5, higher_is_better=True),
    'small': targets.Target('GiB', 2.0),
    'large': targets.Target('GiB', 2.0),
    'none': targets.Target('files', 0.0),
    'some': targets.Target('files', 0.0),
  }
  values = dict(zip(cases, (1.0, 0.25, 1.0, 3.0, 0.0, 1.0), strict=True))
  cases['unknown'] = targets.Target('GiB', 2.0)
  results = targets.table(cases, values)
  with plots.style():
    fig = targets.bars(cases, results, labels={'fast': 'quick'})
  (ax,) = fig.axes
  pyplot.close(fig)
  lengths = [bar.get_width() for bar in ax.patches]
  assert lengths[:5] == [0.5, 2.0, 0.5, 1.5, 0.0] and lengths[5] > 1
  assert len(lengths) == 6
  judged = targets.judge(cases, results, {})[:-1]
  met = [verdict.verdict == 'supported' for verdict in judged]
  assert met == [length <= 1 for length in lengths]
  assert met == [bar.get_hatch() is None for bar in ax.patches]
  assert ax.get_yticklabels()[0].get_text() == 'quick'
  assert {text.get_text() for text in ax.texts} >= {
    '1  (≥ 0.5) of peak',
    '3  (≤ 2) GiB',
    'not measured',
  }
