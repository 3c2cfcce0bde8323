"""The requirements in pyproject.toml are those of the code, with minima.

``make nightly-oldest`` tries the minima.
"""

import ast
import itertools
import pathlib
import sys
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


# Distributions whose packages have another name, and what only declares a minimum.
NAMES = {
  'absl-py': 'absl',
  'dm-haiku': 'haiku',
  'h5netcdf': 'h5netcdf',
  'orbax-checkpoint': 'orbax',
  'pillow': 'PIL',
  'scikit-image': 'skimage',
  'scikit-learn': 'sklearn',
}
# jaxlib must fit jax; chex is promised to whoever builds on bitjax; xarray writes netCDF
# by means of the other two.
UNSEEN = {'jaxlib', 'chex', 'h5netcdf', 'h5py'}
TOOLS = {'pre-commit', 'pyrefly', 'pytest-xdist', 'ruff'}  # Commands.


def _declared(*lines):
  """Returns the packages that requirements install, by the names of imports."""
  found = set()
  for line in lines:
    requirement = requirements.Requirement(line)
    found |= {requirement.name, *requirement.extras}
  return {NAMES.get(name, name) for name in found if name != 'bitjax'}


def _project():
  text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
  project = tomllib.loads(text)['project']
  extras = {
    name: _declared(*(line for line in lines if not line.startswith('bitjax')))
    for name, lines in project['optional-dependencies'].items()
  }
  return _declared(*project['dependencies']), extras


def _imported(folder, *, late):
  """Returns the packages of others that a folder's modules import.

  Args:
    folder: relative to the root.
    late: whether imports inside functions count too. What stands under
      ``TYPE_CHECKING`` never does.
  """
  found = set()
  for path in (ROOT / folder).rglob('*.py'):
    pending = [ast.parse(path.read_text(encoding='utf-8'))]
    while pending:
      node = pending.pop()
      if isinstance(node, ast.Import):
        found |= {alias.name.partition('.')[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom) and not node.level:
        found.add(node.module.partition('.')[0])
      elif isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(
        node.test
      ):
        pending += node.orelse
      elif late or not isinstance(
        node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
      ):
        pending += ast.iter_child_nodes(node)
  own = {'bitjax', 'experiments', 'hardware', 'tests'}
  return found - own - set(sys.stdlib_module_names)


def test_what_is_imported_at_once_is_a_core_dependency_and_all_of_those_are_used():
  core, _ = _project()
  assert _imported('bitjax', late=False) <= core
  assert core <= _imported('bitjax', late=True) | UNSEEN


def test_what_is_imported_late_is_in_an_extra_and_all_of_those_are_used():
  core, extras = _project()
  late = _imported('bitjax', late=True) - core
  offered = extras['experiments'] | extras['tensorboard']
  assert late <= offered
  assert offered <= late | UNSEEN


def test_what_tests_import_is_declared():
  core, extras = _project()
  declared = core | set.union(*extras.values())
  assert _imported('tests', late=True) <= declared
  wanted = _imported('tests', late=True) | _imported('docs', late=True)
  assert extras['dev'] - TOOLS <= wanted | {'equinox', 'haiku'}
