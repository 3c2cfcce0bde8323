"""A study of one's own data: an .npz file from the flag to the recorded facts."""

import json

import numpy as np
import pytest

from bitjax import cli
from bitjax import data
from bitjax import studies


def test_a_study_runs_on_a_file_and_records_its_checksum(tmp_path, capsys):
  rng = np.random.default_rng(0)
  sizes = {'train': 60, 'test': 20}
  arrays = {}
  for part, size in sizes.items():
    arrays[f'x_{part}'] = rng.random((size, 6, 5), np.float32)
    arrays[f'y_{part}'] = rng.permutation(np.arange(size)[:, None] % 4)
  path = tmp_path / 'mine.npz'
  np.savez(path, **arrays)
  out = tmp_path / 'run'
  flags = ['--preset=smoke', f'--dataset={path}', f'--out={out}']
  study = studies.load('discrete_optimum')
  assert cli.launch(study, flags) == 0, capsys.readouterr().err
  config = json.loads((out / 'config.json').read_text())
  assert config['records']['data_checksum'] == data.load(path).checksum
  assert config['records']['data_examples'] == 80
  assert json.loads((out / 'verdicts.json').read_text())


@pytest.mark.parametrize('name', ['multistep_ste', 'train_cifar'])
@pytest.mark.parametrize(
  ('dataset', 'words'),
  [('/nowhere/mine.npz', 'No such file'), ('mine.csv', 'or a file NAME.npz')],
)
def test_bad_data_is_one_line(refused, name, dataset, words):
  refused(studies.load(name), [f'--dataset={dataset}'], words)
