"""The manual page."""

import time

import pytest


@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help(launch, flag, capsys, tmp_path, monkeypatch):
  monkeypatch.setenv('COLUMNS', '200')
  assert launch(flag, '--preset=nonsense') == 0
  out, err = capsys.readouterr()
  assert err == ''
  assert 'A sample study, as small as one can be.' in out
  for text in (
    'smoke\n      seeds=0, learning_rates=0.01,0.1',
    'quick (default)',
    '--seeds=INT,...\n      Seeds. (>= 0; default: 0:3)',
    '--networks=NAME,...',
    'one of binary, full_precision',
    '--learning_rates=GRID',
    '> 0; default: log:1e-3:1e-1:4',
    '--[no]literal',
    'default: none',
    '--out=NAME',
    'runs/sample_study/<preset>',
    '--chunk=INT',
  ):
    assert text in out
  words = ' '.join(out.split())
  assert 'or 1 for trainings on a CPU; >= 1)' in words
  assert 'integers are at most 2147483647, other numbers 0 or from' in words
  assert max(map(len, out.splitlines())) <= 80
  assert list(tmp_path.iterdir()) == []


def test_help_is_quick(start):
  begin = time.monotonic()
  process = start('--help')
  out, err = process.communicate(timeout=60)
  took = time.monotonic() - begin
  assert (process.returncode, err) == (0, '')
  assert out.startswith('sample_study\n\nA sample study')
  assert took < 10  # Promised: 3 s on an idle machine.
