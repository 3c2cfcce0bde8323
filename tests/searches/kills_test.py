"""A search that is killed with SIGKILL, and goes on, ends in the same bits."""

import pathlib
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.study

PROGRAM = pathlib.Path(__file__).with_name('kills.py')


def run(*arguments):
  return subprocess.run(
    [sys.executable, str(PROGRAM), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize(
  'name',
  ['anneal', 'evolve', 'bop', 'admm', 'parq', 'proxquant', 'perturb'],
)
def test_a_killed_search_ends_as_if_it_had_not_been(name, tmp_path):
  (tmp_path / 'whole').mkdir()
  whole = run(tmp_path / 'whole', name)
  assert whole.returncode == 0, whole.stderr
  for number in (1, 3):  # Before any state was saved, and later.
    folder = tmp_path / f'{number}'
    folder.mkdir()
    killed = run(folder, name, number)
    assert killed.returncode == -signal.SIGKILL and not killed.stdout
    assert (folder / name).exists() == (number > 1)
    again = run(folder, name)
    assert again.returncode == 0, again.stderr
    assert again.stdout == whole.stdout != ''
