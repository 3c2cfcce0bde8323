"""Estimators by name: built in, in units of the spread, and one's own."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import __main__ as command
from bitjax import quantizers
from bitjax import types
from bitjax.commands.report_card import config as config_lib
from bitjax.commands.report_card import names

SOURCE = """
import jax.numpy as jnp

def triangle(g, x, x_q, progress):
  return g * jnp.maximum(0, 1 - jnp.abs(x))

def summed(g, x, x_q, progress):
  return jnp.sum(g)

def rooted(g, x, x_q, progress):
  return g / jnp.sqrt(jnp.abs(x))

def late(g, x, x_q, progress):
  return g / (1 - progress)

def python(g, x, x_q, progress):
  return g if x.sum() > 0 else 2 * g

def squeezed(g, x, x_q, progress):
  return jnp.squeeze(g)

def of_rows(g, x, x_q, progress):
  examples, units = x.shape
  return g / units
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  (tmp_path / 'own_rules.py').write_text(SOURCE)
  yield
  sys.modules.pop('own_rules', None)


G, X = jax.random.normal(jax.random.key(0), (2, 50, 3))


def passed(estimator):
  x_q = jnp.where(X >= 0, 1.0, -1.0)
  return np.asarray(estimator(G, X, x_q, 0.5))


@pytest.mark.parametrize(
  ('text', 'made'),
  [
    ('window(1)', quantizers.window(1)),
    ('window(0.5, gain=2)', quantizers.window(0.5, 2)),
    ('window(0.5, 2, relative)', quantizers.relative(quantizers.window(0.5, 2))),
    ('gaussian(0.3,relative)', quantizers.relative(quantizers.gaussian(0.3))),
    ('gaussian(relative, sigma=.3)', quantizers.relative(quantizers.gaussian(0.3))),
    ('identity', quantizers.identity()),
    ('polynomial()', quantizers.polynomial()),
  ],
)  # fmt: skip
def test_what_a_name_makes(text, made):
  np.testing.assert_array_equal(passed(names.make(text)), passed(made))


def test_a_plain_function_of_ones_own():
  found = passed(names.make('own_rules:triangle'))
  wanted = np.asarray(G) * np.maximum(0, 1 - np.abs(np.asarray(X)))
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  assert names.module('own_rules:triangle') == 'own_rules'
  assert names.module('window(1)') is None


def test_the_built_in_ones_are_all_there_is():
  written = {name.partition('(')[0] for name in names.BUILT_IN}
  assert written == set(names.factories())
  assert names.BUILT_IN[0] == names.REFERENCE
  for name in names.BUILT_IN:
    assert callable(names.make(name))  # It has been tried.


def test_equal_estimators_have_one_name():
  for text, name in (
    ('window', 'window(1)'),
    (' window( 1.0 ) ', 'window(1)'),
    ('window(half_width=0.5)', 'window(0.5)'),
    ('gaussian(relative, sigma=0.3)', 'gaussian(0.3,relative)'),
    ('gaussian( 0.3000001, relative)', 'gaussian(0.3000001,relative)'),
    ('window(0.5, gain=2)', 'window(0.5,gain=2)'),
    (' own_rules:triangle', 'own_rules:triangle'),
  ):
    assert names.plain(text) == name
    np.testing.assert_array_equal(
      passed(names.make(text)), passed(names.make(name))
    )
  assert [*map(names.plain, names.BUILT_IN)] == [*names.BUILT_IN]
  asked = ('window', 'window(0.5, 1)', 'window(half_width=0.5)')
  chosen = config_lib.Config(estimators=asked).chosen
  assert chosen == ('window(1)', 'window(0.5)')


def test_what_images_would_break_is_tried_beforehand():
  names.make('own_rules:of_rows')
  asked = {'estimators': ('own_rules:of_rows',)}
  config_lib.Config(**asked)
  with pytest.raises(
    types.BadInput, match=r'x of shape \(2, 4, 4, 3\): ValueError'
  ):
    config_lib.Config(**asked, data_dir='somewhere')


def test_files_have_names_of_their_own():
  others = ['m:f(1)', 'm:f(-1)', 'm:f(.1)', 'M:f(1)', 'window( 1)', 'index']
  slugs = [names.slug(name).lower() for name in [*names.BUILT_IN, *others]]
  assert len(set(slugs)) == len(slugs) and 'index' not in slugs
  assert all(set(slug) <= set('abcdefghijklmnopqrstuvwxyz0123456789.-') for slug in slugs)  # fmt: skip
  assert names.slug('gaussian(0.3,relative)') == 'gaussian-0.3-relative'
  assert len(names.slug('m:f(' + '1, ' * 400 + ')')) < 100


BAD = [
  ('windw(1)', 'there is no estimator windw; did you mean window?'),
  ('sign()', 'there is no estimator sign; '),
  ('window(', 'must have the form FACTORY(ARGUMENTS) or MODULE:FUNCTION'),
  ('3', 'must have the form'),
  ('window(0)', "'window(0)': half_width must be > 0"),
  ('window(1,relativ)', 'or once the word relative'),
  ('window(1,relative,relative)', 'or once the word relative'),
  ('gaussian(0,relative)', "'gaussian(0,relative)': sigma must be > 0"),
  ('no_module:f', 'there is no module no_module'),
  ('own_rules:circle', 'own_rules has no circle'),
  ('own_rules:triangle(1)', 'missing 3 required'),
  ('own_rules:summed', 'array of the shape of x; for (3, 2) it returns shape ()'),
  ('own_rules:rooted', 'for g = 2, x = 0 and progress 0 it returns inf'),
  ('own_rules:late', 'progress 1 it returns'),
  ('own_rules:python', 'TracerBoolConversionError'),
  ('own_rules:squeezed', 'shape of x; for (4, 1) it returns shape (4,)'),
  ('relative(window(1))', 'the word relative is an argument, as in gaussian'),
  ('triangle', 'your own is written MODULE:FUNCTION'),
]  # fmt: skip


@pytest.mark.parametrize(('text', 'words'), BAD)
def test_what_is_no_estimator(text, words):
  with pytest.raises(types.BadInput) as info:
    names.make(text)
  assert words in str(info.value) and '\n' not in str(info.value)


def refused(capsys, argv, words):
  assert command.main(['report_card', *argv]) == 2
  out, err = capsys.readouterr()
  assert out == '' and err.count('\n') == 1 and words in err, err
  assert err.startswith('bitjax report_card: ')


@pytest.mark.parametrize(('text', 'words'), BAD[::4])
def test_the_command_says_so_in_one_line(text, words, tmp_path, capsys):
  out = tmp_path / 'cards'
  flag = f'--estimators=window(0.5),{text}'
  refused(capsys, [flag, f'--out={out}'], words)
  assert not out.exists()


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--balls=l3:1'], 'a ball is written norm:radius'),
    (['--parts=3'], 'parts must divide the largest batch size, 1024'),
    (['--tuning_seeds=1000'], 'tuning_seeds must list two seeds at least'),
    (['--tuning_seeds=0,1'], 'no seed in common'),
    (['--batch_size=4096'], 'Two batches of 4096 leave none'),
    (['--estimators=window(1),window(1)'], 'lists window(1) twice'),
    (['--estimator=window(1)'], 'did you mean --estimators?'),
    (['--preset=slow'], 'valid presets: smoke, quick'),
    (['--coordinator_address=auto'], 'made by one process'),
    (['--data_dir=nowhere'], 'nowhere'),
  ],
)  # fmt: skip
def test_other_bad_input(flags, words, tmp_path, capsys):
  out = tmp_path / 'cards'
  refused(capsys, [*flags, f'--out={out}'], words)
  assert not out.exists()


def test_a_directory_that_cannot_be_written(tmp_path, capsys):
  (tmp_path / 'file').write_text('x')
  for out in ('file', 'file/cards'):
    argv = ['--estimators=window(1)', f'--out={tmp_path / out}']
    refused(capsys, argv, 'file is a file; choose another --out.')
  assert (tmp_path / 'file').read_text() == 'x'


def test_help(capsys):
  assert command.main(['report_card', '--help']) == 0
  text = capsys.readouterr().out
  assert 'bitjax report_card [--preset=NAME]' in text
  assert 'index.html' in text and 'results.csv' not in text
