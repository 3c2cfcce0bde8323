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
  bar = progress.Bar('multistep', 10, 4, stream, columns=lambda: 100)
  bar.compiling('kind=a')
  bar.advance(3, 'kind=a')
  bar.advance(3, '')
  bar.close()
  text = stream.getvalue()
  assert 'multistep (compiling kind=a)' in text
  assert '10/10' in text and 'lane/s' in text


def test_programs_that_are_compiled_first_do_not_count_in_the_rate(monkeypatch):
  now, stream = [0.0], io.StringIO()
  lines = progress.Lines('s', 100, 0, stream, clock=lambda: now[0])
  bar = progress.Bar('s', 100, 0, stream)
  clock = lambda: now[0]
  monkeypatch.setattr(bar._bar, '_time', clock)
  bar._bar.start_t = bar._bar.last_print_t = now[0]
  for number in range(4):
    for one in (lines, bar):
      one.compiling(str(number))
    now[0] += 0.0 if number == 3 else 600.0
  now[0] += 20.0
  for one in (lines, bar):
    one.advance(20, '')
  shown = stream.getvalue()
  assert 's: 20/100 lanes, 1 lanes/s, 1 min 20 s left' in shown
  assert '20/100 [00:20<01:20,' in shown
  bar.close()


@pytest.mark.parametrize('columns', [40, 60, 80, 120])
@pytest.mark.parametrize('unit', ['lanes', 'images'])
def test_a_bar_stays_a_bar_whatever_its_label(columns, unit):
  stream = io.StringIO()
  name, label = 'discrete_gradient_rounds', 'network=binary, noise=0.5'
  bar = progress.Bar(
    name, 1_234_567, 0, stream, unit=unit, columns=lambda: columns
  )
  bar.compiling(label)
  for _ in range(5):
    bar.advance(246_913, label)
  bar.close()
  drawn = [line for line in stream.getvalue().splitlines() if line.strip()]
  assert max(map(len, drawn)) <= columns
  for line in drawn:
    shown, bar_shown = line.split('|')[:2]
    assert len(bar_shown) >= 10
    text, _, percent = shown.rpartition(': ')
    assert percent.strip().endswith('%')
    start, cut, end = text.partition('…')
    assert any(
      whole.startswith(start)
      and whole.endswith(end)
      and (cut or whole == start)
      for whole in (name, f'{name} (compiling {label})', f'{name} ({label})')
    )
    assert len(start) >= 5
  assert '100%' in drawn[-1]


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
