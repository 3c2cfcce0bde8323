"""Lines and bars that tell people how far a sweep is."""

import io

import pytest

from bitjax.sweeps import progress


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
