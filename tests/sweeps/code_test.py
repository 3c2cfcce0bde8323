"""The code that numbers come from: what counts, and what is a change."""

import importlib
import importlib.util
import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import sweeps
from bitjax.sweeps import chunks
from bitjax.sweeps import code
from bitjax.sweeps import origin

SOURCE = '''"""A module."""

LIMIT = 3


def scale(x):
  """Doubles."""
  # A comment.
  return 2 * x


class Box:
  """Holds."""
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
  """Writes and imports a module outside every package; returns how to do so."""
  monkeypatch.syspath_prepend(tmp_path)
  # Two versions of a file in one second may share a compiled file.
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)

  def write(text, name='some_code', load=True):
    (tmp_path / f'{name}.py').write_text(text)
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name) if load else None

  yield write
  for name in ('some_code', 'late_code'):
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
  ('edit', 'counts'),
  [
    (lambda text: text.replace('Doubles.', 'Doubles x.'), False),
    (lambda text: text.replace('"""A module."""\n', ''), False),
    (lambda text: text.replace('  """Holds."""', '  pass'), True),
    (lambda text: text.replace('# A comment.', '# Another.'), False),
    (lambda text: text.replace('2 * x', '(2\n    * x)'), False),
    (lambda text: text.replace('2 * x', '2.0 * x'), True),
    (lambda text: text.replace('2 * x', 'x * 2'), True),
    (lambda text: text.replace('LIMIT = 3', 'LIMIT = 4'), True),
    (lambda text: text + '\n\nscale = abs\n', True),
    (lambda text: text.replace('def scale(x)', 'def scale(x, /)'), True),
    (lambda text: text.replace('def scale(', 'def scale(('), True),
  ],
)
def test_what_is_a_change(module, edit, counts):
  module(SOURCE)
  then = json.loads(json.dumps(code.Code().record()))
  assert code.Code().changes(then) == []
  assert edit(SOURCE) != SOURCE
  module(edit(SOURCE), load=False)
  sys.modules.pop('some_code', None)  # It will be loaded later, or never.
  assert code.Code().changes(then) == (['some_code'] if counts else [])


def test_what_counts(module):
  module(SOURCE)
  found = code.Code().sources()
  assert {'some_code', 'bitjax.lanes', 'bitjax.sweeps.compute'} <= set(found)
  strangers = ('jax', 'numpy', 'json', 'pytest', '_pytest', 'scipy', 'xarray')
  assert not [name for name in found if name.split('.')[0] in strangers]
  assert 'bitjax.sweeps.progress' not in found
  assert 'some_code' not in code.Code(['some_code']).sources()
  assert 'bitjax.lanes' not in code.Code(['bitjax.lanes']).sources()
  # A prefix of a name is not a package.
  assert 'bitjax.lanes' in code.Code(['bitjax.lan']).sources()


def test_the_script_counts_if_it_is_the_users(module, monkeypatch):
  monkeypatch.setitem(sys.modules, '__main__', module(SOURCE))
  monkeypatch.setitem(sys.modules, '__mp_main__', sys.modules['__main__'])
  assert '__main__' in code.Code().sources()
  assert '__mp_main__' not in code.Code().sources()
  assert '__main__' not in code.Code(script=False).sources()


def test_lazy_imports_count_and_edits_of_loaded_code_do_not(module):
  module(SOURCE)
  ours = code.Code()
  before = ours.sources()
  module(SOURCE, 'late_code')
  module(SOURCE.replace('2 * x', '3 * x'), load=False)
  after = ours.sources()
  assert set(after) - set(before) == {'late_code'}
  assert after['some_code'] == before['some_code']


def test_modules_that_are_gone_and_versions_are_named(module, tmp_path):
  module(SOURCE)
  then = code.Code().record()
  sys.modules.pop('some_code')
  (tmp_path / 'some_code.py').unlink()
  importlib.invalidate_caches()
  then['environment'] = then['environment'] | {'optax': '0.0.1', 'device': 'X'}
  now = code.environment()
  assert code.Code().changes(then) == [
    f'optax 0.0.1 (now {now["optax"]})',
    f'device X (now {now["device"]})',
    'some_code',
  ]
  assert code.Code().changes(None) == ['code that was not recorded']
  many = [f'm{i}' for i in range(5)]
  assert origin.listed(many) == 'm0, m1, m2 and 2 more'
  assert origin.listed(many[:3]) == 'm0, m1, m2'


# Of Python 3.11. Later versions add fields to nodes, which are empty here.
TREE = '1150c754ff5950ba'


def test_all_versions_of_python_write_a_tree_alike(module):
  module(
    SOURCE + "\n\nasync def f(*args: int, x=1): yield f'{LIMIT:>{2}} {x!r}'\n"
  )
  assert code.Code().sources()['some_code'][1] == TREE


def program(folder, fn, mesh=None):
  """Returns the digest of the program that a chunk of a sweep names."""
  lanes = {'x': np.arange(4, dtype=np.float32)}
  sweeps.Sweep(folder, mesh=mesh)(fn, name='s', lanes=lanes)
  (path,) = folder.glob('chunks/s/*.npz')
  return chunks.header(path)['code']


def double(x):
  return {'a': x * 2.0}


def another_text(x):
  factor = sum((1.0, 1.0))
  result = x * factor
  return {'a': result}


def closing(constant):
  return lambda x: {'a': jnp.sum(x + jnp.asarray(constant, jnp.float32))}


@pytest.mark.parametrize(
  ('one', 'other', 'same'),
  [
    (double, another_text, True),
    (double, lambda x: {'a': x * 3.0}, False),
    (double, lambda x: {'a': jnp.where(x > 9, x, x * 2.0)}, False),
    (closing(np.ones((9, 9))), closing(np.ones((9, 9))), True),
    (closing(np.ones((9, 9))), closing(np.eye(9)), False),
    # XLA's text might leave out the middle of large constants.
    (closing(np.ones((200, 200))), closing(np.arange(200) != 100), False),
    (closing(np.ones(300)), closing(np.arange(300) != 150), False),
  ],
)
def test_the_program_of_a_chunk(one, other, same, tmp_path):
  digests = [
    program(tmp_path / name, fn) for name, fn in (('1', one), ('2', other))
  ]
  assert (digests[0] == digests[1]) is same
  assert len(digests[0]) == 64


def test_what_only_judges_reach_does_not_count(tmp_path, monkeypatch):
  """Lazy imports count, and a package's own file only if the package is imported."""
  sources = {
    '__init__': 'from room_of_tests import package_wide',
    'package_wide': '',
    'study': 'from room_of_tests import arms, findings',
    'arms': 'def run():\n  from . import lazy\n',
    'lazy': 'import json',
    'shared': '',
    'findings': 'from room_of_tests import outcomes\nfrom .shared import nothing',
    'outcomes': 'from room_of_tests import lazy, intervals',
    'intervals': 'import xmlrpc.client',
  }
  folder = tmp_path / 'room_of_tests'
  folder.mkdir()
  for name, source in sources.items():
    (folder / f'{name}.py').write_text(source)
  monkeypatch.syspath_prepend(tmp_path)

  def names(*without):
    found = code.only_for(['room_of_tests.findings'], ['room_of_tests.study'])
    return {name.removeprefix('room_of_tests.') for name in found} - {*without}

  monkeypatch.delitem(sys.modules, 'xmlrpc', raising=False)
  assert names() == {'findings', 'outcomes', 'intervals', 'shared'}
  assert 'xmlrpc' not in sys.modules  # What is installed is not even imported.
  (folder / 'lazy.py').write_text('import room_of_tests.shared')
  assert names() == {'findings', 'outcomes', 'intervals'}
  (folder / 'arms.py').write_text('import room_of_tests.outcomes as o')
  assert names() == {'findings'}


def test_verdicts_do_not_count_as_code_of_the_numbers():
  room = 'bitjax.studies.dsq'
  judges = [f'{room}.findings', f'{room}.figure']
  found = code.only_for(judges, [f'{room}.study'])
  assert 'bitjax.evidence.contrasts' in found
  assert 'bitjax.evidence.intervals' in found
  assert not found & {'bitjax.evidence.protocols', f'{room}.arms'}
  # Studies compute with it, and judges alone use what its package exports.
  counts = code.Code([*found, 'bitjax.evidence']).sources()
  assert 'bitjax.evidence.protocols' in counts
  assert not counts.keys() & {'bitjax.evidence', 'bitjax.evidence.contrasts'}


@pytest.mark.parametrize('started', ['as a script', 'with -m', 'unknown'])
def test_what_a_script_and_its_judges_share_counts(
  started, tmp_path, monkeypatch
):
  for name, source in {
    'script_of_tests': 'import maths_of_tests, judge_of_tests',
    'judge_of_tests': 'import maths_of_tests, more_of_tests',
    'maths_of_tests': '',
    'more_of_tests': '',
  }.items():
    (tmp_path / f'{name}.py').write_text(source)
  monkeypatch.syspath_prepend(tmp_path)
  script = types.ModuleType('__main__')
  if started == 'as a script':
    script.__file__ = str(tmp_path / 'script_of_tests.py')
  if started == 'with -m':
    script.__spec__ = importlib.util.find_spec('script_of_tests')
  monkeypatch.setitem(sys.modules, '__main__', script)
  found = code.only_for(['judge_of_tests'], ['__main__'])
  more = {'more_of_tests'} if started != 'unknown' else set()
  assert found == {'judge_of_tests'} | more
