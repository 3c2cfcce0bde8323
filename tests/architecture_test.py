"""The floors and house rules of the architecture, checked by reading imports.

`FLOORS` and `RULES` say everything; below are the parser, the checks, and one
planted violation of every form of import and of every rule.
"""

import ast
from collections.abc import Callable, Iterator
import dataclasses
import importlib
import inspect
import pathlib

import pytest

import bitjax

ROOT = pathlib.Path(__file__).parents[1]

# What a part of the library stands on: itself and lower floors, no more.
FLOORS = {
  'types': 0,
  'tree': 0,
  'lanes': 0,
  'version': 0,
  'files': 0,
  'quantizers': 1,
  'transforms': 1,
  'data': 1,
  'evidence': 1,
  'sweeps': 1,
  'cli': 2,
  'scans': 2,
  'descent': 2,
  'measures': 2,
  'nn': 3,
  'training': 4,
  'studies': 4,
}
# Neighbours on one floor that may be known all the same.
NEIGHBOURS = {
  ('tree', 'types'),
  ('lanes', 'types'),
  ('descent', 'scans'),
  ('measures', 'scans'),
}


@dataclasses.dataclass(frozen=True)
class Import:
  """One imported module, where it stands, and whether only for annotations."""

  module: str
  inside_function: bool
  type_checking: bool


@dataclasses.dataclass(frozen=True)
class Home:
  """Where a file lives: ``bitjax.scans._view`` has the part ``scans``."""

  module: str
  is_package: bool = False

  @property
  def part(self) -> str:
    names = self.module.split('.')
    return names[1] if len(names) > 1 else ''

  @property
  def package(self) -> str:
    return self.module if self.is_package else self.module.rpartition('.')[0]

  @property
  def in_library(self) -> bool:
    return self.module.split('.')[0] == 'bitjax'


def _floor(home, use):
  names = use.module.split('.')
  if names[0] != 'bitjax' or not home.in_library or len(names) == 1:
    return True
  other = names[1]
  if home.part in ('', other):
    return home.part == other or other == 'version'
  if other not in FLOORS or home.part not in FLOORS:
    return False
  return FLOORS[other] < FLOORS[home.part] or (home.part, other) in NEIGHBOURS


def _private(home, use):
  names = use.module.split('.')
  if names[0] not in ('bitjax', 'experiments'):
    return True
  for depth, name in enumerate(names):
    if name.startswith('_') and not name.startswith('__'):
      owner = '.'.join(names[:depth])
      return f'{home.package}.'.startswith(f'{owner}.')
  return True


def _alone(home, use):
  return home.in_library or use.module.split('.')[0] != 'experiments'


def _downwards(home, use):
  return not home.in_library or use.module.split('.')[0] not in (
    'experiments',
    'tests',
  )


def only_in(names: set[str], parts: set[str]):
  """These distributions are imported only in these parts and experiments."""

  def holds(home, use):
    foreign = use.module.split('.')[0] not in names
    return foreign or not home.in_library or home.part in parts

  return holds


def lazily(names: set[str]):
  """The library imports these where it uses them, or for annotations."""

  def holds(home, use):
    foreign = use.module.split('.')[0] not in names
    late = use.inside_function or use.type_checking
    return foreign or not home.in_library or late

  return holds


STUDY_TOOLS = {'absl', 'matplotlib', 'xarray'}
RULES: dict[str, Callable[[Home, Import], bool]] = {
  'own package and lower floors only': _floor,
  'private modules stay in their package': _private,
  'experiments know no experiments': _alone,
  'the library knows no experiments or tests': _downwards,
  'flax only in nn and training': only_in({'flax'}, {'nn', 'training'}),
  'absl, matplotlib, xarray only in studies': only_in(
    STUDY_TOOLS, {'cli', 'evidence', 'studies', 'sweeps'}
  ),
  'absl, matplotlib, xarray where they are used': lazily(STUDY_TOOLS),
}
ENVIRONMENT = {'environ', 'environb', 'getenv', 'putenv', 'FLAGS'}
MAX_LINES = {'bitjax': 400, 'experiments': 200}


def imports(source: str, home: Home) -> Iterator[Import]:
  """Every module that a source imports, whatever the form."""
  yield from _imports(ast.parse(source), home, False, False)


def _imports(node, home, inside, checking):
  if isinstance(node, ast.Import):
    for name in node.names:
      yield Import(name.name, inside, checking)
  elif isinstance(node, ast.ImportFrom):
    base = _resolve(node.module or '', node.level, home)
    for name in node.names:
      # `from a import b` may import the module a.b or the name b of a.
      yield Import(f'{base}.{name.name}', inside, checking)
  elif isinstance(node, ast.Call) and node.args:
    called = getattr(node.func, 'attr', getattr(node.func, 'id', None))
    name = node.args[0]
    if called in ('import_module', '__import__') and isinstance(
      name, ast.Constant
    ):
      stripped = name.value.lstrip('.')
      level = len(name.value) - len(stripped)
      yield Import(_resolve(stripped, level, home), inside, checking)
  function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
  for field, children in ast.iter_fields(node):
    for child in children if isinstance(children, list) else [children]:
      if isinstance(child, ast.AST):
        guarded = isinstance(node, ast.If) and _is_type_checking(node.test)
        yield from _imports(
          child,
          home,
          inside or (isinstance(node, function) and field == 'body'),
          checking or (guarded and field == 'body'),
        )


def _resolve(module, level, home):
  if not level:
    return module
  parents = home.package.split('.')
  base = '.'.join(parents[: len(parents) - level + 1])
  return f'{base}.{module}' if module else base


def _is_type_checking(test):
  return getattr(test, 'attr', getattr(test, 'id', None)) == 'TYPE_CHECKING'


def violations(source: str, home: Home) -> list[str]:
  """Names the rule and the import for every broken rule."""
  return [
    f'{home.module} imports {use.module}: {rule}'
    for use in imports(source, home)
    for rule, holds in RULES.items()
    if not holds(home, use)
  ]


def environment_reads(source: str) -> list[str]:
  """Names through which a source reads flags or the environment."""
  found = []
  for node in ast.walk(ast.parse(source)):
    names = [getattr(node, 'attr', None), getattr(node, 'id', None)]
    if isinstance(node, ast.ImportFrom):
      names = [alias.name for alias in node.names]
    found += [name for name in names if name in ENVIRONMENT]
  return found


def sources() -> dict[Home, pathlib.Path]:
  found = {}
  for package in ('bitjax', 'experiments'):
    for path in sorted((ROOT / package).rglob('*.py')):
      names = path.relative_to(ROOT).with_suffix('').parts
      is_package = names[-1] == '__init__'
      names = names[:-1] if is_package else names
      found[Home('.'.join(names), is_package)] = path
  return found


SOURCES = sources()
LIBRARY = [home for home in SOURCES if home.in_library]
PUBLIC = [
  home.module
  for home in LIBRARY
  if not any(name.startswith('_') for name in home.module.split('.'))
  and home.part != 'version'  # It defines nothing but `__version__`.
]
every_home = pytest.mark.parametrize('home', SOURCES, ids=lambda h: h.module)


class TestFiles:
  """Every file of the library and of the experiments."""

  @every_home
  def test_imports(self, home):
    assert not violations(SOURCES[home].read_text(), home)

  @every_home
  def test_length_and_docstring(self, home):
    source = SOURCES[home].read_text()
    limit = MAX_LINES.get(home.module, MAX_LINES[home.module.split('.')[0]])
    assert len(source.splitlines()) <= limit
    assert ast.get_docstring(ast.parse(source))

  @every_home
  def test_flags_and_environment_are_read_in_studies_only(self, home):
    if home.in_library and home.part not in ('studies', 'sweeps'):
      assert not environment_reads(SOURCES[home].read_text())

  def test_every_part_has_a_floor(self):
    parts = {home.part for home in LIBRARY} - {''}
    assert parts <= set(FLOORS)
    assert len(SOURCES) > 10


class TestContracts:
  """`__all__` is the contract of a public module."""

  @pytest.mark.parametrize('name', PUBLIC)
  def test_public_names_resolve_and_are_documented(self, name):
    module = importlib.import_module(name)
    assert module.__all__ == list(dict.fromkeys(module.__all__))
    for symbol in module.__all__:
      value = getattr(module, symbol)
      if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value), f'{name}.{symbol} has no docstring'

  def test_import_is_light(self):
    """Importing every public module needs none of the extras."""
    assert bitjax.__version__
    extras = {'tqdm', 'sklearn', 'mlxtend', 'pyarrow', 'PIL', 'scipy', 'grain'}
    for home in LIBRARY:
      for use in imports(SOURCES[home].read_text(), home):
        top = use.module.split('.')[0]
        late = use.inside_function or use.type_checking
        assert top not in extras or late, f'{home.module} imports {top}'


SCANS = Home('bitjax.scans._view')
FORMS = {
  'import a.b': 'import bitjax.nn',
  'import a.b as c': 'import bitjax.nn as networks',
  'import a.b.c': 'import bitjax.nn._mlp',
  'from a import b': 'from bitjax import nn',
  'from a import b as c': 'from bitjax import lanes, nn as networks',
  'from a.b import c': 'from bitjax.nn import MLP',
  'from a.b import *': 'from bitjax.nn import *',
  'from .. import b': 'from .. import nn',
  'from ..b import c': 'from ..nn import MLP',
  'in a function': 'def f():\n  from bitjax import nn',
  'in a method': 'class A:\n  def f(self):\n    import bitjax.nn',
  'in a branch': 'try:\n  import bitjax.nn\nexcept ImportError:\n  pass',
  'import_module': "import importlib\nimportlib.import_module('bitjax.nn')",
  'bare import_module': "import_module('bitjax.nn._mlp')",
  'relative import_module': "import_module('..nn', __package__)",
  '__import__': "f = lambda: __import__('bitjax.nn')",
  'TYPE_CHECKING': (
    'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  from bitjax import nn'
  ),
  'typing.TYPE_CHECKING': (
    'import typing\nif typing.TYPE_CHECKING:\n  import bitjax.nn'
  ),
}


class TestPlanted:
  """Planted violations are found; their lawful neighbours are not."""

  @pytest.mark.parametrize('form', FORMS)
  def test_every_form_of_import(self, form):
    found = violations(FORMS[form], SCANS)
    assert any('own package and lower floors' in line for line in found), found
    lawful = FORMS[form].replace('nn', 'quantizers').replace('_mlp', 'sign')
    assert not violations(lawful, SCANS)

  @pytest.mark.parametrize(
    ('rule', 'home', 'source'),
    [
      ('floors', Home('bitjax.types'), 'from bitjax import quantizers'),
      ('floors', Home('bitjax.quantizers._a'), 'from bitjax import data'),
      ('floors', Home('bitjax.transforms', True), 'import bitjax.quantizers'),
      ('floors', Home('bitjax.data.idx'), 'from bitjax import scans'),
      ('floors', Home('bitjax.scans._view'), 'from bitjax import descent'),
      ('floors', Home('bitjax.nn._mlp'), 'from bitjax import studies'),
      ('floors', Home('bitjax.studies.a'), 'from bitjax import training'),
      ('floors', Home('bitjax.training.a'), 'from bitjax import studies'),
      ('floors', Home('bitjax', True), 'from bitjax import quantizers'),
      ('floors', Home('bitjax.types'), 'from bitjax import unheard_of'),
      ('floors', Home('bitjax.types'), 'from bitjax import tree'),
      ('floors', Home('bitjax.lanes'), 'from bitjax import tree'),
      ('floors', Home('bitjax.new_part'), 'from bitjax import types'),
      ('private', Home('bitjax.nn._mlp'), 'from bitjax.scans import _view'),
      ('private', Home('bitjax.nn._mlp'), 'import bitjax.scans._view'),
      ('private', Home('bitjax.nn._mlp'), 'from bitjax.scans._view import A'),
      ('private', Home('experiments.a'), 'from bitjax.nn import _mlp'),
      ('experiments', Home('experiments.a'), 'from experiments import b'),
      ('experiments', Home('experiments.a'), 'from . import b'),
      ('experiments', Home('experiments.a'), 'import experiments.b'),
      ('the library', Home('bitjax.studies.a'), 'import experiments.b'),
      ('the library', Home('bitjax.lanes'), 'from tests import conftest'),
      ('flax', Home('bitjax.scans._view'), 'from flax import linen'),
      ('flax', Home('bitjax.studies.a'), 'import flax.linen as nn'),
      ('only in studies', Home('bitjax.lanes'), 'def f():\n  import xarray'),
      ('only in studies', Home('bitjax.nn._mlp'), 'from absl import flags'),
      ('where they', Home('bitjax.studies.a'), 'import matplotlib.pyplot'),
      ('where they', Home('bitjax.studies.a'), 'from absl import flags'),
    ],
  )
  def test_every_rule(self, rule, home, source):
    found = violations(source, home)
    assert any(rule in line for line in found), found

  @pytest.mark.parametrize(
    ('home', 'source'),
    [
      (Home('bitjax.tree'), 'from bitjax import types'),
      (Home('bitjax.descent'), 'from bitjax import scans, transforms, tree'),
      (Home('bitjax.measures'), 'from bitjax.scans import LayerView'),
      (
        Home('bitjax.nn._mlp'),
        'from flax import linen\nfrom bitjax import scans',
      ),
      (Home('bitjax.nn', True), 'from bitjax.nn._mlp import MLP'),
      (Home('bitjax.nn', True), 'from ._mlp import MLP'),
      (Home('bitjax.scans._a'), 'from bitjax.scans import _view'),
      (Home('bitjax', True), 'from bitjax.version import __version__'),
      (Home('bitjax.studies.a'), 'def f():\n  from absl import flags'),
      (
        Home('bitjax.studies.a'),
        'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import xarray',
      ),
      (Home('experiments.a'), 'import xarray\nfrom bitjax import studies, nn'),
    ],
  )
  def test_lawful_imports(self, home, source):
    assert not violations(source, home)

  @pytest.mark.parametrize(
    'source',
    [
      'import os\nx = os.environ["A"]',
      'import os\nx = os.getenv("A")',
      'from os import environ',
      'from os import getenv as g',
      'from absl import flags\nx = flags.FLAGS.a',
    ],
  )
  def test_environment_reads(self, source):
    assert environment_reads(source)
    assert not environment_reads('import os\nx = os.path.join("a", "b")')
