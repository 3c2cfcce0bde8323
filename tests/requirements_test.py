"""The requirements in pyproject.toml have minima, which ``make nightly-oldest`` tries."""

import itertools
import pathlib
import tomllib

from packaging import requirements

ROOT = pathlib.Path(__file__).parents[1]


def test_every_requirement_declares_its_minimum():
  text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
  project = tomllib.loads(text)['project']
  extras = project['optional-dependencies']
  for line in itertools.chain(project['dependencies'], *extras.values()):
    requirement = requirements.Requirement(line)
    if requirement.name != 'bitjax':  # One extra includes others.
      operators = [part.operator for part in requirement.specifier]
      assert '>=' in operators, line


def test_the_oldest_python_is_the_one_that_is_tried():
  text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
  oldest = tomllib.loads(text)['project']['requires-python'].removeprefix('>=')
  assert f'OLDEST ?= python{oldest}\n' in (ROOT / 'Makefile').read_text()
