"""Which checkpoints are kept and loaded, and how models are described."""

import os

import jax
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import training
from bitjax import types
from bitjax.studies import recipes
from bitjax.training import _archive
from bitjax.training import _checkpoints
from bitjax.training import _rows


def saved(tiny, task, folder, accuracies):
  """Saves a checkpoint for each accuracy; a bias holds the number of its step."""
  state = tiny.start(task, 0)
  keeper = _checkpoints.Checkpoints(folder)
  for step, accuracy in enumerate(accuracies, 1):
    params = dict(state.params)
    params['Dense_1'] = params['Dense_1'] | {
      'bias': np.full((1, 3), step, np.float32)
    }
    now = state._replace(step=np.array([step], np.int32), params=params)
    keeper.save(now, {'phase': '0'}, accuracy)
  assert keeper.description() == {'phase': '0'}


def which(folder, name):
  variables = training.load_variables(folder, which=name)
  return variables['params']['Dense_1']['bias'][0]


@pytest.mark.parametrize(
  ('accuracies', 'latest', 'best', 'kept'),
  [
    ([0.2, 0.9, 0.5], 3, 2, {'2', '3'}),
    ([0.2, 0.9, None, None], 4, 2, {'2', '4'}),
    ([0.9, 0.2, 0.95], 3, 3, {'3'}),
    ([None, 0.0, None], 3, 2, {'2', '3'}),
  ],
)
def test_latest_and_best(tiny, task, tmp_path, accuracies, latest, best, kept):
  saved(tiny, task, tmp_path, accuracies)
  assert which(tmp_path, 'latest') == latest
  assert which(tmp_path, 'best') == best
  assert {path.name for path in tmp_path.iterdir()} == kept


def test_the_best_survives_a_restart(tiny, task, tmp_path):
  saved(tiny, task, tmp_path, [0.2, 0.9])
  keeper = _checkpoints.Checkpoints(tmp_path)
  state = tiny.start(task, 0)
  for step, accuracy in ((3, None), (4, 0.3)):
    keeper.save(state._replace(step=np.array([step], np.int32)), {}, accuracy)
  assert which(tmp_path, 'best') == 2


@pytest.mark.slow
def test_the_best_of_a_training_is_that_of_its_history(tiny, task, tmp_path):
  fitted = tiny.train(task, tmp_path, seeds=(7, 3), period=2)
  scores = fitted.history['validation_accuracy'].mean(axis=1)
  assert np.unique(scores).size > 1
  best = {
    int(fitted.history['step'][row])
    for row in np.flatnonzero(np.isclose(scores, scores.max()))
  }
  steps = {int(path.name) for path in (tmp_path / 'checkpoints').iterdir()}
  assert len(steps) <= 2 and tiny.STEPS in steps and steps & best
  state = fitted.state
  for seed, folder in ((0, tmp_path), (1, tmp_path / 'checkpoints')):
    found = training.load_variables(folder, seed=seed)
    assert set(found) == {'params', 'batch_stats'}
    np.testing.assert_array_equal(
      found['params']['Block_0']['kernel'],
      state.params['Block_0']['kernel'][seed],
    )
    np.testing.assert_array_equal(
      found['batch_stats']['BatchNorm_0']['mean'],
      state.collections['batch_stats']['BatchNorm_0']['mean'][seed],
    )


@pytest.mark.parametrize(
  ('where', 'value'),
  [('params', np.nan), ('collections', np.inf), ('accuracy', np.nan)],
)
def test_the_best_is_finite(tiny, task, tmp_path, where, value):
  """Whatever the accuracy of a network that diverged is said to be."""
  state = tiny.start(task, 0)
  keeper = _checkpoints.Checkpoints(tmp_path)
  for step, accuracy in ((1, 0.1), (2, 0.9), (3, 0.2)):
    now = state._replace(step=np.array([step], np.int32))
    if step == 2 and where == 'accuracy':
      accuracy = value
    elif step == 2:
      tree = jax.tree.map(np.array, getattr(now, where))
      jax.tree.leaves(tree)[-1].reshape(-1)[0] = value
      now = now._replace(**{where: tree})
    keeper.save(now, {}, accuracy)
    best = training.load_variables(tmp_path, which='best')
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(best))
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'3'}  # 0.2 is better than 0.1; 2 was never a candidate.


def test_a_loss_that_is_not_finite_is_never_the_best(
  tiny, task, tmp_path, monkeypatch
):
  """Not even if its variables, and so its accuracy, are finite."""
  row_of = _rows.train_row

  def row(task, state):
    return row_of(task, state) | {'train_loss': np.full(1, np.inf, np.float32)}

  monkeypatch.setattr(_rows, 'train_row', row)
  fitted = tiny.train(task, tmp_path)
  assert np.isnan(fitted.history['validation_accuracy']).all()
  with pytest.raises(types.BadInput, match='holds no best checkpoint'):
    which(tmp_path, 'best')


def test_nothing_is_best_if_everything_diverged(tiny, task, tmp_path):
  saved(tiny, task, tmp_path, [np.nan, np.nan])
  assert which(tmp_path, 'latest') == 2
  with pytest.raises(types.BadInput, match='none has a validation accuracy'):
    training.load_variables(tmp_path, which='best')


class TestFolders:
  """A folder is tried before anything is trained in it."""

  def refused(self, tiny, task, folder, words):
    report = tiny.Stop(0, lambda: pytest.fail('it trained'))
    with pytest.raises(types.BadInput, match=words) as caught:
      tiny.train(task, folder, report=report)
    assert '\n' not in str(caught.value) and not report.calls

  def test_home(self, tiny, task, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tiny.train(task, '~/x', until=2)
    assert {path.name for path in tmp_path.iterdir()} == {'x'}
    assert (tmp_path / 'x' / 'history.jsonl').is_file()
    training.load_variables('~/x')
    self.refused(
      tiny,
      task,
      '~nobody-of-that-name/x',
      'the home directory of ~nobody-of-that-name is not known',
    )

  def test_files(self, tiny, task, tmp_path):
    (tmp_path / 'file').write_text('')
    self.refused(tiny, task, tmp_path / 'file' / 'x', 'Not a directory')
    self.refused(tiny, task, tmp_path / 'file', 'cannot hold checkpoints')

  @pytest.mark.parametrize('name', ['replace', 'fsync'])
  def test_file_systems(self, tiny, task, tmp_path, monkeypatch, name):
    def fail(*_, **__):
      raise OSError(95, 'Operation not supported')

    monkeypatch.setattr(os, name, fail)
    self.refused(tiny, task, tmp_path, 'cannot hold .*Operation not supported')

  def test_metadata_that_cannot_be_written(
    self, tiny, task, tmp_path, monkeypatch
  ):
    def fail(*_, **__):
      raise ValueError('no metadata here')

    monkeypatch.setattr(_archive.ocp, 'save', fail)
    self.refused(tiny, task, tmp_path, 'no metadata here')

  def test_nothing_is_left(self, tiny, task, tmp_path):
    keeper = _checkpoints.Checkpoints(tmp_path / 'a' / 'b')
    keeper.check()
    assert not list((tmp_path / 'a' / 'b').iterdir())


class TestBadFolders:
  """`load_variables` says what is missing."""

  def test_none(self, tmp_path):
    with pytest.raises(types.BadInput, match='nowhere is not a folder with'):
      training.load_variables(tmp_path / 'nowhere')
    file = tmp_path / 'file'
    file.write_text('a')
    with pytest.raises(types.BadInput, match='file is not a folder with'):
      training.load_variables(file)

  def test_empty(self, tmp_path):
    for name in ('latest', 'best'):
      with pytest.raises(types.BadInput, match=f'holds no {name} checkpoint'):
        training.load_variables(tmp_path, which=name)
    (tmp_path / 'notes.txt').write_text('a')
    (tmp_path / 'plots').mkdir()
    with pytest.raises(types.BadInput, match='holds no latest checkpoint'):
      training.load_variables(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'notes.txt', 'plots'}

  def test_folders_that_are_no_checkpoints(self, tmp_path):
    (tmp_path / '7').mkdir()
    (tmp_path / '7' / 'data').write_text('a')
    with pytest.raises(types.BadInput, match=r'holds no .*checkpoint'):
      training.load_variables(tmp_path)

  def test_which(self, tiny, task, tmp_path):
    saved(tiny, task, tmp_path, [None])
    with pytest.raises(
      types.BadInput, match='which must be one of latest, best'
    ):
      training.load_variables(tmp_path, which='last')
    with pytest.raises(types.BadInput, match='holds no best checkpoint'):
      training.load_variables(tmp_path, which='best')
    with pytest.raises(types.BadInput, match=r'seed must be in \[0, 1\)'):
      training.load_variables(tmp_path, seed=1)
    with pytest.raises(types.BadInput, match='holds no moving average'):
      training.load_variables(tmp_path, average=True)


def test_descriptions_tell_quantizers_apart(tiny):
  sign = quantizers.sign()
  made = [
    *(recipes.WEIGHTS[name].quantizer for name in recipes.WEIGHTS),
    *recipes.ACTIVATIONS.values(),
    quantizers.attach(sign, quantizers.window(0.5)),
    quantizers.attach(sign, quantizers.dsq(0.1)),
    quantizers.learned_dsq(2, alpha=0.9, alpha_end=0.05),
    quantizers.learned_dsq(2, alpha=0.9, alpha_end=0.05, step='hardtanh'),
    quantizers.lsq(2, offset=True),
    quantizers.pact(3),
  ]
  found = [
    training.describe(tiny.Net(weights=quantizer))['weights']
    for quantizer in made
  ]
  for text in found:
    assert '0x' not in text and len(text) < 1000
  # Only equal quantizers may have the same description.
  same = {}
  for quantizer, text in zip(made, found, strict=True):
    same.setdefault(text, []).append(quantizer)
  twins = [group for group in same.values() if len(group) > 1]
  for group in twins:
    assert len({str(q) for q in group}) == 1, group


def test_descriptions_are_of_all_fields(tiny):
  from bitjax import nn

  found = training.describe(nn.resnet20(variant='bireal', init_name='xavier'))
  assert found['model'] == 'ResNet'
  assert found['variant'] == 'bireal' and found['init_name'] == 'xavier'
  assert found['stages'] == '(3, 3, 3)' and found['kernel_quantizer'] == 'None'
  assert not {'parent', 'name'} & set(found)
  assert all(isinstance(text, str) for text in found.values())
