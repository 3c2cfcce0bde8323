"""Bop, limits of flips and of latent weights, flip ratios: one contract.

Each is one row of `RULES`: the transform, and what it stores after a step,
written again in NumPy. The suite does the rest.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import functools
import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import transforms
from bitjax import tree as tree_lib
from bitjax import types

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

DTYPES = ('float16', 'bfloat16', 'float32', 'float64')
THRESHOLD, GAMMA, MAX_FLIPS, LIMIT = 0.2, 0.25, 5, 0.8


def signs(x):
  return np.where(np.asarray(x, np.float64) >= 0, 1, -1)


def flat(tree):
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def bop_rule(w, u, memory, threshold=THRESHOLD, gamma=GAMMA):
  """Helwegen et al., algorithm 1, with sign(0) = +1."""
  memory = (1 - gamma) * memory + gamma * np.float64(u)
  flip = signs(w) * memory > threshold
  other = np.where(w == 0, np.full_like(w, -1), -w)
  return np.where(flip, other, w), memory


def limit_flips_rule(w, u, memory, max_flips=MAX_FLIPS):
  moved = w + u
  flips = np.flatnonzero(signs(moved) != signs(w))
  distance = np.abs(np.float64(moved[flips]))
  kept = flips[np.argsort(-distance, kind='stable')][: int(max_flips)]
  denied = np.setdiff1d(flips, kept)
  moved[denied] = w[denied]
  return moved, memory + len(kept)


def clip_rule(w, u, memory, limit=LIMIT):
  if float(w.dtype.type(limit)) > limit:  # Rounded down.
    limit = float(w.dtype.type(limit)) - float(jnp.finfo(w.dtype).epsneg)
  limit = w.dtype.type(limit)
  # NumPy's clip widens bfloat16.
  return np.clip(w + u, -limit, limit).astype(w.dtype), memory


def flip_ratio_rule(w, u, memory):
  return w + u, np.mean(signs(w + u) != signs(w))


@dataclasses.dataclass(frozen=True)
class Rule:
  """A transform, its rule, and what the rule remembers."""

  make: Callable
  step: Callable  # (weights, updates, memory) -> weights, memory.
  seen: Callable  # The same memory, in the transform's state.
  hyperparams: dict


RULES = {
  'bop': Rule(
    transforms.bop,
    bop_rule,
    lambda state: flat(state.momentum),
    {'threshold': THRESHOLD, 'gamma': GAMMA},
  ),
  'limit_flips': Rule(
    transforms.limit_flips,
    limit_flips_rule,
    lambda state: state.spent,
    {'max_flips': MAX_FLIPS},
  ),
  'clip_latent': Rule(
    transforms.clip_latent, clip_rule, lambda state: 0, {'limit': LIMIT}
  ),
  'flip_ratio': Rule(
    transforms.flip_ratio,
    flip_ratio_rule,
    lambda state: state.flip_ratio,
    {},
  ),
}


def all_of(wrap=lambda tx: tx):
  """Every transform, each by itself: one compile tests them all."""
  return {
    name: wrap(rule.make(**rule.hyperparams)) for name, rule in RULES.items()
  }


def draw(rng, dtype, lead=(), scale=1.0):
  def leaf(*shape):
    # Rounded, so that there are zeros and ties.
    values = np.round(8 * rng.normal(size=(*lead, *shape))) / 8
    return jnp.asarray(scale * values, dtype)

  return {
    'dense': {'kernel': leaf(9, 4)},
    'empty': [leaf(0, 3), None, optax.MaskedNode()],
    'scalar': leaf(),
  }


def follow(txs, params, updates):
  """Scans every transform over updates; the parameters' ways and last states."""

  def way(tx):
    def step(carry, u):
      w, state = carry
      u, state = tx.update(u, state, w)
      w = optax.apply_updates(w, u)
      return (w, state), w

    (_, state), path = jax.lax.scan(step, (params, tx.init(params)), updates)
    return path, state

  return {name: way(tx) for name, tx in txs.items()}


def stored(tx, params, updates):
  path, _ = jax.jit(lambda w, u: follow({'': tx}, w, u))(params, updates[None])[
    ''
  ]
  return path[0]


class TestRules:
  """Against NumPy, over several steps."""

  @pytest.mark.parametrize(
    'dtype',
    [
      pytest.param('float16', marks=pytest.mark.slow),
      'bfloat16',
      pytest.param('float32', marks=pytest.mark.slow),  # As all other tests.
      'float64',
    ],
  )
  def test_every_floating_dtype(self, dtype):
    x64 = jax.enable_x64() if dtype == 'float64' else contextlib.nullcontext()
    with x64:
      rng = np.random.default_rng(0)
      params = draw(rng, dtype, scale=0.5)
      updates = draw(rng, dtype, (6,))
      got = jax.jit(lambda p, u: follow(all_of(), p, u))(params, updates)
      per_step = [jax.tree.map(lambda u, t=t: u[t], updates) for t in range(6)]
      for name, rule in RULES.items():
        path, state = got[name]
        assert jax.tree.structure(path) == jax.tree.structure(params)
        weights, memory = flat(params), 0.0
        for t, u in enumerate(per_step):
          weights, memory = rule.step(weights, flat(u), memory)
          now = flat(jax.tree.map(lambda w, t=t: w[t], path))
          assert now.dtype == dtype
          slack = 0.0
          if name == 'clip_latent':  # A sum may fall short of the limit.
            assert np.all(np.abs(np.float64(now)) <= LIMIT)
            slack = 2 * float(jnp.finfo(dtype).eps)
          np.testing.assert_allclose(
            np.float64(now), np.float64(weights), rtol=slack, atol=0
          )
        np.testing.assert_allclose(rule.seen(state), memory, rtol=1e-6)

  def test_binary_weights_stay_binary_under_bop(self):
    rng = np.random.default_rng(1)
    start = jnp.asarray(signs(rng.normal(size=200)), jnp.bfloat16)
    updates = jnp.asarray(rng.normal(size=(20, 200)), jnp.bfloat16)
    run = jax.jit(lambda w, u: follow({'': transforms.bop(0.1, 0.3)}, w, u))
    path, _ = run(start, updates)['']
    assert set(np.float64(path).ravel()) == {-1.0, 1.0}
    assert 10 < tree_lib.flips(path[-1], start) < 190

  def test_latent_weights_keep_their_magnitude_under_bop(self):
    params = jnp.array([0.3, -0.7, 1e-3, 0.0, -0.0])
    grads = jnp.array([1.0, -1.0, -1.0, 1.0, 1.0])
    got = stored(transforms.bop(0.0, 1.0), params, grads)
    np.testing.assert_array_equal(got, np.float32([-0.3, 0.7, 1e-3, -1, -1]))

  def test_bop_flips_above_the_threshold_not_at_it(self):
    grads = jnp.array([0.5, 0.5000001])
    got = stored(transforms.bop(0.5, 1.0), jnp.ones(2), grads)
    np.testing.assert_array_equal(got, [1, -1])

  def test_bop_takes_schedules_of_the_number_of_updates(self):
    threshold = optax.piecewise_constant_schedule(9.0, {2: 1 / 90})
    gamma = optax.piecewise_constant_schedule(1.0, {1: 0.5})
    tx = transforms.bop(threshold, gamma)
    grads = jnp.full((4, 1), 0.4)
    path, state = jax.jit(lambda w: follow({'': tx}, w, grads)[''])(jnp.ones(1))
    # Averages 0.4 throughout; the threshold is 9, 9, 0.1, 0.1.
    np.testing.assert_array_equal(path[:, 0], [1, 1, -1, -1])
    assert state.count == 4

  def test_flip_ratio_of_any_quantizer_and_its_mean(self):
    def ternary(x):
      return jnp.where(jnp.abs(x) < 0.5, jnp.zeros_like(x), jnp.sign(x))

    tx = transforms.flip_ratio(ternary)
    params = jnp.array([0.4, 0.6, -0.6, 0.0])
    steps = jnp.array([[0.2, 0.2, 1.2, -0.4], [0.0, 0.0, 0.0, -0.2]])
    _, state = jax.jit(lambda w: follow({'': tx}, w, steps)[''])(params)
    assert (state.flip_ratio, state.mean_flip_ratio) == (0.25, 0.375)

  def test_numbers_that_are_none(self):
    params = np.float32([1, 1, 1, -1])
    grads = np.float32([np.nan, np.inf, -np.inf, np.nan])
    txs = {
      'bop': transforms.bop(),
      'clip_latent': transforms.clip_latent(),
      'limit_flips': transforms.limit_flips(0),
    }
    got = jax.jit(lambda w, u: follow(txs, w, u))(params, grads[None])
    wanted = {
      'bop': [1, -1, 1, -1],
      'clip_latent': [np.nan, 1, -1, np.nan],
      'limit_flips': [np.nan, np.inf, 1, np.nan],
    }
    for name, want in wanted.items():
      np.testing.assert_array_equal(got[name][0][0], want)


# Eighths: zeros and ties are frequent.
numbers = st.lists(st.integers(-32, 32), min_size=9, max_size=9).map(
  lambda eighths: np.float32(eighths) / 8
)


class TestProperties:
  """Whatever the weights and updates."""

  @pytest.mark.slow
  @settings(max_examples=30, deadline=None, derandomize=True)
  @given(numbers, numbers, st.integers(0, 10))
  def test_of_flips_the_furthest_are_kept(self, weights, updates, most):
    moved = weights + updates
    got = _limited(weights, updates, jnp.int32(most))
    wanted = signs(moved) != signs(weights)
    flipped = signs(got) != signs(weights)
    assert flipped.sum() == min(most, wanted.sum())
    np.testing.assert_array_equal(got[~wanted], moved[~wanted])
    np.testing.assert_array_equal(got[flipped], moved[flipped])
    denied = wanted & ~flipped
    np.testing.assert_array_equal(got[denied], weights[denied])
    if denied.any() and flipped.any():
      assert np.abs(moved[denied]).max() <= np.abs(moved[flipped]).min()

  @settings(max_examples=30, deadline=None, derandomize=True)
  @given(numbers, numbers, st.floats(2.0**-7, 4, width=32))
  def test_no_weight_is_outside_of_the_limit(self, weights, updates, limit):
    got = np.float64(_clipped(weights, updates, jnp.float32(limit)))
    assert np.all(np.abs(got) <= limit)
    inside = np.abs(weights + updates) <= limit
    np.testing.assert_array_equal(got[inside], (weights + updates)[inside])
    assert np.all(np.abs(got[~inside]) >= limit - 1e-5)


@jax.jit
def _limited(weights, updates, most):
  tx = transforms.limit_flips(most)
  updates, _ = tx.update(updates, tx.init(weights), weights)
  return optax.apply_updates(weights, updates)


@jax.jit
def _clipped(weights, updates, limit):
  tx = transforms.clip_latent(limit)
  updates, _ = tx.update(updates, tx.init(weights), weights)
  return optax.apply_updates(weights, updates)


PARAMS = {
  name: np.float32(leaf)
  for name, leaf in draw(np.random.default_rng(2), 'float32')['dense'].items()
}
STEPS = {
  name: np.float32(leaf)
  for name, leaf in draw(np.random.default_rng(3), 'float32', (4,))[
    'dense'
  ].items()
}


@functools.cache
def alone():
  """Where the transforms lead without any wrapper."""
  paths = jax.jit(lambda p, u: follow(all_of(), p, u))(PARAMS, STEPS)
  return {name: path['kernel'] for name, (path, _) in paths.items()}


class TestInOptax:
  """In the company of optax's own transforms and wrappers."""

  def check(self, txs, params=PARAMS, steps=STEPS, every=1):
    got = jax.jit(lambda p, u: follow(txs, p, u))(params, steps)
    for name, (path, _) in got.items():
      got_path = path['kernel'][every - 1 :: every]
      np.testing.assert_array_equal(got_path, alone()[name])
    return got

  def test_chain_and_extra_args(self):
    self.check(
      all_of(lambda tx: optax.chain(optax.scale(2.0), optax.scale(0.5), tx))
    )
    for tx in all_of().values():
      state = tx.init(PARAMS)
      jax.eval_shape(
        lambda p, tx=tx, state=state: tx.update(p, state, p, value=1.0), PARAMS
      )

  def test_masked_and_partition(self):
    params = {**PARAMS, 'bias': np.ones(3, np.float32)}
    steps = {**STEPS, 'bias': np.full((4, 3), 0.5, np.float32)}
    labels = tree_lib.label(params, lambda path: path == 'kernel')
    mask = tree_lib.mask_by_name(params, 'kernel')
    wrappers = (
      lambda tx: optax.masked(tx, mask),
      lambda tx: optax.partition(
        {'binary': tx, 'rest': optax.scale(1.0)}, labels
      ),
    )
    for wrap in wrappers:
      got = self.check(all_of(wrap), params, steps)
      for path, _ in got.values():
        np.testing.assert_array_equal(path['bias'][-1], [3, 3, 3])

  def test_multi_steps(self):
    twice = jax.tree.map(lambda u: np.repeat(u, 2, axis=0), STEPS)
    self.check(all_of(lambda tx: optax.MultiSteps(tx, 2)), steps=twice, every=2)

  def test_apply_if_finite(self):
    nan = jax.tree.map(lambda u: np.full_like(u[:1], np.nan), STEPS)
    steps = jax.tree.map(
      lambda bad, u: np.stack([np.repeat(bad, 4, 0), u], 1).reshape(
        8, *u.shape[1:]
      ),
      nan,
      STEPS,
    )
    self.check(
      all_of(lambda tx: optax.apply_if_finite(tx, 9)),
      steps=steps,
      every=2,
    )

  def test_inject_hyperparams(self):
    # Hyperparameters are rounded to float32: to nearest, unlike a limit.
    below = np.nextafter(np.float32(LIMIT), np.float32(0))
    rounded = {'limit': float(below)}
    injected = {
      name: optax.inject_hyperparams(rule.make)(
        **{k: rounded.get(k, v) for k, v in rule.hyperparams.items()}
      )
      for name, rule in RULES.items()
    }
    got = self.check(injected)
    for name, (_, state) in got.items():
      assert set(state.hyperparams) == set(RULES[name].hyperparams)
    # A schedule, of another optimizer's making.
    schedule = lambda count: 2.0 * count
    tx = optax.inject_hyperparams(transforms.limit_flips)(max_flips=schedule)
    path, _ = jax.jit(lambda p, u: follow({'': tx}, p, u)[''])(PARAMS, STEPS)
    ends = [PARAMS['kernel'], *path['kernel']]
    flips = [np.sum(signs(a) != signs(b)) for a, b in itertools.pairwise(ends)]
    assert flips[0] == 0 and 0 < flips[1] <= 2 and 2 < flips[3] <= 6

  def test_vmap_over_hyperparameters_is_the_loop(self):
    values = {
      'bop': np.float32([0.05, 0.2, 5.0]),
      'limit_flips': np.float32([0, 2.9, np.inf]),
      'clip_latent': np.float32([0.1, 0.8, 100]),
    }

    def one(value):
      txs = {name: RULES[name].make(value[name]) for name in values}
      paths = follow(txs, PARAMS, STEPS)
      return {name: path['kernel'] for name, (path, _) in paths.items()}

    got = jax.jit(jax.vmap(one))(values)
    single = jax.jit(one)
    for lane in range(3):
      want = single({name: value[lane] for name, value in values.items()})
      for name in values:
        np.testing.assert_array_equal(got[name][lane], want[name])
    assert single._cache_size() == 1
    ends = got['limit_flips']
    assert tree_lib.flips(ends[0, -1], PARAMS['kernel']) == 0
    assert tree_lib.flips(ends[0, -1], ends[2, -1]) > 5

  def test_updates_of_another_dtype(self):
    params = jnp.asarray([0.3, -0.7, 0.2], jnp.float32)
    updates = jnp.asarray([1.0, 1.0, -1.0], jnp.bfloat16)
    for name, tx in all_of().items():
      got, _ = jax.eval_shape(tx.update, updates, tx.init(params), params)
      assert got.dtype == (
        jnp.bfloat16 if name == 'flip_ratio' else params.dtype
      )


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: transforms.bop(-1.0), 'threshold must be >= 0'),
    (lambda: transforms.bop(np.nan), 'threshold must be >= 0'),
    (lambda: transforms.bop(gamma=1.5), r'gamma must be in \[0.0, 1.0\]'),
    (lambda: transforms.limit_flips(-1), 'max_flips must be >= 0'),
    (lambda: transforms.clip_latent(0.0), 'limit must be > 0'),
    (lambda: transforms.bop().init(jnp.arange(3)), 'floating parameters'),
    (
      lambda: transforms.flip_ratio().init(jnp.arange(3)),
      'floating parameters',
    ),
  ],
)
def test_bad_hyperparameters_and_parameters(make, message):
  with pytest.raises(types.BadInput, match=message):
    make()


@pytest.mark.parametrize('name', RULES)
def test_parameters_are_needed(name):
  tx = RULES[name].make(**RULES[name].hyperparams)
  with pytest.raises(types.BadInput, match='`params`'):
    tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))
