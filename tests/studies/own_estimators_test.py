"""Estimators of one's own beside the built-in ones, in every study that compares them."""

import json
import sys

import pytest

from bitjax import cli
from bitjax.cli import command
from bitjax.studies import dsq
from bitjax.studies import fitted_windows
from bitjax.studies import local_optima
from bitjax.studies import train_cifar
from bitjax.studies import variant_ste
from bitjax.studies.recipes import zoo
from bitjax.studies.variant_ste import families
from bitjax.sweeps import code

NAME = 'own_file:triangle(0.5, power=1)'
SOURCE = """
import jax
import jax.numpy as jnp

def triangle(half_width, power=1):
  return jax.tree_util.Partial(_triangle, half_width)

def _triangle(half_width, g, x, x_q, progress):
  return g * jnp.maximum(0, 1 - jnp.abs(x) / half_width)
"""
STUDIES = {
  'variant_ste': (variant_ste.STUDY, 'estimators', ()),
  'local_optima': (local_optima.STUDY, 'estimators', ('normal',)),
  'dsq': (dsq.STUDY, 'arms', ('clipped identity', 'falling', 'fixed 0.2')),
  'fitted_windows': (
    fitted_windows.STUDY,
    'arms',
    ('relative Gaussian', 'window 1'),
  ),
  'weights': (train_cifar.STUDY, 'weights', ()),
  'activations': (train_cifar.STUDY, 'activations', ()),
}
every_study = pytest.mark.parametrize('name', STUDIES)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  (tmp_path / 'own_file.py').write_text(SOURCE)
  yield
  sys.modules.pop('own_file', None)


def flag(field, known, name=NAME):
  return f'--{field}={",".join((*known, name))}'


@every_study
def test_a_list_keeps_the_commas_of_arguments(name):
  study, field, known = STUDIES[name]
  argv = ['--preset=smoke', flag(field, known)]
  value = getattr(command.parse(study, argv).config, field)
  assert value == (NAME if isinstance(value, str) else (*known, NAME))


@every_study
def test_one_line_for_what_is_wrong(name, refused):
  study, field, known = STUDIES[name]
  wrong = flag(field, known, 'own_file:triangle(0.5, 1, 2)')
  refused(study, ['--preset=smoke', wrong], 'positional arguments but 3')


def test_without_a_module_the_known_ones_are_listed(refused):
  flags = ['--preset=smoke', '--estimators=triangle(0.5)']
  refused(local_optima.STUDY, flags, 'ReSTE, DSQ or MODULE:FACTORY(ARGUMENTS)')
  refused(variant_ste.STUDY, flags, 'must have the form MODULE:FACTORY')


def test_it_is_named_as_it_was_written_and_its_source_counts():
  last = families.variants((), (), 1, (NAME,))[-1]
  assert last.name == NAME
  assert last.activation.args == (0.5,)
  assert zoo.weights_of(NAME).bits == 1
  own = code.Code(script=False)
  before = own.record()
  assert 'own_file' in before['sources']
  sys.modules.pop('own_file')
  with open('own_file.py', 'a') as file:
    file.write('\nMORE = 1\n')
  zoo.weights_of(NAME)
  assert code.Code(script=False).changes(before) == ['own_file']


@pytest.mark.slow
@every_study
def test_from_flags_to_figure(name, tmp_path):
  study, field, known = STUDIES[name]
  out = tmp_path / 'run'
  argv = ['--preset=smoke', f'--out={out}', flag(field, known)]
  assert cli.launch(study, argv) == 0
  assert NAME in (out / 'verdicts.json').read_text()
  recorded = [json.loads(p.read_text()) for p in out.rglob('code.json')]
  assert recorded and all('own_file' in str(each) for each in recorded)
  assert (out / 'figure.png').stat().st_size
