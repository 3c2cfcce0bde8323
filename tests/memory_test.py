"""Budgets, what sets them, and what a compiled program takes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import memory
from bitjax import types

GIB = 2**30


@pytest.mark.parametrize(
  ('text', 'size'),
  [
    ('8GiB', 8 * GIB),
    ('1.5 GB', 1_500_000_000),
    (' 800MiB ', 800 * 2**20),
    ('3KB', 3000),
    ('1B', 1),
    ('2TiB', 2**41),
  ],
)
def test_sizes_are_read(text, size):
  assert memory.parse(text) == size


@pytest.mark.parametrize(
  'text', ['', '8', 'GiB', '-1GiB', '8 gib', '0.1B', '0GiB', '1e9B', 'inf', '8iB', '9' * 400 + 'B']
)  # fmt: skip
def test_what_is_no_size_is_refused(text):
  with pytest.raises(types.BadInput, match='such as 8GiB or 800MB; got'):
    memory.parse(text)


@pytest.mark.parametrize(
  ('size', 'words'),
  [
    (1, '1 B'),
    (999, '999 B'),
    (1000, '0.977 KiB'),
    (3.5 * GIB, '3.5 GiB'),
    (156 * GIB, '156 GiB'),
    (2**60, '1.02e+03 PiB'),
    (float('inf'), 'unlimited'),
  ],
)
def test_sizes_in_words(size, words):
  assert memory.shown(size) == words


class Device:
  """A stand-in for an accelerator."""

  platform = 'gpu'

  def __init__(self, stats):
    self.memory_stats = lambda: stats


@pytest.fixture
def gpu(monkeypatch):
  """A function: takes this machine for one with a GPU, which says this of itself."""

  def take(stats):
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    monkeypatch.setattr(jax, 'local_devices', lambda: [Device(stats)])

  return take


class TestBudget:
  """The default, and what the caller says."""

  @pytest.mark.parametrize(
    ('stats', 'size'),
    [
      ({'bytes_limit': 8 * GIB}, 6 * GIB),
      ({'bytes_limit': 80 * GIB}, 16 * GIB),
      ({}, 16 * GIB),
      (None, 16 * GIB),
    ],
  )
  def test_of_an_accelerator(self, gpu, stats, size):
    gpu(stats)
    assert memory.budget() == size

  @pytest.mark.parametrize('devices', [1, 4])
  def test_of_a_cpu_is_shared_by_its_devices(self, monkeypatch, devices):
    monkeypatch.setattr(memory, 'machine', lambda: 24 * GIB)
    monkeypatch.setattr(jax, 'local_device_count', lambda: devices)
    assert memory.budget() == 18 * GIB / devices

  def test_of_a_container(self, monkeypatch, tmp_path):
    whole = memory.machine()
    limit = tmp_path / 'memory.max'
    monkeypatch.setattr(memory, '_CONTAINER', limit)
    limit.write_text('1000000\n')
    assert memory.machine() == 1_000_000
    limit.write_text('max\n')
    assert memory.machine() == whole > 2**28

  def test_limits_nest(self):
    before = memory.budget()
    with memory.limited('2GiB'):
      with memory.limited(np.int32(1000)), memory.limited(None):
        assert memory.budget() == 1000
      assert memory.budget() == 2 * GIB
    assert memory.budget() == before

  @pytest.mark.parametrize('size', [0, -1, 1.5, True, '12'])
  def test_bad_limits(self, size):
    with pytest.raises(types.BadInput, match='memory'), memory.limited(size):
      pass

  def test_a_program_is_of_its_budget(self):
    """What was traced under one budget is traced again under another."""
    seen = []

    @jax.jit
    def f(x):
      seen.append(memory.budget())
      return x

    for size in (1000, 2000, 1000):
      with memory.limited(size):
        f(1.0)
    assert seen == [1000, 2000]

  def test_too_much_is_refused_with_ways_out(self):
    with memory.limited('2KiB'):
      memory.check('A lane', 2048)
      with pytest.raises(memory.Exceeded) as caught:
        memory.check('A lane', 3000)
    said = str(caught.value)
    assert said.startswith('A lane takes 2.93 KiB of memory')
    assert '2 KiB; ways out are more (--memory' in said and '\n' not in said


def test_what_a_program_takes():
  x = jax.ShapeDtypeStruct((100, 100), jnp.float32)
  f = lambda x: jnp.sin(x) @ x
  found = memory.of(jax.jit(f).lower(x).compile())
  assert (found.arguments, found.outputs) == (40_000, 40_000)
  assert found.temporaries >= 40_000
  assert found.total == sum(found)
  donated = memory.of(jax.jit(f, donate_argnums=0).lower(x).compile())
  assert donated.arguments == 40_000
  assert donated.outputs == 0  # In the place of the argument.


def test_a_checked_function_runs_only_where_it_fits():
  traces = []

  def product(x, number):
    traces.append(x.shape)
    return x @ x.T + number

  run = memory.checked(jax.jit(product), 'the product')
  x = jnp.arange(6.0).reshape(2, 3)
  for number in (1, 2):
    assert (run(x, number) == x @ x.T + number).all()
  with (
    memory.limited(10),
    pytest.raises(memory.Exceeded, match=r'the product takes .* may take 10 B'),
  ):
    run(jnp.ones((5, 3)), 1)
  assert traces == [(2, 3), (5, 3)]
  assert 'dot' in run.lower(x, 1).as_text()


class TestChecked:
  """What is checked is still a jitted function."""

  @staticmethod
  def root(x):
    return jnp.sqrt(x)

  def test_each_budget_is_compared(self):
    run = memory.checked(jax.jit(self.root), 'the root')
    x = jnp.ones(50)
    run(x)
    with memory.limited(10), pytest.raises(memory.Exceeded):
      run(x)
    run(x)

  def test_it_is_compiled_once(self):
    """With shards, donated buffers and Python numbers."""
    events = []
    mesh = jax.make_mesh((1,), ('lanes',))
    x = jax.device_put(jnp.ones(7), jax.NamedSharding(mesh, jax.P('lanes')))
    run = memory.checked(
      jax.jit(lambda x, y: x * y + 3, donate_argnums=0), 'the product'
    )

    def listen(name, *_, **__):
      if name.endswith('backend_compile_duration'):
        events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
      found = run(run(x, 2), 2)
    finally:
      jax.monitoring.unregister_event_duration_listener(listen)
    assert (found == 13).all() and x.is_deleted()
    assert len(events) == 1

  def test_it_may_be_debugged(self):
    run = memory.checked(jax.jit(self.root), 'the root')
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match='sqrt'):
      run(-jnp.ones(3))
    with jax.disable_jit():
      assert run(4.0) == 2

  def test_it_may_be_transformed(self):
    run = memory.checked(jax.jit(self.root), 'the root')
    slopes = jax.jit(jax.vmap(jax.grad(run)))(jnp.array([1.0, 4.0]))
    assert slopes.tolist() == [0.5, 0.25]
