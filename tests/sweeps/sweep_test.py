"""Sweeps against a Python loop; what is traced, saved, loaded and refused."""

from __future__ import annotations

import itertools
import pathlib
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from bitjax import sweeps
from bitjax import types
from bitjax.cli import results

STATIC = {'kind': ('sin', 'cos')}
POWERS = {'power': (1, 2)}
LANES = {
  'seed': np.arange(3),
  'rate': np.array([0.1, 0.25, 0.5, 0.75], np.float32),
}
SHARED = {'batch': np.linspace(0, 1, 6, dtype=np.float32)}
DIMS = {'curve': ('step',)}


class Function:
  """Counts how often it is traced."""

  def __init__(self, offset=0.0):
    self.traces = []
    self.offset = offset

  def __call__(self, kind, seed, rate, batch, power=1):
    self.traces.append((kind, power))
    wave = {'sin': jnp.sin, 'cos': jnp.cos, 'tan': jnp.tan}[kind]
    noise = jnp.cos(7.0 * seed + jnp.arange(2.0))
    curve = wave(rate * batch.sum()) ** power + noise
    return {
      'curve': curve + self.offset,
      'sign': jnp.sum(curve > 0),
      'best': curve.max() > 0.5,
    }


@pytest.fixture
def uncompiled(monkeypatch):
  """Forbids to compile; what is on the disk is traced, to compare programs."""

  def forbidden(*_, **__):
    raise AssertionError('compiled')

  return lambda: monkeypatch.setattr(jax.stages.Lowered, 'compile', forbidden)


def files(directory, block='*'):
  return sorted(directory.glob(f'chunks/*/{block}.*.npz'))


def call(sweep, fn, **changed):
  options = {'static': STATIC, 'lanes': LANES, 'shared': SHARED, 'dims': DIMS}
  options |= {'name': 'waves', 'coords': {'step': [10, 20]}} | changed
  return sweep(fn, **options)


@pytest.mark.parametrize(
  'chunk, width', [(None, None), (1, None), (5, 2), (7, 12)]
)
def test_equals_a_loop_and_names_every_axis(chunk, width):
  fn = Function()
  static = STATIC | POWERS
  sweep = sweeps.Sweep(chunk=chunk, width=width)
  found = call(sweep, fn, static=static)
  assert fn.traces == list(itertools.product(*static.values()))
  assert found.curve.dims == ('kind', 'power', 'seed', 'rate', 'step')
  assert found.sign.dims == ('kind', 'power', 'seed', 'rate')
  assert found.best.dtype == bool
  assert found.attrs['diverged'] == 0
  np.testing.assert_array_equal(found.step, [10, 20])
  for kind, power in itertools.product(*static.values()):
    for seed, rate in itertools.product(*LANES.values()):
      expected = fn(kind, seed, rate, SHARED['batch'], power)
      point = found.sel(kind=kind, power=power, seed=seed, rate=rate)
      np.testing.assert_allclose(point.curve, expected['curve'], rtol=1e-5)
      assert point.sign == expected['sign']


def test_result_does_not_depend_on_the_chunk():
  one = call(sweeps.Sweep(chunk=1), Function())
  for chunk in (5, 12, 100):
    xarray.testing.assert_identical(
      one, call(sweeps.Sweep(chunk=chunk), Function())
    )


def test_blocks_are_even_and_within_the_chunk():
  from bitjax.sweeps import plan

  def sizes(num, chunk, width=None):
    lanes = {'seed': np.arange(num)}
    made = plan.make('a', {}, lanes, chunk=chunk, width=width)
    return made.block_size, [block.size for block in made.blocks]

  assert sizes(65, 64) == (33, [33, 32])
  assert sizes(10, 64) == (10, [10])
  assert sizes(10, 4) == (4, [4, 4, 2])
  assert sizes(10, 5, 4) == (4, [4, 4, 2])
  assert sizes(9, 8, 4) == (8, [8, 1])
  assert sizes(3, 2, 8) == (2, [2, 1])


def test_a_finished_sweep_compiles_nothing(tmp_path, uncompiled):
  first = call(sweeps.Sweep(tmp_path, chunk=5), Function())
  assert len(files(tmp_path)) == 2 * 3
  uncompiled()
  fn = Function()
  again = call(sweeps.Sweep(tmp_path, chunk=5), fn)
  xarray.testing.assert_identical(first, again)
  assert fn.traces == [
    ('sin', 1),
    ('cos', 1),
  ]  # Once each, to compare programs.


def test_what_a_function_closes_over_counts(tmp_path):
  """No source has changed, as in a notebook, or with another file of data."""

  def run(factor, **options):
    fn = lambda x: {'a': factor * x}
    return sweeps.Sweep(tmp_path, **options)(
      fn, name='s', lanes={'x': np.arange(3.0)}
    )

  run(2.0)
  np.testing.assert_array_equal(run(2.0).a, [0, 2, 4])
  message = "3 of 3 lanes of 's' come from other code"
  with pytest.raises(types.BadInput, match=message):
    run(3.0)
  assert run(3.0, accept_other_code=True).a[1] == 2


def test_a_weak_scalar_is_the_same_again(tmp_path):
  def run():
    return sweeps.Sweep(tmp_path)(
      lambda x, scale: {'a': scale * x},
      name='s',
      lanes={'x': np.arange(2, dtype=np.float16)},
      shared={'scale': 3.0},
    )

  xarray.testing.assert_identical(run(), run())


@pytest.mark.parametrize('damage', ['truncated', 'flipped', 'empty', 'pickle'])
def test_a_damaged_chunk_is_computed_again(
  tmp_path, damage, capsys, uncompiled
):
  first = call(sweeps.Sweep(tmp_path, chunk=5), Function())
  (path,) = files(tmp_path, '1-1')
  whole = path.read_bytes()
  if damage == 'truncated':
    path.write_bytes(whole[: len(whole) // 2])
  elif damage == 'empty':
    path.write_bytes(b'')
  elif damage == 'pickle':
    np.savez(path, header=np.array({'a': 1}, dtype=object))
  else:
    content = bytearray(whole)
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))
  fn = Function()
  again = call(sweeps.Sweep(tmp_path, chunk=5), fn)
  xarray.testing.assert_identical(first, again)
  assert fn.traces == [('sin', 1), ('cos', 1)]
  err = capsys.readouterr().err
  assert err.count('\n') == 1
  assert f'{path} is damaged' in err and err.endswith('; computed again\n')
  assert files(tmp_path, '1-1') == [path]
  uncompiled()
  call(sweeps.Sweep(tmp_path, chunk=5), Function())


def test_every_corrupted_byte_is_noticed(tmp_path):
  lanes, fn = {'seed': [0, 1]}, lambda seed: {'a': seed * 2.0}
  sweeps.Sweep(tmp_path)(fn, name='b', lanes=lanes)
  (path,) = files(tmp_path)
  whole = path.read_bytes()
  from bitjax.sweeps import chunks
  from bitjax.sweeps import plan

  made = plan.make('b', {}, lanes, chunk=64, width=None)
  store = chunks.Store(tmp_path, made, chunks.digest({}))
  store.refresh()
  outputs, _ = store.load(made.blocks[0])
  np.testing.assert_array_equal(outputs['a'], [0, 2])
  for position in range(0, len(whole), 3):
    content = bytearray(whole)
    content[position] ^= 0x55
    path.write_bytes(bytes(content))
    with pytest.raises(chunks.Damaged, match='its checksum differs'):
      store.load(made.blocks[0])


@pytest.mark.parametrize(
  'changed, traced',
  [
    ({'lanes': LANES | {'seed': np.arange(1, 4)}}, 2),
    ({'lanes': LANES | {'rate': LANES['rate'].astype(np.float16)}}, 2),
    ({'static': {'kind': ('sin', 'tan')}}, 2),
    ({'shared': {'batch': SHARED['batch'] + 1}}, 2),
  ],
)
def test_chunks_of_another_sweep_are_not_used(
  tmp_path, changed, traced, capsys
):
  call(sweeps.Sweep(tmp_path), Function(), chunk=5)
  fn = Function()
  options = {'chunk': 5} | changed
  found = call(sweeps.Sweep(tmp_path), fn, **options)
  assert len(fn.traces) == traced
  err = capsys.readouterr().err
  assert err.count('waves holds other lanes; computed again\n') == 1
  expected = call(sweeps.Sweep(), Function(), **options)
  xarray.testing.assert_identical(found, expected)


def test_chunks_with_other_outputs_are_not_used(tmp_path):
  def call_with(fn, **options):
    return sweeps.Sweep(tmp_path, **options)(
      fn, name='c', static={'kind': ('x', 'y')}, lanes={'seed': [0, 1]}
    )

  call_with(lambda kind, seed: {'a': seed})
  (path,) = files(tmp_path, '1-0')
  path.unlink()
  other = lambda kind, seed: {'b': seed + 1.0}
  with pytest.raises(types.BadInput, match='come from other code'):
    call_with(other)
  with pytest.raises(types.BadInput, match='hold other outputs, so that they'):
    call_with(other, accept_other_code=True)


def test_diverged_lanes_are_kept_counted_and_alone(capsys):
  def fn(seed, rate, scale):
    bad = jnp.where(seed == 1, jnp.nan, 1.0) * rate
    return {
      'loss': jnp.stack([bad, rate]),
      'gain': jnp.where(rate > 2, jnp.inf, rate) * scale,
      'flips': seed,
    }

  found = sweeps.Sweep(chunk=2)(
    fn,
    name='d',
    lanes={'seed': [0, 1, 2], 'rate': [1.0, 2.0, 3.0]},
    shared={'scale': np.float32(2)},
    dims={'loss': ('step',)},
  )
  assert found.attrs['diverged'] == 5
  assert found.loss.attrs['diverged'] == 3
  assert found.gain.attrs['diverged'] == 3
  assert 'diverged' not in found.flips.attrs
  np.testing.assert_array_equal(
    found.loss.sel(seed=2), [[1, 1], [2, 2], [3, 3]]
  )
  assert np.isnan(found.loss.sel(seed=1, step=0)).all()
  assert capsys.readouterr().err == (
    'd: 5 of 9 lanes have outputs that are not finite (gain 3, loss 3)\n'
  )


def test_shared_pytrees_and_small_floats():
  params = {'kernel': np.ones((2, 3), np.float32), 'scale': 2.0}

  def fn(seed, params, key):
    total = params['kernel'].sum() * params['scale'] + seed
    half = total.astype(jnp.bfloat16)
    draw = jax.random.uniform(jax.random.fold_in(key, seed))
    return {'half': half, 'draw': draw}

  found = sweeps.Sweep()(
    fn,
    name='e',
    lanes={'seed': [0, 1]},
    shared={'params': params, 'key': jax.random.key(0)},
  )
  assert found.half.dtype == np.float32
  np.testing.assert_array_equal(found.half, [12, 13])


def test_records_come_first():
  sweep = sweeps.Sweep()
  sweep.record(checksum='a', size=(1, 2))
  assert sweep.records == {'checksum': 'a', 'size': [1, 2]}
  with pytest.raises(TypeError):
    sweep.record(array=np.zeros(2))
  sweep(lambda seed: {'a': seed}, name='f', lanes={'seed': [0]})
  with pytest.raises(RuntimeError, match='before the first sweep'):
    sweep.record(more=1)


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'name': 'a/b'}, 'named by letters'),
    ({'name': '..'}, 'named by letters'),
    ({'lanes': {}}, 'needs at least one axis of lanes'),
    ({'lanes': {'seed': []}}, "'seed' needs at least one value"),
    ({'lanes': {'seed': [[0]]}}, "'seed' must be a 1-D array of numbers"),
    ({'lanes': {'seed': ['a']}}, "'seed' must be a 1-D array of numbers"),
    ({'lanes': {'seed': [0, 0]}}, "'seed' lists 0 twice"),
    ({'lanes': {'seed': [2**40]}}, "'seed' holds integers that do not fit"),
    ({'static': {'kind': ()}}, "'kind' needs at least one value"),
    ({'static': {'kind': ('a', 1)}}, "'kind' must hold strings or numbers"),
    ({'static': {'kind': (None,)}}, "'kind' must hold strings or numbers"),
    ({'static': {'kind': ('a', 'a')}}, "'kind' lists a value twice"),
    ({'static': {'seed': (1,)}}, "'seed' is both static and a lane axis"),
    ({'shared': {'seed': 1}}, "'seed' is both an axis and a shared input"),
    ({'chunk': -1}, 'chunk must be >= 1'),
    ({'dims': {}}, r"name its axes with dims=\{'curve'"),
    ({'dims': DIMS | {'other': ()}}, "dims names 'other'"),
    ({'dims': {'curve': ('seed',)}}, "'seed' of output 'curve' is also"),
    ({'coords': {'step': [1]}}, "the axis 'step' has size 2"),
  ],
)
def test_what_does_not_fit_is_said(changed, message, tmp_path):
  with pytest.raises(types.BadInput, match=message):
    call(sweeps.Sweep(tmp_path), Function(), **changed)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('installed', [False, True])
def test_bad_input_of_the_function_names_sweep_and_line(installed, monkeypatch):
  """Also if bitjax and the study are installed, where no frame is 'ours'."""

  def refuse(seed):
    raise types.BadInput('nothing fits.')

  def elsewhere(trace, extract=traceback.extract_tb):
    frames = extract(trace)
    for frame in frames:
      frame.filename = f'/lib/site-packages/{pathlib.Path(frame.filename).name}'
    return frames

  if installed:
    monkeypatch.setattr(traceback, 'extract_tb', elsewhere)
  message = r"nothing fits\. \(sweep 'f', sweep_test\.py:\d+\)"
  with pytest.raises(sweeps.TraceError, match=message):
    sweeps.Sweep()(refuse, name='f', lanes={'seed': [0]})


def test_a_name_is_used_once():
  sweep = sweeps.Sweep()
  call(sweep, Function())
  with pytest.raises(types.BadInput, match="are named 'waves'"):
    call(sweep, Function())
  call(sweep, Function(), name='other')


@pytest.mark.parametrize(
  'fn', [lambda seed: seed, lambda seed: {}, lambda seed: {'a': seed + 1j}]
)
def test_functions_return_dictionaries_of_real_arrays(fn):
  with pytest.raises(TypeError, match=r'dictionary|real numbers'):
    sweeps.Sweep()(fn, name='g', lanes={'seed': [0]})


def test_outputs_are_the_same_everywhere():
  def fn(kind, seed):
    return {kind: seed}

  with pytest.raises(TypeError, match='differ for kind=b'):
    sweeps.Sweep()(
      fn, name='h', static={'kind': ('a', 'b')}, lanes={'seed': [0]}
    )


@pytest.mark.parametrize(
  ('name', 'axis', 'labels', 'words'),
  [
    ('a/b', 'x', [1, 2], "output named 'a/b'"),
    ('', 'x', [1, 2], "output named ''"),
    ('a', 'x/y', [1, 2], "output named 'x/y'"),
    ('a', 'x', ['a', None], "labels of the axis 'x' must be numbers"),
    ('a', 'x', ['a', '\udcff'], "labels of the axis 'x' must be numbers"),
    (
      'a',
      'x',
      np.ones(2, np.float16),
      "labels of the axis 'x' must be numbers",
    ),
  ],
)
def test_what_cannot_be_saved_is_refused_first(
  tmp_path, name, axis, labels, words
):
  def fn(seed):
    return {name: jnp.stack([seed, seed])}

  with pytest.raises(types.BadInput, match=words):
    sweeps.Sweep(tmp_path)(
      fn,
      name='s',
      lanes={'seed': np.arange(2)},
      dims={name: (axis,)},
      coords={axis: labels},
    )
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('dtype', 'kept'),
  [('int4', 'int8'), ('uint2', 'uint8'), ('bfloat16', 'float32')],
)
def test_small_dtypes_are_kept_in_larger_ones(tmp_path, dtype, kept):
  def fn(seed):
    return {'a': seed.astype(dtype)}

  def hosted(folder, report, mesh, seed):
    return {'a': np.asarray(seed).astype(jnp.dtype(dtype))}

  for call in (sweeps.Sweep(tmp_path), sweeps.Sweep().hosted):
    function = fn if isinstance(call, sweeps.Sweep) else hosted
    found = call(function, name='s', lanes={'seed': np.arange(2)})
    assert found.a.dtype == kept and found.a.values.tolist() == [0, 1]
    results.save(found, tmp_path)
    assert results.load(tmp_path).identical(found)
