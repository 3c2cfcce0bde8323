"""What people see: verdicts, progress and plots."""

import io
import json
import math

import numpy as np
import pytest

from bitjax import studies
from bitjax.studies import progress
from bitjax.studies import verdicts


def _verdict(**changed):
  options = {
    'finding': 'N9a',
    'claim': 'Noise finds better points.',
    'verdict': 'supported',
    'effect': np.float32(0.5),
    'low': 0.25,
    'high': math.inf,
    'unit': 'nats',
    'num_seeds': 8,
    'protocol': 'oracle',
  }
  return studies.Verdict(**(options | changed))


def test_verdicts_survive_json():
  verdict = _verdict(details={'draws': np.int64(3), 'ratio': math.nan})
  text = json.dumps(verdict.to_json(), allow_nan=False)
  again = studies.Verdict.from_json(json.loads(text))
  assert (again.effect, again.high) == (0.5, math.inf)
  assert again.details['draws'] == 3 and math.isnan(again.details['ratio'])


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'verdict': 'true'}, 'must be one of supported, contradicted'),
    ({'low': 1.0, 'high': 0.0}, 'low must be <= high'),
    ({'finding': ''}, 'needs the label'),
    ({'claim': ''}, 'needs the label'),
    ({'num_seeds': -1}, 'num_seeds must be >= 0'),
  ],
)
def test_bad_verdicts(changed, message):
  with pytest.raises(ValueError, match=message):
    _verdict(**changed)


def test_verdicts_read_well():
  text = verdicts.text(
    [
      _verdict(num_seeds=1),
      _verdict(
        finding='N10',
        primary=True,
        caveat='words ' * 30,
        details={'margin': 0.125},
      ),
    ],
    width=60,
  )
  lines = text.splitlines()
  assert lines[0] == 'N10  SUPPORTED'  # The primary contrast comes first.
  assert '     effect 0.5 nats, 95 % [0.25, inf]; 8 seeds; oracle;' in lines
  assert '     margin = 0.125' in lines
  assert 'N9a  SUPPORTED' in lines
  assert lines[-1].endswith('1 seed; oracle; exploratory.') or (
    lines[-1].strip() == 'exploratory.'
  )
  assert max(map(len, lines)) <= 60
  assert verdicts.text([]) == ''


def test_progress_lines():
  now, stream = [0.0], io.StringIO()
  lines = progress.Lines(
    'multistep', 960, 100, stream, every=10.0, clock=lambda: now[0]
  )
  lines.compiling('optimizer=sgd')
  for _ in range(43):
    now[0] += 1.0
    lines.advance(20, 'optimizer=sgd')
  lines.close()
  assert stream.getvalue().splitlines() == [
    'multistep: 960 lanes, 100 of them done before',
    'multistep: compiling optimizer=sgd',
    'multistep: 300/960 lanes, 20 lanes/s, 33 s left',
    'multistep: 500/960 lanes, 20 lanes/s, 23 s left',
    'multistep: 700/960 lanes, 20 lanes/s, 13 s left',
    'multistep: 900/960 lanes, 20 lanes/s, 3.0 s left',
    'multistep: 960/960 lanes after 43 s',
  ]


def test_progress_bar():
  stream = io.StringIO()
  bar = progress.Bar('multistep', 10, 4, stream)
  bar.compiling('kind=a')
  bar.advance(3, 'kind=a')
  bar.advance(3, '')
  bar.close()
  text = stream.getvalue()
  assert 'multistep (kind=a, compiling)' in text
  assert '10/10' in text and 'lane/s' in text


@pytest.mark.parametrize(
  'seconds, text',
  [
    (0.42, '0.4 s'),
    (59.4, '59 s'),
    (68, '1 min 8 s'),
    (3720, '1 h 2 min'),
    (9.97, '10 s'),
  ],
)
def test_durations(seconds, text):
  assert progress.duration(seconds) == text


def test_bands():
  from matplotlib import figure

  rng = np.random.default_rng(0)
  with studies.plots.style():
    ax = figure.Figure().subplots()
    samples = rng.normal(size=(4, 9))
    drawn = studies.plots.band(
      ax, [1, 2, 3, 4], samples, color='red', linestyle='--', label='a'
    )
    assert drawn == [studies.interval(row) for row in samples]
    # A single cluster has no interval: a line without a band.
    drawn[1] = studies.interval([1.0])
    studies.plots.band(ax, [1, 2, 3, 4], drawn, color='blue')
    np.testing.assert_array_equal(
      ax.lines[1].get_ydata(), [found.mean for found in drawn]
    )
    assert ax.figure.get_layout_engine() is not None
    with pytest.raises(ValueError, match='3 points'):
      studies.plots.band(ax, [1, 2, 3], samples, color='red')
  assert set(studies.plots.COLORS) == {
    'full_precision',
    'binary',
    'binary_weights',
  }


def test_names_are_exported():
  for name in studies.__all__:
    assert getattr(studies, name).__doc__
