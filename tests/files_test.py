"""Files: JSON without NaN, and paths with a home directory."""

import json
import math
import pathlib

import numpy as np
import pytest

from bitjax import files
from bitjax import types


def test_json_has_no_nan(tmp_path):
  value = {
    'a': [math.nan, (math.inf, -math.inf)],
    'b': {'c': np.float64('nan'), 'd': 1, 'e': 'ü', 'f': None, 'g': True},
  }
  path = tmp_path / 'a.json'
  files.write_json(path, value)

  def refuse(name):
    raise AssertionError(name)

  found = json.loads(path.read_text('utf-8'), parse_constant=refuse)
  assert found == {
    'a': [None, ['inf', '-inf']],
    'b': {'c': None, 'd': 1, 'e': 'ü', 'f': None, 'g': True},
  }
  assert files.read_json(path) == found
  assert files.json_text({'a': 1.5}) == '{"a": 1.5}'


@pytest.mark.parametrize('value', [math.inf, -math.inf, 0.1, 3])
def test_numbers_are_read_back(value):
  assert files.number(json.loads(files.json_text(value))) == value
  assert math.isnan(files.number(json.loads(files.json_text(math.nan))))


def test_old_files_with_bare_nan_are_read(tmp_path):
  (tmp_path / 'a').write_text('[NaN, Infinity]')
  nan, inf = files.read_json(tmp_path / 'a')
  assert math.isnan(nan) and inf == math.inf


def test_expand(monkeypatch):
  monkeypatch.setenv('HOME', '/home/somebody')
  assert files.expand('~/x') == pathlib.Path('/home/somebody/x')
  assert files.expand(pathlib.Path('a/~')) == pathlib.Path('a/~')
  with pytest.raises(types.BadInput, match='~nobody-of-that-name/x: the home'):
    files.expand('~nobody-of-that-name/x')
