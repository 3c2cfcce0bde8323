"""A training that was stopped goes on to the same end, bit for bit."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from bitjax import searches
from bitjax import training
from bitjax import transforms
from bitjax import types
from bitjax.training import _checkpoints

HERE = pathlib.Path(__file__).parent
FILES = ('history.jsonl', 'history.csv')


def stop():
  raise KeyboardInterrupt


def equal(same, fitted, folder, whole):
  wanted, kept = whole
  assert same(fitted.state, wanted.state)
  assert same(fitted.history, wanted.history)
  for name in FILES:
    assert (folder / name).read_text() == (kept / name).read_text()


@pytest.mark.parametrize('chunks', [1, 4, 6])  # Of 8 chunks.
def test_interrupted(tiny, task, whole, same, tmp_path, chunks):
  report = tiny.Stop(chunks, stop)
  with pytest.raises(KeyboardInterrupt):
    tiny.train(task, tmp_path, report=report)
  assert len(report.calls) == chunks + 1
  report = tiny.Stop(100, stop)
  again = tiny.train(task, tmp_path, report=report)
  total, done = report.calls[0]
  assert total == 52 and done == {1: 8, 4: 28, 6: 40}[chunks]
  assert sum(images for images, _ in report.calls[1:]) == total - done
  equal(same, again, tmp_path, whole)


@pytest.mark.slow
def test_perturbed_and_interrupted(tiny, same, tmp_path):
  def flip(key, params):
    return jax.tree.map(lambda w: searches.flip_signs(w, key, 1), params)

  def train(folder=None, report=None, every=5):
    perturbing = transforms.perturb(flip, every, jax.random.key(0))
    task = tiny.task(tx=optax.chain(optax.sgd(0.02), perturbing))
    return tiny.train(task, folder, seeds=(3, 4), report=report)

  whole = train()
  with pytest.raises(KeyboardInterrupt):
    train(tmp_path, tiny.Stop(4, stop))
  again = train(tmp_path)
  assert same(again.state, whole.state) and same(again.history, whole.history)
  # Every seed draws its own flips, from the same start too.
  first, second = optax.tree.get(whole.state.opt_state, 'count')
  assert first == second == tiny.STEPS


@pytest.mark.slow
def test_stopped_again_and_again(tiny, task, whole, same, tmp_path):
  for _ in range(7):
    with pytest.raises(KeyboardInterrupt):
      tiny.train(task, tmp_path, report=tiny.Stop(1, stop))
  equal(same, tiny.train(task, tmp_path), tmp_path, whole)


@pytest.mark.study
def test_killed(tiny, task, whole, same, tmp_path):
  """Sends SIGKILL to a process of its own, in the middle of an epoch."""
  environment = os.environ | {
    'PYTHONPATH': str(HERE.parents[1]),
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
  }
  done = subprocess.run(
    [sys.executable, str(HERE / 'tiny.py'), str(tmp_path), '5'],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr
  rows = (tmp_path / 'history.jsonl').read_text().splitlines()
  assert len(rows) == 1
  equal(same, tiny.train(task, tmp_path), tmp_path, whole)


@pytest.mark.parametrize(
  'few',
  [
    pytest.param('few', marks=pytest.mark.study),
    pytest.param('', marks=pytest.mark.slow),
  ],
)
def test_killed_at_any_operation_on_a_file(tmp_path, few):
  """Half-written and half-deleted checkpoints and logs do not change the end."""
  done = subprocess.run(
    [sys.executable, str(HERE / 'kills.py'), str(tmp_path), *[few][: len(few)]],
    env=os.environ | {'PYTHONPATH': str(HERE.parents[1])},
    capture_output=True,
    text=True,
    check=False,
  )
  assert not done.returncode, done.stderr
  found = json.loads(done.stdout)
  number = 2 if few else len(found['operations'])
  assert len(found['ends']) == number
  assert all(end == [True, True] for end in found['ends'].values()), found
  assert {'open', 'os.rename', 'os.remove', 'os.rmdir', 'os.mkdir'} == {
    event for event, _ in found['operations']
  }


def test_killed_while_a_checkpoint_is_written(
  tiny, task, whole, same, tmp_path
):
  """A checkpoint to which Orbax has not given its final name is removed."""
  tiny.train(task, tmp_path, until=5)
  kept = tmp_path / 'checkpoints'
  half = kept / '7.orbax-checkpoint-tmp'
  shutil.copytree(kept / '5', half)
  largest = max(half.rglob('*'), key=lambda path: path.stat().st_size)
  largest.write_bytes(b'')
  equal(same, tiny.train(task, tmp_path), tmp_path, whole)
  names = {path.name for path in kept.iterdir()}
  assert half.name not in names and '13' in names


def test_killed_between_a_row_and_its_checkpoint(
  tiny, task, whole, same, tmp_path, monkeypatch
):
  save = _checkpoints.Checkpoints.save

  def fail(self, state, description, **options):
    if int(state.step[0]) == 10:
      raise OSError('the disk is full')
    save(self, state, description, **options)

  with monkeypatch.context() as patched:
    patched.setattr(_checkpoints.Checkpoints, 'save', fail)
    with pytest.raises(OSError, match='full'):
      tiny.train(task, tmp_path)
  text = (tmp_path / 'history.jsonl').read_text()
  assert text.count('\n') == 2  # The second is beyond the checkpoint.
  with pytest.raises(KeyboardInterrupt):
    tiny.train(task, tmp_path, report=tiny.Stop(0, stop))
  assert (tmp_path / 'history.jsonl').read_text() == text  # Row 2 is as before.
  equal(same, tiny.train(task, tmp_path), tmp_path, whole)


def test_what_is_finished_is_not_trained_again(tiny, task, whole, same):
  """Nor written, so that it can be read where nothing can be written."""
  wanted, folder = whole

  def written():
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}

  before = written()
  report = tiny.Stop(100, stop)
  fitted = tiny.train(task, folder, report=report)
  assert written() == before
  assert (report.calls, report.compiled) == ([(52, 52)], [])
  assert same(fitted.state, wanted.state)
  assert same(fitted.history, wanted.history)


class TestOther:
  """Another training is refused in the folder, which stays as it is."""

  @pytest.fixture(autouse=True)
  def kept(self, whole, tmp_path):
    """Checks that a test writes nothing to the folder."""
    files = sorted(whole[1].rglob('*'))
    before = [(path, path.stat().st_mtime_ns) for path in files]
    yield
    files = sorted(whole[1].rglob('*'))
    assert [(path, path.stat().st_mtime_ns) for path in files] == before

  @pytest.mark.parametrize(
    ('change', 'message'),
    [
      ({'width': 5}, r'has width = 6, this training 5; name another folder'),
      ({'weights': None}, r'has weights = .*Step.*, this training None'),
      ({'scaling': 'none'}, 'has scaling = mean_abs, this training none'),
      (
        {'inputs': 'window'},
        r'has inputs = .*, this training .*_window\(0.5, ',
      ),
    ],
  )
  def test_models(self, tiny, whole, change, message):
    from bitjax import quantizers

    if 'inputs' in change:
      change = {
        'inputs': quantizers.attach(quantizers.sign(), quantizers.window(0.5))
      }
    with pytest.raises(types.BadInput, match=message):
      tiny.train(tiny.task(tiny.Net(**change)), whole[1])

  def test_optimizers(self, tiny, whole):
    tx = training.optimizer('sgd', 0.02)
    with pytest.raises(
      types.BadInput, match=r'does not fit: opt_state/.*/trace/.* absent found'
    ):
      tiny.train(tiny.task(tx=tx), whole[1])

  def test_averages(self, tiny, whole):
    with pytest.raises(
      types.BadInput, match=r'does not fit: average/.* wanted, absent found'
    ):
      tiny.train(tiny.task(average=0.9), whole[1])

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      ({'seeds': (4,)}, r'has seeds = \(3,\), this training \(4,\)'),
      ({'seeds': (3, 4)}, r'has seeds = \(3,\), this training \(3, 4\)'),
      ({'rates': (0.5,)}, r'has rates = None, this training \(0.5,\)'),
    ],
  )
  def test_seeds(self, tiny, task, whole, options, message):
    with pytest.raises(types.BadInput, match=message):
      tiny.train(task, whole[1], **options)


def test_states_are_whole(tiny, task, whole):
  """A loaded state has the structure, types, shapes and keys of the saved one."""
  fitted, folder = whole
  keeper = _checkpoints.Checkpoints(folder / 'checkpoints')
  shapes = jax.eval_shape(lambda: fitted.state)
  state = keeper.restore(shapes, keeper.description())
  assert jax.tree.structure(state) == jax.tree.structure(fitted.state)
  for a, b in zip(
    jax.tree.leaves(state), jax.tree.leaves(fitted.state), strict=True
  ):
    assert a.dtype == b.dtype and a.shape == b.shape
  np.testing.assert_array_equal(
    jax.random.key_data(state.key), jax.random.key_data(fitted.state.key)
  )
