"""The site: every exported name on its page, every study page readable at once."""

import importlib
import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
PACKAGES = (
  'quantizers', 'transforms', 'data', 'scans', 'searches', 'descent', 'measures', 'nn',
  'packed', 'training', 'evidence', 'sweeps', 'cli', 'types', 'tree', 'lanes', 'sums',
  'files',
)  # fmt: skip
STUDIES = sorted((DOCS / 'studies').glob('*.md'))
NAMES = re.compile(r'^\.\. api:: (\S+)\n\n((?:   \w+\n)+)', re.MULTILINE)


def described(text):
  """The names on a page, in full."""
  found = [
    f'{module}.{name}'
    for module, names in NAMES.findall(text)
    for name in names.split()
  ]
  return [*found, *re.findall(r'automodule:: (\S+)', text)]


@pytest.mark.parametrize('package', PACKAGES)
def test_every_exported_name_is_on_its_page_once(package):
  module = importlib.import_module(f'bitjax.{package}')
  found = described((DOCS / 'api' / f'{package}.md').read_text())
  wanted = {f'bitjax.{package}.{name}' for name in module.__all__}
  assert wanted <= set(found)
  assert len(found) == len(set(found))


def test_a_name_that_is_missing_is_noticed():
  page = '.. api:: bitjax.tree\n\n   norm\n   total\n```\n'
  assert described(page) == ['bitjax.tree.norm', 'bitjax.tree.total']


def answer(text):
  """The paragraph that a study's page opens with."""
  return re.search(r'^\*\*In short\.\*\* (.*?)\n\n', text, re.M | re.S)[1]


@pytest.mark.parametrize('page', STUDIES, ids=lambda page: page.stem)
def test_a_study_opens_with_three_sentences_without_numbers(page):
  text = page.read_text()
  said = answer(text)
  assert not re.search(r'\d', said)
  assert len(re.findall(r'[.?](?:\s|$)', said)) == 3
  assert text.index('**In short.**') < 400
  assert '](../glossary.md)' in text
