"""Grids of lanes equal nested Python loops, at any width."""

import functools
import itertools
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import lanes
from bitjax import memory
from bitjax import types

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

AXES = {
  'rate': np.float32([0.1, 0.2, 0.3]),
  'noise': np.float32([[1, 2], [3, 4]]),
  'seed': np.arange(5),
}
SHAPE = (3, 2, 5)
WIDTHS = (None, 1, 2, 7, 29, 30, 1000)


def step(rate, noise, seed, data):
  """Anything that mixes all inputs, in a pytree of several shapes."""
  moved = jnp.tanh(data @ (noise + jnp.sin(seed)) * rate)
  return {'moved': moved, 'scalars': (moved.sum(), seed), 'none': None}


DATA = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)


@functools.cache
def looped():
  one = jax.jit(step)
  outputs = [
    one(rate, noise, seed, DATA)
    for rate, noise, seed in itertools.product(*AXES.values())
  ]
  return jax.tree.map(
    lambda *leaves: np.stack(leaves).reshape(SHAPE + leaves[0].shape), *outputs
  )


class TestGrid:
  """Against loops."""

  @pytest.mark.parametrize('width', WIDTHS)
  def test_equals_loops_and_traces_once(self, width):
    traces = []

    def counted(**kwargs):
      traces.append(None)
      return step(**kwargs)

    got = jax.jit(
      lambda axes, data: lanes.grid(
        counted,
        dict(zip(AXES, axes, strict=True)),  # jit would sort a dict.
        width=width,
        shared={'data': data},
      )
    )(tuple(AXES.values()), DATA)
    assert len(traces) == 1
    assert got['moved'].shape == (*SHAPE, 4)
    want = looped()
    np.testing.assert_array_equal(got['scalars'][1], want['scalars'][1])
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
      got,
      want,
    )

  @pytest.mark.parametrize('width', [1, 2, 6])
  def test_without_jit(self, width):
    traces = []

    def product(a, b):
      traces.append(None)
      return a * b

    axes = {'a': np.float32([1, 2, 3]), 'b': np.float32([5, 7])}
    got = lanes.grid(product, axes, width=width)
    np.testing.assert_array_equal(got, np.outer(axes['a'], axes['b']))
    assert len(traces) == 1

  def test_order_of_axes_is_order_of_result(self):
    a, b = np.float32([1, 2, 3]), np.float32([5, 7])
    minus = lambda a, b: a - b
    got = lanes.grid(minus, {'b': b, 'a': a})
    np.testing.assert_array_equal(got, a[None] - b[:, None])

  def test_keys_are_an_axis(self):
    keys = jax.random.split(jax.random.key(0), 4)

    def use(key, scale):
      return scale * jax.random.key_data(key)

    scales = np.uint32([1, 10])
    data = np.asarray(jax.random.key_data(keys))
    for width in (1, 3, 8):
      got = lanes.grid(use, {'key': keys, 'scale': scales}, width=width)
      np.testing.assert_array_equal(got, data[:, None] * scales[:, None])

  def test_nested(self):
    def outer(a):
      return lanes.grid(
        lambda b, a: a + 10 * b, {'b': np.arange(4)}, shared={'a': a}, width=3
      )

    for width in (1, 2):
      grid = jax.jit(functools.partial(lanes.grid, outer, width=width))
      got = grid({'a': np.arange(3)})
      want = np.arange(3)[:, None] + 10 * np.arange(4)
      np.testing.assert_array_equal(got, want)

  @pytest.mark.parametrize('width', [1, 2, 3])
  def test_gradient_through_axes_and_shared(self, width):
    axes = {'a': np.float32([1, 2, 3]), 'b': np.float32([0.5, 0.25])}

    def total(axes, factor):
      product = lambda a, b, factor: factor * jnp.sin(a) * b**2
      shared = {'factor': factor}
      return lanes.grid(product, axes, width=width, shared=shared).sum()

    grads, factor = jax.jit(jax.grad(total, argnums=(0, 1)))(axes, 2.0)
    a, b = np.float64(axes['a']), np.float64(axes['b'])
    np.testing.assert_allclose(
      grads['a'], 2 * np.cos(a) * np.sum(b**2), rtol=1e-5
    )
    np.testing.assert_allclose(grads['b'], 4 * np.sin(a).sum() * b, rtol=1e-5)
    np.testing.assert_allclose(
      factor, np.sin(a).sum() * np.sum(b**2), rtol=1e-5
    )

  @pytest.mark.parametrize('width', [1, 2, 5])
  def test_diverged_lane_does_not_disturb_the_others(self, width):
    def run(rate):
      def step(x, _):
        return x - rate * 4 * x**3, None

      return jax.lax.scan(step, 1.0, None, length=30)[0]

    rates = np.float32([0.05, 9, 0.1, 0.02, 8])
    got = np.asarray(lanes.grid(run, {'rate': rates}, width=width))
    assert np.isnan(got[[1, 4]]).all()
    calm = np.asarray(lanes.grid(run, {'rate': rates[[0, 2, 3]]}, width=1))
    np.testing.assert_allclose(got[[0, 2, 3]], calm, rtol=1e-6)

  @pytest.mark.parametrize('width', [1, 2, 4])
  def test_shared_inputs_are_not_copied_to_lanes(self, width):
    data = np.ones((1000, 50), np.float32)

    def use(a, data):
      return a * data.sum()

    grid = lambda a, data: lanes.grid(
      use, {'a': a}, width=width, shared={'data': data}
    )
    a = np.float32([1, 2, 3, 4])
    text = str(jax.make_jaxpr(grid)(a, data))
    assert 'f32[1000,50]' in text
    assert not any(f'f32[{n},1000,50]' in text for n in (1, 2, 4))
    compiled = jax.jit(grid).lower(a, data).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < data.nbytes
    np.testing.assert_allclose(jax.jit(grid)(a, data), 50000 * a)

  def test_memory_is_bounded_by_the_width(self):
    def big(a):
      return jnp.sum(jnp.sort(jnp.sin(a * jnp.arange(10_000.0))))

    def temporary(width):
      grid = jax.jit(lambda a: lanes.grid(big, {'a': a}, width=width))
      compiled = grid.lower(np.ones(32, np.float32)).compile()
      return compiled.memory_analysis().temp_size_in_bytes

    one, four, all_lanes = temporary(1), temporary(4), temporary(32)
    assert one < four < all_lanes
    assert four < 0.3 * all_lanes

  @pytest.mark.parametrize(
    ('axes', 'kwargs', 'message'),
    [
      ({}, {}, 'needs at least one axis'),
      ({'a': np.ones(0)}, {}, r"Axis 'a' needs at least one value; got.*\(0,"),
      ({'a': 1.0}, {}, r"Axis 'a' needs at least one value; got shape \(\)"),
      ({'a': np.ones(2)}, {'width': 0}, 'must be >= 1; got 0 and 2'),
      ({'a': np.ones(2)}, {'width': -3}, 'must be >= 1; got -3 and 2'),
    ],
  )
  def test_errors(self, axes, kwargs, message):
    with pytest.raises(types.BadInput, match=message):
      lanes.grid(lambda a: a, axes, **kwargs)


class TestProduct:
  """The list of lanes."""

  def test_last_axis_runs_fastest(self):
    listed, shape = lanes.product(AXES)
    assert shape == SHAPE
    want = list(itertools.product(*AXES.values()))
    for place, name in enumerate(AXES):
      np.testing.assert_array_equal(listed[name], [row[place] for row in want])

  def test_keys(self):
    keys = jax.random.split(jax.random.key(0), 3)
    listed, shape = lanes.product({'key': keys, 'a': np.arange(2)})
    assert shape == (3, 2)
    np.testing.assert_array_equal(
      jax.random.key_data(listed['key']),
      np.repeat(jax.random.key_data(keys), 2, axis=0),
    )


class TestEach:
  """Lists of lanes that are not a grid."""

  @pytest.mark.parametrize('jitted', [False, True])
  @pytest.mark.parametrize('width', [None, 3, 9])
  def test_equals_a_loop(self, width, jitted):
    listed = {
      'a': [1.0, 2.0, 3.0, 4.0, 5.0],
      'b': np.arange(10, dtype=np.float32).reshape(5, 2),
    }

    def run():
      return lanes.each(lambda a, b: (a * b, a), listed, width=width)

    got = jax.jit(run)() if jitted else run()
    a = np.asarray(listed['a'])
    np.testing.assert_array_equal(got[0], a[:, None] * listed['b'])
    np.testing.assert_array_equal(got[1], a)

  @pytest.mark.parametrize(
    ('listed', 'message'),
    [
      ({}, 'need the same number of lanes'),
      ({'a': np.ones(2), 'b': np.ones(3)}, "got {'a': 2, 'b': 3}"),
      ({'a': np.ones(0)}, 'number of lanes must be >= 1'),
    ],
  )
  def test_errors(self, listed, message):
    with pytest.raises(types.BadInput, match=message):
      lanes.each(lambda **kwargs: kwargs, listed)


@pytest.fixture
def gpu(monkeypatch):
  """Takes this machine's CPU for a GPU."""
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')


class TestFitting:
  """How many lanes are vectorised by default: by the bytes that one takes."""

  side = 100
  lanes = MappingProxyType({'x': np.linspace(0, 1, 10, dtype=np.float32)})
  kernel = np.cos(np.arange(side**2, dtype=np.float32)).reshape(side, side)

  @classmethod
  def lane(cls, x):
    """Takes 40 kB to sort the product, and as much for each step that is not fused."""
    product = jnp.sin(x * cls.kernel) @ cls.kernel
    return jnp.sort(product, axis=0)[cls.side // 2]

  def test_one_on_a_cpu(self):
    def each(x):
      return lanes.each(lambda x: x @ x, {'x': x})

    traced = jax.make_jaxpr(each)(jnp.ones((10, 3, 3)))
    (loop,) = [e for e in traced.eqns if e.primitive.name == 'scan']
    assert loop.params['length'] == 10

  @pytest.mark.parametrize('size', ['1GiB', '2MB', '1MB', '500KB'])
  def test_the_budget_holds_what_is_vectorised_and_no_more(self, gpu, size):
    def temporaries(width):
      each = lambda x: lanes.each(self.lane, {'x': x}, width=width)
      compiled = jax.jit(each).lower(self.lanes['x']).compile()
      return memory.of(compiled).temporaries

    with memory.limited(size):
      width = lanes.fitting(self.lane, self.lanes)
      found = lanes.each(self.lane, self.lanes)
      # Small things are not counted.
      share = lanes.SHARE * memory.budget() + 10_000
      assert temporaries(None) <= share
    assert (width == 10) == (size == '1GiB')
    # A power of two is at least half, equal groups half of that.
    if 4 * width <= 10:
      assert temporaries(4 * width) > share
    for x, one in zip(self.lanes['x'], found, strict=True):
      want = np.sin(x * self.kernel.astype(float)) @ self.kernel
      want = np.sort(want, axis=0)[self.side // 2]
      np.testing.assert_allclose(one, want, atol=1e-4)

  @pytest.mark.parametrize(
    ('most', 'share', 'width'), [(None, 1, 10), (7, 1, 7), (3, 0.25, 3)]
  )
  def test_what_bounds_it(self, most, share, width):
    """The bound holds on a CPU too, where whoever asks for more than a lane uses it."""
    with memory.limited('2MB'):
      found = lanes.fitting(self.lane, self.lanes, most=most, share=share)
    assert found == width

  def test_what_lanes_share_is_taken_off_once(self):
    shared = {'table': jax.ShapeDtypeStruct((250_000,), jnp.float32)}
    fn = lambda x, table: self.lane(x) + table[0]
    with memory.limited('1.25MB'):
      assert lanes.fitting(fn, self.lanes, shared=shared, share=1) < 6
    with memory.limited('2.2MB'):
      assert lanes.fitting(fn, self.lanes, shared=shared, share=1) == 10

  def test_a_lane_that_does_not_fit_is_refused(self, gpu):
    with (
      memory.limited('60KB'),
      pytest.raises(memory.Exceeded, match='one lane of 10 takes'),
    ):
      lanes.each(self.lane, self.lanes)

  def test_a_lane_is_traced_once(self, gpu):
    calls = []

    def fn(x):
      calls.append(x)
      return {'twice': (2 * x, None)}

    found = jax.jit(lambda x: lanes.each(fn, {'x': x}))(self.lanes['x'])
    assert len(calls) == 1
    np.testing.assert_array_equal(found['twice'][0], 2 * self.lanes['x'])

  def test_every_transformation_may_surround_it(self, gpu):
    """Lanes within lanes of a mesh, mapped and differentiated, close over both."""

    def nested(scale, kernel):
      inner = lambda x: jnp.sum(jnp.sin(x * kernel) @ self.kernel) * scale
      return jnp.sum(lanes.each(inner, self.lanes))

    mesh = jax.make_mesh((1,), ('lanes',))
    scales, kernel = jnp.arange(1.0, 4.0), jnp.asarray(self.kernel)

    def outer(kernel, scales):
      found = lanes.each(
        nested, {'scale': scales}, shared={'kernel': kernel}, mesh=mesh
      )
      return jnp.sum(found)

    with memory.limited('1.2MB'):
      gradient = jax.jit(jax.grad(outer))(kernel, scales)
      mapped = jax.vmap(nested, (0, None))(scales, kernel)
    kernel = self.kernel.astype(float)
    x = self.lanes['x'][:, None, None].astype(float)
    weight = kernel.sum(axis=1)[None, None, :]
    one = (np.sin(x * kernel) * weight).sum()
    np.testing.assert_allclose(mapped, one * np.arange(1, 4), rtol=1e-3)
    want = 6 * (x * np.cos(x * kernel) * weight).sum(axis=0)
    np.testing.assert_allclose(gradient, want, atol=1e-3)

  @pytest.mark.parametrize('around', ['vmap', 'shard_map'])
  def test_named_axes_may_surround_it(self, gpu, around):
    """Lanes may sum over them, and vary over them."""
    kernel = jnp.asarray(self.kernel)

    def nested(scale):
      def inner(x):
        total = jax.lax.psum(scale, 'i') if around == 'vmap' else scale
        return jnp.max(jnp.sin(x * kernel) @ kernel) * total

      return lanes.each(inner, self.lanes)

    mapped = jax.vmap(nested, axis_name='i')
    if around == 'shard_map':
      mesh = jax.sharding.Mesh(jax.devices()[:1], ('i',))
      mapped = jax.shard_map(
        lambda scales: nested(scales[0])[None],
        mesh=mesh, in_specs=jax.P('i'), out_specs=jax.P('i'),
      )  # fmt: skip
    scales = jnp.arange(2.0, 5.0)[: 1 if around == 'shard_map' else 3]
    with memory.limited('500KB'):
      found = jax.jit(mapped)(scales)
    kernel = self.kernel.astype(float)
    for x, some in zip(self.lanes['x'], found.T, strict=True):
      want = (np.sin(x * kernel) @ kernel).max() * scales.sum()
      np.testing.assert_allclose(some, np.full(some.shape, want), atol=1e-3)

  def test_random_keys(self, gpu):
    keys = lambda: jax.random.split(jax.random.key(0), 6)
    draw = lambda key: jax.random.normal(key, (2,))
    with memory.limited('1KB'):
      found = lanes.each(draw, {'key': keys()})
    np.testing.assert_array_equal(found, jax.vmap(draw)(keys()))


def test_a_lanes_key_is_its_own():
  root = jax.random.key(0)
  data = lambda keys: np.asarray(jax.random.key_data(keys))
  many = data(lanes.keys(root, np.arange(9)))
  np.testing.assert_array_equal(data(lanes.keys(root, [7, 2])), many[[7, 2]])
  np.testing.assert_array_equal(many[3], data(jax.random.fold_in(root, 3)))
  assert np.unique(many, axis=0).shape == many.shape


def test_meshes_without_lanes():
  mesh = jax.make_mesh((1,), ('rows',))
  with pytest.raises(types.BadInput, match="mesh needs an axis 'lanes'; got"):
    lanes.each(lambda a: a, {'a': np.ones(2)}, mesh=mesh)
