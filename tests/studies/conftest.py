"""Fixtures that the tests of studies share."""

import pytest

from bitjax import cli


@pytest.fixture
def refused(tmp_path, capsys):
  """Checks that flags end in one line and status 2, and that nothing is written."""

  def check(study, flags, words):
    out = tmp_path / 'run'
    assert cli.launch(study, [f'--out={out}', *flags]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0], lines
    assert not out.exists()

  return check
