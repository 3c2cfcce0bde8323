"""Staircases whose thresholds are computed, those with memory, and their levels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32) * np.float32([0.1, 1, 3])


def ternary_of(x, threshold):
  return np.where(x > threshold, 1.0, np.where(x < -threshold, -1.0, 0.0))


class TestTernary:
  """Thresholds and scales of all weights, or of each channel's."""

  @pytest.mark.parametrize('channel_axis', [None, 0, -1])
  @pytest.mark.parametrize(
    ('threshold', 'factor', 'statistic'),
    [('mean_abs', 0.7, np.mean), ('max_abs', 0.05, np.max)],
  )
  def test_computed_thresholds(
    self, threshold, factor, statistic, channel_axis
  ):
    make = functools.partial(
      quantizers.ternary, threshold, channel_axis=channel_axis
    )
    x = np.float64(X)
    axis = {None: None, 0: 1, -1: 0}[channel_axis]
    size = statistic(np.abs(x), axis=axis, keepdims=True)
    for chosen in (factor, 0.4):
      staircase = make(factor=None if chosen == factor else chosen)
      codes = ternary_of(x, chosen * size)
      got = jax.jit(staircase)(X)
      np.testing.assert_array_equal(got, codes)
    kept = np.where(codes != 0, np.abs(x), np.nan)
    scale = np.nanmean(kept, axis=axis, keepdims=True)
    got = jax.jit(make(factor=0.4, scaled=True))(X)
    np.testing.assert_allclose(got, codes * scale, rtol=1e-6)

  def test_scale_is_the_best_fit_of_the_codes(self):
    for staircase in (
      quantizers.ternary(scaled=True),
      quantizers.ternary(0.3, scaled=True),
    ):
      x_q = np.float64(staircase(X))
      fits = [np.sum((X - f * x_q) ** 2) for f in (0.99, 1.0, 1.01)]
      assert fits[1] < fits[0] and fits[1] < fits[2]

  @pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
  def test_low_precision_keeps_its_dtype(self, dtype):
    x = jnp.asarray(X, dtype)
    wide = np.asarray(x).astype(np.float64)
    got = quantizers.ternary()(x)
    assert got.dtype == x.dtype
    want = ternary_of(wide, 0.7 * np.abs(wide).mean())
    np.testing.assert_array_equal(np.asarray(got).astype(float), want)

  def test_nothing_and_zeros(self):
    for staircase in (
      quantizers.ternary(scaled=True),
      quantizers.ternary('max_abs'),
    ):
      for x in (jnp.zeros((0, 2)), jnp.zeros(3), jnp.zeros(())):
        np.testing.assert_array_equal(staircase(x), x)


class TestResidualSign:
  """A greedy sum of scaled signs."""

  @pytest.mark.parametrize('channel_axis', [None, -1])
  @pytest.mark.parametrize('bits', [1, 3])
  def test_each_bit_fits_what_the_others_left(self, bits, channel_axis):
    staircase = quantizers.residual_sign(bits, channel_axis=channel_axis)
    rest = np.float64(X)
    for _ in range(bits):
      axis = None if channel_axis is None else 0
      scale = np.abs(rest).mean(axis=axis, keepdims=True)
      rest = rest - np.where(rest >= 0, scale, -scale)
    got = np.float64(jax.jit(staircase)(X))
    np.testing.assert_allclose(got, X - rest, rtol=1e-5, atol=1e-5)
    levels = [len(np.unique(unit)) for unit in got.T]
    assert max(levels) <= 2**bits and staircase.bits == bits

  def test_more_bits_are_nearer(self):
    errors = [
      np.sum((quantizers.residual_sign(bits)(X) - X) ** 2)
      for bits in (1, 2, 3, 4)
    ]
    assert np.all(np.diff(errors) < 0)


class TestUniform:
  """Levels of the grid, rounding of ties, and steps for each channel."""

  @pytest.mark.parametrize(
    ('bits', 'signed', 'narrow', 'codes'),
    [
      (1, False, False, [0, 1]),
      (2, False, False, [0, 1, 2, 3]),
      (2, True, False, [-2, -1, 0, 1]),
      (2, True, True, [-1, 0, 1]),
      (3, True, True, [-3, -2, -1, 0, 1, 2, 3]),
    ],
  )
  def test_levels(self, bits, signed, narrow, codes):
    staircase = quantizers.uniform(
      bits, signed=signed, narrow=narrow, step='unit'
    )
    x = np.linspace(-3, 3, 999, dtype=np.float32)
    x_q = np.asarray(staircase(x))
    want = np.asarray(codes) / max(codes)
    np.testing.assert_allclose(np.unique(x_q), want, rtol=1e-6)
    assert staircase.num_levels == len(codes)
    nearest = want[np.argmin(np.abs(x[:, None] - want), axis=1)]
    np.testing.assert_allclose(x_q, nearest, rtol=1e-6)

  def test_ties_round_to_the_even_code(self):
    x = np.float32([-1.5, -0.5, 0.5, 1.5, 2.5])
    got = quantizers.uniform(4, step=1.0)(x)
    np.testing.assert_array_equal(got, [-2, 0, 0, 2, 2])

  @pytest.mark.parametrize('channel_axis', [0, 1, -1])
  def test_one_step_for_each_channel(self, channel_axis):
    steps = np.float32(np.arange(1, 1 + X.shape[channel_axis]) / 8)
    staircase = quantizers.uniform(3, step=steps, channel_axis=channel_axis)
    step = np.expand_dims(np.float64(steps), 1 if channel_axis == 0 else 0)
    want = step * np.clip(np.rint(X / step), -4, 3)
    np.testing.assert_allclose(staircase(X), want, rtol=1e-6)
    assert not staircase.uniform

  def test_eight_bits_survive_bfloat16(self):
    x = jnp.linspace(0, 1, 2000).astype(jnp.bfloat16)
    x_q = quantizers.uniform(8, signed=False)(x)
    wide = np.asarray(x).astype(np.float64)
    want = np.rint(wide * 255) / 255
    assert x_q.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float64(x_q), want, rtol=2**-8)


class TestHysteresis:
  """Outputs change late, as they depend on the state that is remembered."""

  def test_sign(self):
    staircase = quantizers.hysteretic_sign(0.5)
    x = np.float32([-0.5, np.nextafter(np.float32(-0.5), -1), 0.4, 0.5, 0, 0])
    state = np.float32([1, 1, -1, -1, 1, -1])
    got = staircase(x, state=state)
    np.testing.assert_array_equal(got, [1, -1, -1, 1, 1, -1])
    same = quantizers.hysteretic_sign(0.0)(X, state=-quantizers.sign()(X))
    np.testing.assert_array_equal(same, quantizers.sign()(X))

  def test_uniform_follows_the_paper_along_a_path(self):
    step = 0.25
    staircase = quantizers.hysteretic_uniform(3, step=step)
    quantize = quantizers.attach(staircase, quantizers.identity())
    path = np.cumsum(RNG.normal(size=(60, 8)) * 0.1, axis=0).astype(np.float32)

    def run(state, x):
      x_q = quantize(x, state=state)
      return x_q, x_q

    first = quantizers.initial_state(quantize, path[0])
    _, got = jax.jit(lambda p: jax.lax.scan(run, first, p))(path)
    code = np.rint(np.float64(path[0]) / step).clip(-4, 3)
    changes = {'hysteresis': 0, 'rounding': 0}
    for x, x_q in zip(np.float64(path), np.asarray(got), strict=True):
      v = np.clip(x / step, -4, 3)
      new = np.where(v > code, np.floor(v), np.ceil(v))
      np.testing.assert_array_equal(x_q, step * new)
      changes['hysteresis'] += np.sum(new != code)
      code = new
    rounded = np.rint(path / step).clip(-4, 3)
    changes['rounding'] = np.sum(rounded[1:] != rounded[:-1])
    assert 0 < changes['hysteresis'] < changes['rounding']

  def test_gradient_is_the_estimators(self):
    quantize = quantizers.attach(
      quantizers.hysteretic_sign(0.5), quantizers.window(1.0)
    )
    state = quantizers.initial_state(quantize, X)
    np.testing.assert_array_equal(state, quantizers.sign()(X))
    grad = jax.grad(lambda x: jnp.sum(quantize(x, state=state)))(X)
    np.testing.assert_array_equal(grad, np.abs(X) <= 1)

  def test_only_those_with_memory_have_a_state(self):
    plain = quantizers.attach(quantizers.sign(), quantizers.identity())
    assert quantizers.initial_state(plain, X) is None
    assert quantizers.initial_state(None, X) is None


def attached(staircase):
  return quantizers.attach(staircase, quantizers.identity())


def view_of(quantizer):
  """A layer of three units before a ReLU and a linear classifier."""
  inputs = RNG.integers(-2, 3, (7, 5)).astype(np.float32)
  head = scans.Dense(jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32))
  return scans.LayerView(
    inputs=jnp.asarray(inputs),
    kernel=jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32),
    labels=jnp.asarray(RNG.integers(0, 4, 7)),
    tail=(scans.Activation('relu'), head),
    quantizer=quantizer,
  )


LEVELS = {
  'sign': lambda: attached(quantizers.sign()),
  'heaviside': lambda: attached(quantizers.heaviside()),
  'shifted sign': lambda: attached(
    quantizers.shifted_sign(np.float32([-1, 0.5, 0]), channel_axis=-1)
  ),
  'ternary': lambda: attached(quantizers.ternary(0.5)),
  'ternary at 0': lambda: attached(quantizers.ternary(0.0)),
  'uniform': lambda: attached(quantizers.uniform(2, step=0.5)),
  'lsq of channels': lambda: quantizers.bind(
    quantizers.lsq(2, channel_axis=-1), {'step': jnp.asarray([0.3, 1, 0.7])}
  ),
}


class TestLevels:
  """What a staircase offers to exact scans."""

  @pytest.mark.parametrize('name', LEVELS)
  def test_neighbours_are_the_next_levels(self, name):
    quantize = quantizers.at_progress(LEVELS[name](), 0.5)
    staircase = quantizers.staircase(quantize)
    x = np.linspace(-3, 3, 8001, dtype=np.float32)
    x = np.stack(3 * [x], axis=1)
    x_q = np.asarray(quantize(x))
    up, down = (np.asarray(quantize(n)) for n in staircase.neighbours(x))
    for unit in range(3):
      levels = np.unique(x_q[:, unit])
      assert len(levels) == staircase.num_levels
      position = np.searchsorted(levels, x_q[:, unit])
      want = levels[np.minimum(position + 1, len(levels) - 1)]
      np.testing.assert_array_equal(up[:, unit], want)
      want = levels[np.maximum(position - 1, 0)]
      np.testing.assert_array_equal(down[:, unit], want)

  @pytest.mark.slow
  def test_moves_and_gains_of_every_kind(self):
    for name in ('heaviside', 'lsq of channels'):
      view = view_of(LEVELS[name]())
      moves = scans.moves(view)
      two = quantizers.staircase(view.quantizer).num_levels == 2
      assert moves.destinations.shape == (1 if two else 2, 5, 3), name
      fast = scans.flip_gains(view)
      slow = scans.flip_gains(view, path='brute_force')
      assert fast.path == 'rank_one', name
      np.testing.assert_allclose(
        fast.gains, slow.gains, atol=2e-6, err_msg=name
      )
      assert np.abs(slow.gains).max() > 1e-3

  def test_line_scans_know_the_levels(self):
    view = view_of(LEVELS['ternary']())
    direction = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
    rates = jnp.linspace(-1, 1, 40)
    got = scans.line_scan(view, direction, rates)
    assert got.path == 'steps'
    want = scans.line_scan(view, direction, rates, path='brute_force')
    np.testing.assert_allclose(got.losses, want.losses, rtol=1e-5)
    many = view_of(attached(quantizers.uniform(8, step='unit')))
    assert scans.line_scan(many, direction, rates).path == 'brute_force'

  def test_coupled_thresholds_are_refused_with_a_reason(self):
    for staircase in (
      quantizers.ternary(),
      quantizers.ternary(1.0, scaled=True),
    ):
      with pytest.raises(
        types.BadInput, match='offer num_levels and neighbours'
      ):
        scans.moves(view_of(attached(staircase)))

  def test_staircase_of_what_holds_none(self):
    assert quantizers.staircase(None) is None
    assert quantizers.staircase(jax.tree_util.Partial(jnp.round)) is None
    remembering = quantizers.at_progress(
      attached(quantizers.hysteretic_sign(0.1)), 1.0, state=X
    )
    assert quantizers.staircase(remembering) is None


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: quantizers.uniform(0, signed=False), r'\[1, 16\]; got 0'),
    (lambda: quantizers.uniform(1), r'\[2, 16\]; got 1'),
    (lambda: quantizers.uniform(17), r'\[2, 16\]; got 17'),
    (lambda: quantizers.uniform(True, signed=False), 'bits must be an integer'),
    (
      lambda: quantizers.uniform(2, signed=False, narrow=True),
      'narrow must be False for an unsigned grid',
    ),
    (lambda: quantizers.uniform(2, step=0.0), 'step must be > 0'),
    (lambda: quantizers.uniform(2), 'step must be a number .* signed grid'),
    (lambda: quantizers.hysteretic_uniform(2), 'step must be a number'),
    (
      lambda: quantizers.uniform(2, step='max'),
      "step must be a number or 'unit'; got 'max'",
    ),
    (
      lambda: quantizers.uniform(2, step=np.ones(2), channel_axis=0)(X),
      r'step must have shape \(40,\) .* got \(2,\)',
    ),
    (
      lambda: quantizers.uniform(2, step=np.ones(2), channel_axis=2)(X),
      r'channel_axis must be in \[-2, 2\)',
    ),
    (lambda: quantizers.ternary(-0.1), 'threshold must be >= 0'),
    (lambda: quantizers.ternary('median'), 'one of mean_abs, max_abs'),
    (lambda: quantizers.ternary(factor=0.0), 'factor must be > 0'),
    (lambda: quantizers.ternary(0.1, factor=0.5), 'factor must be None'),
    (lambda: quantizers.ternary(channel_axis=5)(X), 'channel_axis must be'),
    (lambda: quantizers.shifted_sign(float('nan')), 'threshold must be in'),
    (
      lambda: quantizers.shifted_sign(np.ones(2), channel_axis=1)(X),
      r'threshold must have shape \(3,\)',
    ),
    (lambda: quantizers.hysteretic_sign(-1.0), 'margin must be >= 0'),
    (lambda: quantizers.hysteretic_sign(1.0)(X), 'begin with initial_state'),
    (
      lambda: quantizers.hysteretic_uniform(2, step=0.5)(X, state=X[0]),
      r'state must have the shape of x, \(40, 3\); got \(3,\)',
    ),
    (lambda: quantizers.hysteretic_uniform(1), 'bits must be'),
  ],
)
def test_bad_input_is_refused(call, message):
  with pytest.raises(types.BadInput, match=message):
    call()
