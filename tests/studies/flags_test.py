"""Every flag of every study at extreme values: refused in one line, or in range.

The studies really run, from flags to the first thing that they would compute, which
these tests replace.
"""

import re

import jax
import numpy as np
import pytest

from bitjax import cli
from bitjax import data
from bitjax import studies
from bitjax import training
from bitjax import types
from bitjax.cli import command
from bitjax.cli import flags
from bitjax.data import layouts
from bitjax.studies import estimator_gallery
from bitjax.studies.benchmark import estimators
from bitjax.studies.scaling import timings
from bitjax.studies.super_resolution import trainings
from bitjax.studies.toy import problem
from bitjax.studies.train_superres import trainings as one_training

REFUSED, ACCEPTED = 2, 130
HUGE = '9' * 30
INTS = (
  '-1', '0', '-0', '1', '+1', '007', '3000', '2147483647', '2147483648',
  '4294967296', HUGE, '-' + HUGE, '9' * 5000, '1_000', '\u0663', '\u00b2', '1.5',
  '1e3', '', 'nan', '0x10', 'true',
)  # fmt: skip
REALS = (
  '0', '-0', '1', '-1', '1e-308', '1e-46', '1e-39', '1e-38', '1e-6', '1e6',
  '1e38', '3.5e38', '1e39', '1e308', '1e400', '-1e400', 'nan', 'inf', '-inf',
  '1_0', '\u0660.\u0665', '', 'x', '0.99999999999', '1.00000000001', HUGE,
)  # fmt: skip
LISTS = ('', ',', '1,1', '2,,3', '0.5,0.5', '5:5', '5:0', '0:100000000000')
GRIDS = (
  'log:0:1:3', 'lin:1e-46:1:3', 'log:1e-3:1:99999999999', 'log:1e-3:1:\u0663',
  'lin:0:1:1', '0.1,0.10000000001', 'lin:1:1e39:3', 'log:1e-3:1:3',
)  # fmt: skip
TEXTS = (
  'nonsense',
  '',
  '\u00e4',
  'n' * 5000,
  'lanes:\u00b2',
  'lanes:0',
  'batch:2',
)
VALUES = {
  'INT': INTS,
  'NUMBER': REALS,
  'BOOL': ('maybe', '', '2'),
  'NAME': TEXTS,
  'INT,...': INTS + LISTS,
  'NUMBER,...': REALS + LISTS,
  'NAME,...': (*TEXTS, ',', 'a,a'),
  'GRID': REALS + GRIDS,
}


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
  """Whatever would compute first ends the command as an interrupt does."""

  def interrupt(*args, **kwargs):
    raise KeyboardInterrupt

  for owner, name in (
    (problem, 'draw_trials'),
    (training.Recipe, 'phases'),
    (estimators, 'overheads'),
    (timings, 'soak'),
    (trainings, 'compare'),
    (one_training, 'train'),
    (estimator_gallery, 'panels'),
  ):
    monkeypatch.setattr(owner, name, interrupt)


@pytest.mark.parametrize(
  'every',
  [
    pytest.param(False, marks=pytest.mark.study),
    pytest.param(True, marks=pytest.mark.slow),
  ],
)
@pytest.mark.parametrize('name', studies.NAMES)
def test_extreme_values_are_refused_in_one_line_or_in_range(
  name, every, tmp_path, capsys
):
  """Of the values of a flag in range, the first is launched, or every one."""
  study, out = studies.load(name), tmp_path / 'run'
  for field in flags.fields(study.config):
    launched = False
    for value in VALUES[field.kind.placeholder]:
      argv = ['--preset=smoke', f'--out={out}', f'--{field.name}={value}']
      try:
        config = command.parse(study, argv).config
      except types.BadInput as error:
        assert str(error) and '\n' not in str(error), argv
        continue
      in_range(field, getattr(config, field.name))
      if every or not launched:
        refused_or_accepted(study, argv, tmp_path, capsys)
      launched = True


@pytest.mark.parametrize(
  'field', [f for f in command.SHARED.values() if f.name != 'out']
)
def test_extreme_values_of_shared_flags(field, tmp_path, capsys):
  jax.devices()  # A mesh may split the CPU before the backends start.
  study = studies.load('estimator_gallery')
  for value in VALUES[field.kind.placeholder]:
    argv = ['--preset=smoke', f'--{field.name}={value}']
    argv.append(f'--out={tmp_path / "run"}')
    refused_or_accepted(study, argv, tmp_path, capsys)


def refused_or_accepted(study, argv, tmp_path, capsys):
  """Runs a command: whatever becomes of it, nothing is written."""
  status = cli.launch(study, argv)
  said, lines = capsys.readouterr()
  assert status in (REFUSED, ACCEPTED), argv
  assert not said and not list(tmp_path.iterdir()), argv
  if status == REFUSED:
    assert lines.startswith(f'{study.name}: '), argv
    assert lines.count('\n') == 1, lines


def in_range(field, value):
  """Checks a value as arrays see it, without the code that refuses others."""
  if field.kind.number is None or value is None:
    return
  elements = np.array(field.kind.elements(value))
  if field.kind.number is int:
    stored = elements.astype(np.int64)
    assert np.all(np.abs(stored) < 2**31)
  else:
    stored = elements.astype(np.float32)
    tiny = np.finfo(np.float32).tiny
    assert np.all(np.isfinite(stored)), (field.name, value)
    assert np.all((elements == 0) | (np.abs(stored) >= tiny)), field.name
    assert len(np.unique(stored)) == len(stored) or not field.limits.unique
  limits = field.limits
  assert limits.minimum is None or np.all(elements >= limits.minimum)
  assert limits.maximum is None or np.all(elements <= limits.maximum)
  for low in filter(lambda x: x is not None, [limits.exclusive_minimum]):
    assert np.all(stored > low), (field.name, value)
  for high in filter(lambda x: x is not None, [limits.exclusive_maximum]):
    assert np.all(stored < high), (field.name, value)


CROSSED = {
  'multistep_ste': {
    ('--draws=3', '--noise=0'): 'draws=3 needs a noise besides 0',
    ('--draws=2147483647',): 'draws is too large: the run holds at least',
    ('--num_steps=2147483647',): 'num_steps is too large: the run holds at',
    ('--hidden=46000,46700,16',): 'hidden gives the network 2151891360',
    ('--budget=1e-13',): 'budget must be >= 1e-12; got 1e-13',
    ('--networks=binary,binary',): 'networks lists binary twice',
  },
  'discrete_gradient': {
    ('--more_balls=l2:1e39',): 'a radius from 1e-12 to 1e+12',
    ('--more_balls=l2:0.1',): 'the ball l2:0.1 is listed twice',
    ('--more_balls=l2:1e-1',): 'the ball l2:1e-1 is listed twice',
    ('--anchor=start',): 'unknown flag --anchor',
    ('--networks=binary',): 'unknown flag --networks',
    ('--num_rounds=2,1',): 'num_rounds must grow',
    ('--augment=shift',): 'unknown flag --augment',
  },
  'discrete_optimum': {
    ('--anchor=start',): 'unknown flag --anchor',
    ('--batch_size=32,64',): 'batch_size takes at most 1 value; got 2',
    ('--augment=shift',): 'unknown flag --augment',
    (
      '--batch_size=1000',
    ): 'Use data with more examples, or a batch of at most 898.',
    ('--hidden=3,7',): '1 to 20 weights between them',
  },
  'variant_ste': {
    ('--anchor=start',): 'unknown flag --anchor',
    ('--augment=shift',): 'can only be trained on what two batches leave over',
    ('--num_groups=3',): 'num_groups must divide the batch size, 64; got 3',
    (
      '--half_widths=0.5,0.50000000001',
    ): 'half_widths lists 0.50000000001 twice',
  },
  'train_cifar': {
    ('--epochs=1e30',): 'epochs must be at most 27889398 with these batches',
    ('--average=0.99999999999',): 'average must be < 1, also in float32',
    ('--seeds=4294967296',): 'seeds must be <= 2147483647; got 4294967296',
  },
  'benchmark': {
    ('--timed_rates=101',): 'timed_rates must be at most rates, 100; got 101',
    ('--images=2147483647',): 'images is too large: the run holds at least',
  },
  'super_resolution': {
    ('--arms=1 bit',): 'arms must list "1 bit with block shortcut"',
    ('--seeds=1000',): 'no seed in common; both list 1000',
  },
  'train_superres': {
    ('--milestones=0.7,0.2',): 'milestones must grow within (0, 1)',
    ('--quantized=tail',): 'needs a quantizer of kernels or of inputs',
    ('--epochs=1e30',): 'epochs must give from 1 to 2147483647 updates',
  },
  'scaling': {
    ('--lanes=0',): 'lanes must be >= 1; got 0',
    ('--large=2147483647',): 'large is too large: the run holds at least',
  },
}


@pytest.mark.parametrize('name', CROSSED)
def test_flags_that_do_not_go_together(name, refused):
  for argv, words in CROSSED[name].items():
    refused(studies.load(name), ['--preset=smoke', *argv], words)


@pytest.mark.parametrize('name', studies.NAMES)
def test_hints_about_data_are_true(name):
  study = studies.load(name)
  if 'dataset' not in {field.name for field in flags.fields(study.config)}:
    return
  # The docstring speaks of data without files only where its first command uses them.
  used = command.parse(study, []).config.dataset
  free = {name for name in data.DATASETS if name not in layouts.FILES}
  assert set(re.findall(r'\w+', study.doc)) & free <= {used}
  field = next(f for f in flags.fields(study.config) if f.name == 'dataset')
  told = re.findall(r'\w+', field.limits.help.partition('y_test.')[2])
  assert used in free and used in told


def test_the_data_sets_without_files_are_all_told():
  free = {name for name in data.DATASETS if name not in layouts.FILES}
  assert free <= set(
    re.findall(r'\w+', data.DESCRIPTION.partition('y_test.')[2])
  )
  with pytest.raises(types.BadInput) as caught:
    data.load('cifar10')
  assert free <= set(re.findall(r'\w+', str(caught.value)))
