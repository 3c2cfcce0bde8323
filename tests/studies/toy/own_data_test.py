"""A file of one's own as the data of a study: recorded facts, bad input."""

import numpy as np
import pytest

from bitjax import data
from bitjax import studies
from bitjax import sweeps
from bitjax.studies import recipes
from bitjax.studies import toy


@pytest.fixture
def path(tmp_path):
  rng = np.random.default_rng(0)
  arrays = {}
  for part, size in (('train', 60), ('test', 20)):
    arrays[f'x_{part}'] = rng.random((size, 6, 5), np.float32)
    arrays[f'y_{part}'] = rng.permutation(np.arange(size) % 4)
  np.savez(tmp_path / 'mine.npz', **arrays)
  return tmp_path / 'mine.npz'


def test_a_toy_study_records_the_checksum_of_a_file(path):
  sweep = sweeps.Sweep()
  problems = toy.Config(dataset=str(path), batch_size=(40,)).open(sweep)
  assert sweep.records['data_checksum'] == data.load(path).checksum
  assert sweep.records['data_examples'] == 80
  model = problems.model('binary')
  assert (model.num_classes, model.input_scale) == (4, 1 / 255)


def test_a_training_records_the_checksums_of_a_file(path):
  sweep = sweeps.Sweep()
  config = recipes.TrainConfig(
    dataset=str(path), batch_size=8, validation_examples=8
  )
  parts = config.open(sweep)
  for split in ('train', 'test'):
    checksum = data.load(path, split=split).checksum
    assert sweep.records[f'{split}_checksum'] == checksum
  assert [len(part.labels) for part in parts] == [52, 8, 20]


@pytest.mark.parametrize('name', ['multistep_ste', 'train_cifar'])
@pytest.mark.parametrize(
  ('dataset', 'words'),
  [('/nowhere/mine.npz', 'No such file'), ('mine.csv', 'or a file NAME.npz')],
)
def test_bad_data_is_one_line(refused, name, dataset, words):
  refused(studies.load(name), [f'--dataset={dataset}'], words)
