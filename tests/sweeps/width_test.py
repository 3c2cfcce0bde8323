"""Sweeps on an accelerator vectorise as many lanes as the memory budget holds."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from bitjax import memory
from bitjax import sweeps
from bitjax import types
from bitjax.sweeps import compute

LANES = {'seed': np.arange(5), 'rate': np.float32([0.1, 0.2, 0.3, 0.4])}
BATCH = np.cos(np.arange(10_000, dtype=np.float32)).reshape(100, 100)
SMALL = '300KB'  # Room for a few lanes.
SHARED = {'batch': BATCH}


def lane(seed, rate, batch, size=1):
  """Takes at least 40 kB to sort the product, ``size`` times."""
  wide = jnp.concatenate([batch] * size)
  product = jnp.sin(rate * wide + seed) @ batch
  return {'curve': jnp.sort(product, axis=0)[len(batch) // 2]}


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
  """Takes this machine's CPU for a GPU."""
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')


def run(directory=None, fn=lane, limit=SMALL, **options):
  given = {
    k: options.pop(k) for k in ('width', 'chunk', 'report') if k in options
  }
  sweep = sweeps.Sweep(directory, **given)
  options = {'lanes': LANES, 'shared': SHARED} | options
  with memory.limited(limit):
    return sweep(fn, name='s', dims={'curve': ('column',)}, **options)


def manifest(directory):
  return json.loads((directory / 'chunks' / 's' / 'manifest.json').read_text())


@pytest.mark.parametrize('limit', ['1GiB', SMALL])
def test_the_budget_decides_and_is_remembered(limit, tmp_path, capsys):
  found = run(tmp_path, limit=limit, report=True)
  kept = manifest(tmp_path)
  assert kept['memory'] == memory.parse(limit)
  width = kept['width']
  assert width == 20 if limit == '1GiB' else 1 < width < 10
  said = capsys.readouterr().err
  assert f's: {width} of 20 lanes at a time, which takes ' in said
  for seed in LANES['seed']:
    want = np.sin(0.2 * BATCH.astype(float) + seed) @ BATCH
    one = found.curve.sel(seed=seed, rate=np.float32(0.2))
    np.testing.assert_allclose(one, np.sort(want, axis=0)[50], atol=1e-4)


def test_a_resumed_sweep_goes_on_as_it_began(tmp_path, capsys):
  whole = run(tmp_path, chunk=10)
  path = next(tmp_path.glob('chunks/s/0-1.*.npz'))
  kept, content = manifest(tmp_path), path.read_bytes()
  assert kept['width'] < 10
  path.unlink()
  found = run(tmp_path, chunk=10, limit='1GiB', report=True)
  assert (
    f's: goes on as it began, 10 lanes in a chunk, {kept["width"]} vectorised, '
    'with 293 KiB'
  ) in capsys.readouterr().err
  assert path.read_bytes() == content and manifest(tmp_path) == kept
  xarray.testing.assert_identical(found, whole)


def test_without_its_manifest_chunks_are_used_again(tmp_path):
  run(tmp_path)
  kept = manifest(tmp_path)
  (tmp_path / 'chunks' / 's' / 'manifest.json').unlink()
  run(tmp_path)
  assert manifest(tmp_path) == kept


def test_the_largest_program_decides(tmp_path):
  run(tmp_path / 'one')
  run(tmp_path / 'both', static={'size': (1, 2)})
  widths = [manifest(tmp_path / name)['width'] for name in ('one', 'both')]
  assert 1 <= widths[1] < widths[0]


def test_what_was_measured_too_small_is_narrowed(tmp_path, monkeypatch):
  """The program that runs has the last word, not that of one lane."""
  monkeypatch.setattr(compute.Task, 'fitting', lambda task, combination: 20)
  run(tmp_path)
  assert manifest(tmp_path)['width'] in (5, 2)


def test_a_width_that_was_asked_for_is_obeyed(tmp_path, capsys):
  run(tmp_path, width=20, report=True)
  assert manifest(tmp_path)['width'] == 20
  assert 'a smaller --width takes less' in capsys.readouterr().err


@pytest.mark.parametrize('width', [None, 1])
@pytest.mark.parametrize('backend', ['gpu', 'cpu'])
def test_a_lane_that_does_not_fit_is_refused_first(
  width, backend, tmp_path, monkeypatch
):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  with pytest.raises(
    types.BadInput, match=r"of the sweep 's'|one lane of 20"
  ) as caught:
    run(tmp_path / 'run', limit='60KB', width=width)
  said = str(caught.value)
  assert isinstance(caught.value, memory.Exceeded)
  assert 'one program may take 58.6 KiB' in said and '\n' not in said
  # With the width left open, nothing is written; else no numbers are.
  written = sorted(path.name for path in tmp_path.rglob('*') if path.is_file())
  left_open = backend == 'gpu' and width is None
  assert written == ([] if left_open else ['code.json', 'manifest.json'])


@pytest.mark.parametrize('width', [None, 1])
def test_more_memory_is_a_way_out(width, tmp_path, monkeypatch):
  """A sweep that was refused, or killed before its first chunk, binds nothing."""
  monkeypatch.setattr(
    compute.Task, 'fitting', lambda task, combination: width or 20
  )
  with pytest.raises(memory.Exceeded):
    run(tmp_path, limit='60KB', width=width)
  run(tmp_path, limit='1GiB', width=width)
  assert manifest(tmp_path)['memory'] == 2**30
  assert manifest(tmp_path)['width'] == (width or 20)


def test_a_training_is_not_held_to_a_budget(tmp_path, capsys):
  def train(size, seed, **_):
    if memory.budget() < size:
      raise memory.Exceeded('too much')
    return {'a': seed}

  def begin(limit):
    with memory.limited(limit):
      return sweeps.Sweep(tmp_path).hosted(
        train, name='s', static={'size': [1, 9]}, lanes={'seed': np.arange(2)}
      )

  with pytest.raises(memory.Exceeded):
    begin(5)
  assert begin(10).a.shape == (2, 2)
  assert manifest(tmp_path)['memory'] is None
  assert 'as it began' not in capsys.readouterr().err


def test_programs_are_gone_when_their_blocks_are_done(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
  client = jax.devices()[0].client
  held, dropped = [], compute.Task.drop

  def drop(task, combination):
    dropped(task, combination)
    held.append(len(client.live_executables()))

  monkeypatch.setattr(compute.Task, 'drop', drop)
  run(static={'size': (1, 2, 3)}, limit='1GiB')
  assert [more - held[-1] for more in held] == [2, 1, 0]
