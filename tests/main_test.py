"""The command ``bitjax``, and namespaces that are imported when they are used."""

import errno
import os
import pathlib
import subprocess
import sys
import tomllib
import warnings

import pytest

import bitjax
from bitjax import __main__ as command
from bitjax import cli
from bitjax import commands
from bitjax import process
from bitjax import studies

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / 'docs' / 'results'


@pytest.mark.parametrize('columns', [40, 80, 200])
@pytest.mark.parametrize('argv', [[], ['--help'], ['-h']])
def test_the_overview_names_every_study_and_its_question(
  argv, columns, capsys, monkeypatch
):
  monkeypatch.setenv('COLUMNS', str(columns))
  assert command.main(argv) == 0
  out = capsys.readouterr().out
  listed = out.partition('studies:\n')[2]
  told = [f'{name} {studies.question(name)}' for name in studies.NAMES]
  assert ' '.join(listed.split()) == ' '.join(told)
  assert max(map(len, listed.splitlines())) <= max(columns, 53)


def test_the_folder_of_programs_lists_them():
  run = (sys.executable, '-m', 'experiments')
  done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (0, '')
  assert 'usage: python -m experiments.STUDY [--preset' in done.stdout
  for name in studies.NAMES:
    assert f'\n  {name} ' in done.stdout


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('variant-ste', 'did you mean variant_ste?'),
    ('--preset=smoke', '"bitjax" lists the studies.'),
    ('toy', '"bitjax" lists the studies.'),
  ],
)
def test_an_unknown_study_is_one_line(name, words, capsys):
  assert command.main([name]) == 2
  out, err = capsys.readouterr()
  assert out == '' and err.count('\n') == 1
  assert f'there is no study {name!r}; ' in err and words in err


def test_a_study_is_run_with_its_flags(capsys):
  with pytest.raises(SystemExit) as caught:
    command.main(['variant_ste', '--help'])
  assert caught.value.code == 0
  assert 'bitjax variant_ste [--preset' in capsys.readouterr().out
  with pytest.raises(SystemExit) as caught:
    command.main(['variant_ste', '--budget=-1'])
  assert caught.value.code == 2
  assert capsys.readouterr().err == (
    'variant_ste: budget must be >= 1e-12; got -1.0.\n'
  )


def test_commands_are_those_that_are_offered():
  assert tuple(commands.COMMANDS) == command._COMMANDS


def test_status(tmp_path, capsys):
  assert command.main(['status', str(tmp_path)]) == 2
  assert 'is not the directory of a run' in capsys.readouterr().err
  assert command.main(['status']) == 2
  assert 'usage: bitjax status DIRECTORY' in capsys.readouterr().err


@pytest.mark.parametrize('argv', [[], ['findings', str(RESULTS)]])
@pytest.mark.parametrize(
  ('number', 'status', 'said'),
  [(errno.EPIPE, 141, ''), (errno.ENOSPC, 2, 'standard output: No')],
)
def test_output_that_cannot_be_written(
  monkeypatch, capsys, number, status, said, argv
):
  def write(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(sys.stdout, 'write', write)
  try:
    found = command.main(argv)
  except SystemExit as error:
    found = error.code
  err = capsys.readouterr().err
  assert found == status and said in err
  assert err.count('\n') == (status == 2)


def test_the_console_script_is_this_command():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  assert project['scripts'] == {'bitjax': 'bitjax.__main__:main'}


def test_studies_are_values():
  for name in studies.NAMES:
    study = studies.load(name)
    assert isinstance(study, cli.Study) and study.name == name
    assert study.default_preset == 'quick' and 'smoke' in study.presets


def test_namespaces_are_imported_when_they_are_used():
  program = (
    'import sys, bitjax\n'
    "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
    "assert {'quantizers', 'cli', '__version__'} <= set(dir(bitjax))\n"
    'bitjax.quantizers.sign()\n'
    "assert 'flax' not in sys.modules\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  for name in bitjax.__all__:
    assert getattr(bitjax, name) is not None
  with pytest.raises(AttributeError, match="no attribute 'quantisers'"):
    _ = bitjax.quantisers


def test_what_warns_the_user_is_one_line(monkeypatch):
  monkeypatch.setattr(warnings, 'formatwarning', warnings.formatwarning)
  process.prepare()
  told = warnings.formatwarning(
    UserWarning('a folder:\n2 images are cropped'), UserWarning, 'a.py', 3
  )
  assert told == 'warning: a folder: 2 images are cropped\n'
  told = warnings.formatwarning(
    DeprecationWarning('old'), DeprecationWarning, 'a.py', 3
  )
  assert told.startswith('a.py:3: DeprecationWarning: old')
