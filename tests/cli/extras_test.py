"""Optional packages: what is said where they are missing."""

import importlib.metadata
import importlib.util
import re
import sys

import pytest

from bitjax import evidence
from bitjax import extras
from bitjax import sweeps
from bitjax import types


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
  assert 'a study needs xarray' in err
  assert "pip install 'bitjax[experiments]'" in err
  assert list(tmp_path.iterdir()) == []
  assert launch('--help') == 0


def test_a_sweep_says_so_before_it_computes(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *rest: None)
  with pytest.raises(types.BadInput, match=r'a sweep needs xarray, .*\[exp'):
    sweeps.Sweep()(
      lambda x: pytest.fail('it computes'), name='sweep', lanes={'x': [1.0]}
    )


def test_statistics_name_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'scipy.special', None)
  with pytest.raises(ModuleNotFoundError, match=r'needs scipy, .*\[exp'):
    evidence.interval([1.0, 2.0, 3.0])


def test_the_extra_installs_what_is_asked_for():
  wanted = set()
  for line in importlib.metadata.requires('bitjax'):
    if f'extra == "{extras.EXTRA}"' in line.replace("'", '"'):
      name, extra = re.match(r'([\w-]+)(\[\w+\])?', line).groups()
      wanted |= {name, (extra or '').strip('[]')}
  assert set(extras.STUDIES) <= wanted


@pytest.mark.parametrize('name', extras.STUDIES)
def test_what_is_asked_for_can_be_imported(name):
  assert importlib.util.find_spec(name)
