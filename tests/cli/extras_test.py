"""The optional packages of studies: what is said where they are missing."""

import importlib.metadata
import importlib.util
import re

import pytest

from bitjax.cli import extras


def test_a_study_without_the_extras_ends_in_one_line(
  launch, monkeypatch, capsys, tmp_path
):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *rest: None if name == 'xarray' else find(name, *rest),
  )
  assert launch('--preset=smoke') == 2
  out, err = capsys.readouterr()
  assert (out, err.count('\n')) == ('', 1)
  assert 'studies need xarray' in err
  assert "pip install 'bitjax[experiments]'" in err
  assert list(tmp_path.iterdir()) == []
  assert launch('--help') == 0


def test_the_extra_installs_what_is_asked_for():
  wanted = set()
  for line in importlib.metadata.requires('bitjax'):
    if f'extra == "{extras.EXTRA}"' in line.replace("'", '"'):
      name, extra = re.match(r'([\w-]+)(\[\w+\])?', line).groups()
      wanted |= {name, (extra or '').strip('[]')}
  assert set(extras.PACKAGES) <= wanted


@pytest.mark.parametrize('name', extras.PACKAGES)
def test_what_is_asked_for_can_be_imported(name):
  assert importlib.util.find_spec(name)
