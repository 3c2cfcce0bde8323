"""The floors and house rules of the architecture, checked by reading imports.

`FLOORS` and `RULES` say everything; below are the parser, the checks, and one
planted violation of every form of import and of every rule.
"""

import ast
from collections.abc import Callable, Iterator
import dataclasses
import functools
import importlib
import inspect
import pathlib
import re

import pytest

from bitjax import studies

ROOT = pathlib.Path(__file__).parents[1]

# What a part of the library stands on: itself and lower floors, no more. Two towers
# stand on one ground and do not know each other; studies stand on both.
FLOORS = {
  'types': 0,
  'version': 0,
  'extras': 0,
  'files': 0,
  'process': 0,
  'tree': 0,
  'lanes': 0,
  'sizes': 0,
  'sums': 0,
  'memory': 0,
  'quantizers': 1,
  'transforms': 1,
  'data': 1,
  'packed': 1,
  'scans': 2,
  'descent': 2,
  'measures': 2,
  'nn': 3,
  'searches': 3,
  'training': 4,
  'deploy': 4,
  'evidence': 1,
  'sweeps': 1,
  'cli': 2,
  'studies': 5,
  'commands': 6,
  '__main__': 7,
}
SCIENCE = {
  'quantizers', 'transforms', 'data', 'packed', 'scans', 'descent', 'measures',
  'nn', 'searches', 'training', 'deploy',
}  # fmt: skip
WORKSHOP = {'evidence', 'sweeps', 'cli'}
# Neighbours on the ground that may be known all the same.
ALSO = {
  ('extras', 'types'),
  ('files', 'types'),
  ('tree', 'types'),
  ('lanes', 'types'),
  ('sizes', 'types'),
  ('sums', 'types'),
  ('lanes', 'memory'),
  ('memory', 'types'),
}
# What a command starts with.
BINARIES = {'cli', 'commands', 'process', 'studies'}
LISTING = ['bitjax', '__main__']
SHARED_ROOMS = {'toy', 'recipes'}
MAX_LINES = 400
MAX_STUDY = 200  # A `study.py`.
MAX_BINARY = 30


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
    return _part(self.module)

  @property
  def room(self) -> str:
    """The room of a study: ``toy`` for ``bitjax.studies.toy.moves``."""
    return _room(self.module)

  @property
  def package(self) -> str:
    return self.module if self.is_package else self.module.rpartition('.')[0]

  @property
  def in_library(self) -> bool:
    return self.module.split('.')[0] == 'bitjax'


def _part(module):
  names = module.split('.')
  return names[1] if len(names) > 1 and names[0] == 'bitjax' else ''


def _room(module):
  names = module.split('.')
  return names[2] if len(names) > 2 and _part(module) == 'studies' else ''


def _floors(home, use):
  if use.module.split('.')[0] != 'bitjax' or not home.in_library:
    return True
  other = _part(use.module)
  if home.part in ('', other):
    return home.part == other or other == 'version'
  if any(
    home.part == part and f'{use.module}.'.startswith(f'bitjax.{known}.')
    for part, known in ALSO
  ):
    return True
  if other not in FLOORS or home.part not in FLOORS:
    return False
  return FLOORS[other] < FLOORS[home.part]


def _towers(home, use):
  towers = (SCIENCE, WORKSHOP)
  other = _part(use.module)
  apart = any(
    home.part in tower and other in rival
    for tower, rival in (towers, towers[::-1])
  )
  return not apart


def _evidence(home, use):
  return home.part != 'evidence' or _part(use.module) in ('', 'evidence')


def _rooms(home, use):
  other = _room(use.module)
  if home.part != 'studies' or not other or other in ('NAMES', 'load'):
    return True
  if home.room in SHARED_ROOMS:
    return other in SHARED_ROOMS
  return other == home.room or other in SHARED_ROOMS


def _private(home, use):
  names = use.module.split('.')
  if names[0] not in ('bitjax', 'experiments'):
    return True
  for depth, name in enumerate(names):
    if name.startswith('_') and not name.startswith('__'):
      owner = '.'.join(names[:depth])
      return f'{home.package}.'.startswith(f'{owner}.')
  return True


def _binaries(home, use):
  if home.in_library and home.part != '__main__':
    return True
  parts = use.module.split('.')
  if parts[0] == 'experiments':
    return False
  # `python -m experiments` lists what stands beside it.
  if home.module == 'experiments.__main__' and parts[:2] == LISTING:
    return True
  return parts[0] != 'bitjax' or _part(use.module) in BINARIES


def _downwards(home, use):
  return not home.in_library or use.module.split('.')[0] not in (
    'experiments',
    'tests',
  )


def only_in(names: set[str], parts: set[str]):
  """These distributions are imported only in these parts."""

  def holds(home, use):
    foreign = use.module.split('.')[0] not in names
    return foreign or home.part in parts

  return holds


def lazily(names: set[str]):
  """These are imported where they are used, or for annotations."""

  def holds(home, use):
    foreign = use.module.split('.')[0] not in names
    return foreign or use.inside_function or use.type_checking

  return holds


TOOLS = {'absl', 'matplotlib', 'xarray'}
EXTRAS = {
  'tqdm', 'sklearn', 'skimage', 'mlxtend', 'pyarrow', 'PIL', 'scipy', 'grain',
  'onnx',
}  # fmt: skip
RULES: dict[str, Callable[[Home, Import], bool]] = {
  'own package and lower floors only': _floors,
  'the two towers do not know each other': _towers,
  'evidence knows nothing of bitjax': _evidence,
  'a study imports no study': _rooms,
  'private modules stay in their package': _private,
  'binaries know cli and studies only': _binaries,
  'the library knows no experiments or tests': _downwards,
  'flax only in nn and training': only_in({'flax'}, {'nn', 'training'}),
  'absl, matplotlib, xarray only in the workshop, studies and commands': only_in(
    TOOLS, {*WORKSHOP, 'studies', 'commands'}
  ),
  'absl, matplotlib, xarray and extras where they are used': lazily(
    TOOLS | EXTRAS
  ),
}
ENVIRONMENT = {'environ', 'environb', 'getenv', 'putenv', 'FLAGS'}


def imports(source: str, home: Home) -> Iterator[Import]:
  """Every module that a source imports, whatever the form."""
  yield from _imports(ast.parse(source), home, False, False)


@functools.cache
def all_imports() -> dict[Home, tuple[Import, ...]]:
  """What every source imports."""
  return {home: (*imports(text, home),) for home, text in SOURCES.items()}


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


def sources() -> dict[Home, str]:
  found = {}
  for package in ('bitjax', 'experiments'):
    for path in sorted((ROOT / package).rglob('*.py')):
      names = path.relative_to(ROOT).with_suffix('').parts
      is_package = names[-1] == '__init__'
      names = names[:-1] if is_package else names
      found[Home('.'.join(names), is_package)] = path.read_text()
  return found


SOURCES = sources()
LIBRARY = [home for home in SOURCES if home.in_library]
PUBLIC = [
  home.module
  for home in LIBRARY
  if not any(name.startswith('_') for name in home.module.split('.'))
  and home.part != 'version'  # It defines nothing but `__version__`.
]


def limit(home: Home) -> int:
  """The most lines that a file may have."""
  if not home.in_library:
    return MAX_BINARY
  return MAX_STUDY if home.module.endswith('.study') else MAX_LINES


class TestFiles:
  """Every file of the library and every binary."""

  @pytest.mark.parametrize('rule', RULES)
  def test_imports(self, rule):
    holds = RULES[rule]
    broken = [
      f'{home.module} imports {use.module}'
      for home, uses in all_imports().items()
      for use in uses
      if not holds(home, use)
    ]
    assert not broken

  def test_lengths(self):
    lines = {home: len(text.splitlines()) for home, text in SOURCES.items()}
    assert len(lines) > 100
    assert not [
      f'{home.module}: {count} lines, at most {limit(home)}'
      for home, count in lines.items()
      if count > limit(home)
    ]

  def test_every_file_says_what_it_is_for(self):
    assert not [
      home.module
      for home, source in SOURCES.items()
      if not ast.get_docstring(ast.parse(source))
    ]

  def test_flags_and_environment_are_read_in_the_workshop_and_studies(self):
    readers = {'sweeps', 'cli', 'studies'}
    assert not [
      f'{home.module}: {found}'
      for home, source in SOURCES.items()
      if home.part not in readers and (found := environment_reads(source))
    ]

  def test_every_part_has_a_floor(self):
    assert {home.part for home in LIBRARY} - {''} <= set(FLOORS)


def strays(found: set[str]) -> str:
  """Says which studies are missing in a set of names, and which names are of none."""
  missing, unknown = set(studies.NAMES) - found, found - set(studies.NAMES)
  return f'missing: {sorted(missing)}; not in NAMES: {sorted(unknown)}'


NOTHING = strays(set(studies.NAMES))


class TestStudies:
  """Every study has a room, a binary, a page and tests, and nothing is left over."""

  def test_rooms(self):
    rooms = {home.room for home in LIBRARY} - {'', *SHARED_ROOMS}
    assert strays(rooms) == NOTHING, 'bitjax/studies/<name>'

  def test_binaries(self):
    binaries = {path.stem for path in (ROOT / 'experiments').glob('*.py')}
    binaries -= {'__main__'}
    assert strays(binaries) == NOTHING, 'experiments/<name>.py'

  def test_pages(self):
    """A study's page is of its name, and lies in `docs` or `docs/studies`."""
    docs = ROOT / 'docs'
    pages = {
      path.stem: path.relative_to(docs).with_suffix('').as_posix()
      for path in [*docs.glob('*.md'), *docs.glob('studies/*.md')]
    }
    found = set(studies.NAMES) & set(pages)
    assert strays(found) == NOTHING, 'docs/studies/<name>.md'
    listed = (docs / 'index.md').read_text().split()
    found = {name for name in studies.NAMES if pages[name] in listed}
    assert strays(found) == NOTHING, 'docs/index.md'

  def test_readme(self):
    text = (ROOT / 'README.md').read_text()
    found = set(re.findall(r'^\| `bitjax (\w+)` \|', text, re.MULTILINE))
    assert strays(found) == NOTHING, 'the table of studies in README.md'

  def test_tests(self):
    folder = ROOT / 'tests' / 'studies'
    found = {
      name
      for name in studies.NAMES
      if list(folder.glob(f'{name}/*_test.py'))
      or (folder / f'{name}_test.py').is_file()
    }
    assert strays(found) == NOTHING, 'tests/studies/<name>/*_test.py'


JUDGES = {'findings', 'figure'}  # Modules that work on finished numbers only.


def leaks(source: str, home: Home) -> list[str]:
  """Uses of a room's findings and figure by what its numbers come from.

  Their code does not count as the code of the numbers (see `bitjax.sweeps.code`). So a
  `study.py` may name them in its line `STUDY = ...` only, and every other module not at
  all.
  """
  tree = ast.parse(source)
  room = f'bitjax.studies.{home.room}'
  imported = {
    use.module.removeprefix(f'{room}.').split('.')[0]
    for use in imports(source, home)
    if use.module.startswith(f'{room}.')
  } & JUDGES
  if home.module != f'{room}.study':
    return sorted(imported)
  for node in tree.body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'STUDY':
      tree.body.remove(node)
  return [
    ast.unparse(node)
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id in imported
  ]


class TestNumbers:
  """Numbers come from code that counts: not from findings or figures."""

  def test_rooms(self):
    looked = [
      home
      for home in LIBRARY
      if home.room and home.module.split('.')[-1] not in JUDGES
    ]
    assert len(looked) > 40
    assert not {
      home.module: found
      for home in looked
      if (found := leaks(SOURCES[home], home))
    }

  @pytest.mark.parametrize(
    ('name', 'source', 'found'),
    [
      ('arms', 'from bitjax.studies.a import findings', ['findings']),
      ('arms', 'from bitjax.studies.a.figure import page', ['figure']),
      ('arms', 'from bitjax.studies.a import arms', []),
      ('arms', 'from matplotlib import figure', []),
      (
        'study',
        'from bitjax.studies.a import findings\nPRESETS = findings.ARMS',
        ['findings.ARMS'],
      ),
      (
        'study',
        'from bitjax.studies.a import findings\nSTUDY = f(findings.judge)',
        [],
      ),
    ],
  )
  def test_planted(self, name, source, found):
    assert leaks(source, Home(f'bitjax.studies.a.{name}')) == found


class TestContracts:
  """`__all__` is the contract of a public module."""

  def test_public_names_resolve_and_are_documented(self):
    problems = []
    for name in PUBLIC:
      module = importlib.import_module(name)
      if module.__all__ != list(dict.fromkeys(module.__all__)):
        problems.append(f'{name}.__all__ names something twice')
      for symbol in module.__all__:
        value = getattr(module, symbol, None)
        if value is None:
          problems.append(f'{name} has no {symbol}')
        documented = inspect.isclass(value) or inspect.isfunction(value)
        if documented and not inspect.getdoc(value):
          problems.append(f'{name}.{symbol} has no docstring')
    assert not problems


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

  def test_every_form_of_import(self):
    for form, source in FORMS.items():
      found = violations(source, SCANS)
      assert any('own package and lower floors' in line for line in found), form
      lawful = source.replace('nn', 'quantizers').replace('_mlp', 'sign')
      assert not violations(lawful, SCANS), form

  @pytest.mark.parametrize(
    ('rule', 'home', 'source'),
    [
      ('floors', Home('bitjax.types'), 'from bitjax import quantizers'),
      ('floors', Home('bitjax.files'), 'from bitjax import lanes'),
      ('floors', Home('bitjax.quantizers._a'), 'from bitjax import data'),
      ('floors', Home('bitjax.transforms', True), 'import bitjax.quantizers'),
      ('floors', Home('bitjax.data.idx'), 'from bitjax import scans'),
      ('floors', Home('bitjax.scans._view'), 'from bitjax import descent'),
      ('floors', Home('bitjax.nn._mlp'), 'from bitjax import studies'),
      ('floors', Home('bitjax.training.a'), 'from bitjax import studies'),
      ('floors', Home('bitjax.sweeps.a'), 'from bitjax.cli import rundir'),
      ('floors', Home('bitjax', True), 'from bitjax import quantizers'),
      ('floors', Home('bitjax.types'), 'from bitjax import unheard_of'),
      ('floors', Home('bitjax.types'), 'from bitjax import tree'),
      ('floors', Home('bitjax.lanes'), 'from bitjax import tree'),
      ('floors', Home('bitjax.new_part'), 'from bitjax import types'),
      ('towers', Home('bitjax.nn._mlp'), 'from bitjax import evidence'),
      ('towers', Home('bitjax.training._fit'), 'from bitjax.sweeps import job'),
      ('towers', Home('bitjax.cli.flags'), 'from bitjax import quantizers'),
      ('towers', Home('bitjax.cli.flags'), 'from bitjax.data import datasets'),
      ('towers', Home('bitjax.cli.flags'), 'from bitjax.data import cached'),
      ('evidence', Home('bitjax.evidence.plots'), 'from bitjax import types'),
      ('no study', Home('bitjax.studies.a.b'), 'from bitjax.studies import c'),
      ('no study', Home('bitjax.studies.a'), 'import bitjax.studies.b.arms'),
      ('no study', Home('bitjax.studies.toy.a'), 'import bitjax.studies.dsq'),
      ('private', Home('bitjax.nn._mlp'), 'from bitjax.scans import _view'),
      ('private', Home('bitjax.nn._mlp'), 'import bitjax.scans._view'),
      ('private', Home('bitjax.nn._mlp'), 'from bitjax.scans._view import A'),
      ('private', Home('experiments.a'), 'from bitjax.nn import _mlp'),
      ('binaries', Home('experiments.a'), 'from experiments import b'),
      ('binaries', Home('experiments.a'), 'from . import b'),
      ('binaries', Home('experiments.a'), 'import experiments.b'),
      ('binaries', Home('experiments.a'), 'from bitjax import nn'),
      ('binaries', Home('bitjax.__main__'), 'from bitjax import sweeps'),
      ('the library', Home('bitjax.studies.a'), 'import experiments.b'),
      ('the library', Home('bitjax.lanes'), 'from tests import conftest'),
      ('flax', Home('bitjax.scans._view'), 'from flax import linen'),
      ('flax', Home('bitjax.studies.a'), 'import flax.linen as nn'),
      ('only in', Home('bitjax.lanes'), 'def f():\n  import xarray'),
      ('only in', Home('bitjax.nn._mlp'), 'from absl import flags'),
      ('where they', Home('bitjax.studies.a'), 'import matplotlib.pyplot'),
      ('where they', Home('bitjax.cli.a'), 'from absl import flags'),
      ('where they', Home('bitjax.evidence.a'), 'from scipy import stats'),
    ],
  )
  def test_every_rule(self, rule, home, source):
    found = violations(source, home)
    assert any(rule in line for line in found), found

  @pytest.mark.parametrize(
    ('home', 'source'),
    [
      (Home('bitjax.tree'), 'from bitjax import types'),
      (Home('bitjax.descent'), 'from bitjax import transforms, tree'),
      (
        Home('bitjax.nn._mlp'),
        'from flax import linen\nfrom bitjax import scans',
      ),
      (Home('bitjax.nn', True), 'from bitjax.nn._mlp import MLP'),
      (Home('bitjax.nn', True), 'from ._mlp import MLP'),
      (Home('bitjax.scans._a'), 'from bitjax.scans import _view'),
      (Home('bitjax', True), 'from bitjax.version import __version__'),
      (Home('bitjax.sweeps.a'), 'from bitjax import files, lanes, types'),
      (Home('bitjax.cli.a'), 'def f():\n  from absl import flags'),
      (
        Home('bitjax.studies.a'),
        'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import xarray',
      ),
      (Home('bitjax.studies.a.b'), 'from bitjax.studies.a import c'),
      (Home('bitjax.studies.a'), 'from bitjax.studies import toy, recipes'),
      (Home('bitjax.studies.a'), 'from bitjax import training, evidence, cli'),
      (
        Home('experiments.a'),
        'from bitjax import cli\nfrom bitjax.studies import a',
      ),
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

  def test_long_files(self):
    assert limit(Home('experiments.a')) == 30
    assert limit(Home('bitjax.studies.a.study')) == 200
    assert limit(Home('bitjax.studies.a.arms')) == limit(Home('bitjax.types'))
