"""CONTRIBUTING's recipe for an estimator, followed to the letter, passes the suite."""

import importlib.util
import pathlib
import re

import pytest

from bitjax import quantizers
from bitjax import types
from bitjax.studies import estimator_gallery as gallery

ROOT = pathlib.Path(__file__).parents[2]


def load(name, path):
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def blocks():
  """The code blocks of the recipe: the estimator, and its row."""
  text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
  section = text.split('## Add an estimator')[1].split('\n## ')[0]
  found = re.findall(r'^   ```python\n(.*?)^   ```', section, re.M | re.S)
  return [re.sub(r'^   ', '', code, flags=re.M) for code in found]


@pytest.fixture
def published(blocks, tmp_path, monkeypatch):
  """The recipe's estimator, exported as if it were the library's."""
  path = tmp_path / 'recipe_triangle.py'
  path.write_text(blocks[0], encoding='utf-8')
  made = load('recipe_triangle', path).triangle
  monkeypatch.setattr(quantizers, 'triangle', made, raising=False)
  monkeypatch.setattr(quantizers, '__all__', [*quantizers.__all__, 'triangle'])
  return made


def test_the_gallery_lists_it(published):
  drawn = {title: made for _, title, made in gallery.panels()}
  assert drawn['triangle'].func is published().func


def test_its_row_is_wanted_and_passes_the_contract(published, blocks):
  # Collected anew, as if the estimator were exported before the suite starts.
  contract = load('contract_again', ROOT / 'tests/quantizers/contract_test.py')
  assert published in contract.EXPORTED
  assert repr(published(0.5)) == 'triangle(half_width=0.5)'
  with pytest.raises(AssertionError):
    contract.test_every_exported_estimator_has_a_row()
  (row,) = eval(f'({blocks[1]})', vars(contract))
  assert row.make is published
  contract.TestRule().test_equals_rule_around_kinks_and_at_random(row)
  contract.TestShapesAndTypes().test_any_shape(row)
  contract.TestShapesAndTypes().test_cotangent_has_dtype_of_x(row)
  for bad in row.bad:
    with pytest.raises(types.BadInput, match='half_width'):
      published(**bad)


def test_it_works_by_name_without_registration(blocks, tmp_path, monkeypatch):
  (tmp_path / 'triangle_file.py').write_text(blocks[0], encoding='utf-8')
  monkeypatch.syspath_prepend(tmp_path)
  named = quantizers.named('triangle_file:triangle(0.5)')
  assert named.args == (0.5,)
