"""What single estimators promise beyond the contract: mass, limits, kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import types
from bitjax.quantizers import _estimators

X = np.linspace(-4, 4, 64001, dtype=np.float32)


@jax.jit
def derivatives(estimators, x, progress):
  """Returns the gradient of the sum of x_q by each estimator, in one program."""

  def grad(estimator):
    quantize = quantizers.attach(quantizers.sign(), estimator)
    return jax.grad(lambda x: jnp.sum(quantize(x, progress=progress)))(x)

  return [grad(estimator) for estimator in estimators]


def derivative(estimator, x=X, progress=1.0):
  return np.asarray(derivatives([estimator], x, progress)[0])


def masses(estimators, progress=1.0):
  slopes = derivatives(estimators, X, progress)
  return [np.sum(np.float64(slope)) * (X[1] - X[0]) for slope in slopes]


def test_passes_as_much_as_the_step_is_high():
  estimators = [
    quantizers.window(0.5, 2.0),
    quantizers.polynomial(),
    quantizers.polynomial(0.3),
    quantizers.swish_sign(8.0),
    quantizers.dspike(0.1),
    quantizers.dspike(9.0, 0.5),
    quantizers.gaussian(0.3),
    quantizers.relative(quantizers.gaussian(0.2)),
    quantizers.relative(quantizers.polynomial(0.4)),
    quantizers.dsq(0.4),
    quantizers.dsq(0.01),
    quantizers.dsq(0.2, step='hardtanh'),
    quantizers.dsq(0.2, levels=4),
    quantizers.dsq(0.05, levels=16, step='hardtanh'),
    quantizers.shrinking_window(2.0, 0.1),
    quantizers.error_decay(),
    quantizers.rbnn(activations=True, t_max=1.0),
  ]
  np.testing.assert_allclose(masses(estimators), 2, rtol=2e-3)


def test_error_decay_has_peak_one_until_the_slope_is_one():
  peaks = [
    derivative(quantizers.error_decay(), np.zeros(1, np.float32), p)[0]
    for p in (0.0, 0.25, 0.5, 1.0)
  ]
  np.testing.assert_allclose(peaks, [1, 1, 1, 10], rtol=1e-6)


@pytest.mark.parametrize('step', quantizers.SOFT_STEPS)
def test_dsq_goes_from_the_clipped_identity_to_the_staircase(step):
  wide = derivative(quantizers.dsq(0.999, levels=4, step=step))
  off_edges = np.abs(np.abs(X) - 1) > 1e-3
  np.testing.assert_allclose(wide[off_edges], (np.abs(X) <= 1)[off_edges], 1e-3)
  narrow = derivative(quantizers.dsq(1e-9, levels=4, step=step))
  to_threshold = np.min(np.abs(np.subtract.outer(X, [-2 / 3, 0, 2 / 3])), 1)
  assert np.all(narrow[to_threshold > 0.25] < 1e-3)
  assert np.all(narrow[to_threshold < 0.01] > 5)


def test_dsq_anneals_by_equal_factors():
  scheduled = quantizers.dsq(0.4, 0.1)
  for progress, alpha in ((0.0, 0.4), (0.5, 0.2), (1.0, 0.1)):
    got = derivative(scheduled, progress=progress)
    np.testing.assert_allclose(
      got, derivative(quantizers.dsq(alpha)), rtol=1e-4, atol=1e-6
    )


def test_dspike_goes_from_a_window_to_the_step():
  flat = derivative(quantizers.dspike(1e-3, 0.5))
  np.testing.assert_allclose(flat, 2 * (np.abs(X) <= 0.5), rtol=1e-5)
  steep = derivative(quantizers.dspike(100.0, 0.5))
  assert np.all(steep[np.abs(X) > 0.1] < 1e-6)


def test_reste_starts_as_a_window():
  got = derivative(quantizers.reste(), progress=0.0)
  np.testing.assert_array_equal(got, np.abs(X) <= 1.5)


def test_rbnn_of_activations_does_not_anneal_below_slope_one():
  start, early = (
    derivative(quantizers.rbnn(activations=True), progress=p)
    for p in (0.0, 0.6)
  )
  np.testing.assert_array_equal(start, early)
  weights = quantizers.rbnn()
  assert masses([weights], 0.0)[0] > 5 * masses([weights], 1.0)[0]
  late = derivative(quantizers.rbnn(activations=True), progress=0.9)
  np.testing.assert_array_equal(
    late, derivative(quantizers.rbnn(), progress=0.9)
  )


class TestMagnitudeAware:
  """Bi-Real Net's rule for kernels: the paper's, and that of its code."""

  w = np.random.default_rng(0).normal(0, 0.6, (3, 3, 4, 5)).astype(np.float32)
  g = np.random.default_rng(1).normal(size=w.shape).astype(np.float32)

  def pull_back(self, staircase, estimator):
    quantize = quantizers.attach(staircase, estimator)
    return jax.vjp(quantize, self.w)[1](self.g)[0]

  @pytest.mark.parametrize(
    ('unit_axis', 'axes'),
    [(-1, (0, 1, 2)), (3, (0, 1, 2)), (-2, (0, 1, 3)), (None, None)],
  )
  def test_multiplies_by_the_mean_of_the_unit(self, unit_axis, axes):
    estimator = quantizers.magnitude_aware(unit_axis=unit_axis)
    got = self.pull_back(quantizers.sign(), estimator)
    w = np.float64(self.w)
    scale = np.mean(np.abs(w), axis=axes, keepdims=True)
    want = np.where(np.abs(w) <= 1, self.g * scale, 0)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    xnor = quantizers.magnitude_aware(unit_axis=unit_axis, mean_share=True)
    got = self.pull_back(quantizers.sign(), xnor)
    want = want + self.g * scale.size / w.size
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

  def test_a_scaled_sign_with_a_window_is_the_code_without_the_factor(self):
    def scaled_sign(w):
      scale = jnp.mean(jnp.abs(w), axis=(0, 1, 2))
      return jnp.where(w >= 0, scale, -scale)

    staircase = jax.tree_util.Partial(scaled_sign)
    with jax.numpy_rank_promotion('allow'):
      got = self.pull_back(staircase, quantizers.window(1.0))
    want = np.where(np.abs(self.w) <= 1, self.g, 0)
    np.testing.assert_array_equal(got, want)

  @pytest.mark.parametrize('unit_axis', [4, -5])
  def test_rejects_an_axis_that_is_not_there(self, unit_axis):
    estimator = quantizers.magnitude_aware(unit_axis=unit_axis)
    with pytest.raises(types.BadInput, match=r'unit_axis must be in \[-4, 3\]'):
      self.pull_back(quantizers.sign(), estimator)


class TestGradientScaling:
  """EWGS in normalised units, and the rule for its delta."""

  def test_delta_changes_four_bit_gradients_by_a_third_of_a_percent(self):
    """The error is at most half a level, 1 / 30 of the range."""
    rounded = jax.tree_util.Partial(lambda x: jnp.round(15 * x) / 15)
    x = np.linspace(0, 1, 5001, dtype=np.float32)
    quantize = quantizers.attach(
      rounded, quantizers.ewgs(0.1, low=0.0, high=1.0)
    )
    slope = jax.jit(jax.grad(lambda x: jnp.sum(quantize(x))))(x)
    np.testing.assert_allclose(np.max(np.abs(slope - 1)), 0.1 / 30, rtol=1e-2)

  def test_delta_is_mean_curvature_over_gradient_spread(self):
    rng = np.random.default_rng(0)
    traces = np.float32([3.0, 5.0, -1.0])
    gradients = rng.normal(2, 0.7, (3, 4, 5)).astype(np.float32)
    got = jax.jit(quantizers.ewgs_delta)(traces, gradients)
    want = np.mean(
      [
        trace / 20 / (3 * np.std(np.float64(gradient)))
        for trace, gradient in zip(traces, gradients, strict=True)
      ]
    )
    np.testing.assert_allclose(got, want, rtol=1e-5)

  @pytest.mark.parametrize(
    ('traces', 'spread'), [([-2.0, 1.0], 1.0), ([2.0, 1.0], 0.0)]
  )
  def test_delta_is_zero_where_it_helps_not(self, traces, spread):
    gradients = np.float32([[0.0, 1.0], [1.0, 3.0]]) * spread
    gradients[0] *= 0.1
    got = quantizers.ewgs_delta(np.float32(traces), gradients)
    assert got == 0

  def test_predicts_the_gradient_of_a_quadratic(self):
    """Where the Hessian is constant, scaling is exact to first order."""
    x = np.float32([0.3, -0.2, 0.7, -0.9])
    target, curvature = np.float32([2.0, -2.0, 3.0, -3.0]), 0.01

    def loss(x_q):
      return jnp.sum(x_q * target) + curvature / 2 * jnp.sum(x_q**2)

    at_level = jax.grad(loss)(np.sign(x))
    at_x = jax.grad(loss)(x)
    # Each element has its own delta: curvature / |g|, times the range.
    delta = 2 * curvature / np.abs(at_level)
    quantize = quantizers.attach(quantizers.sign(), quantizers.ewgs(delta))
    got = jax.grad(lambda x: loss(quantize(x)))(x)
    np.testing.assert_allclose(got, at_x, rtol=1e-6)


class TestClipQuantile:
  """The limit is one of the gradient's own magnitudes, not an interpolation."""

  @staticmethod
  def clipped(g, quantile):
    g = np.asarray(g, np.float32)
    estimator = quantizers.clip_quantile(quantile)
    quantize = quantizers.attach(quantizers.sign(), estimator)
    return jax.vjp(quantize, jnp.ones(g.shape))[1](jnp.asarray(g))[0]

  def test_of_the_whole_tensor(self):
    g = [[1.0, -2.0, 3.0], [-4.0, 50.0, -0.5]]
    want = [[1.0, -2.0, 3.0], [-4.0, 4.0, -0.5]]
    np.testing.assert_array_equal(self.clipped(g, 0.75), want)
    np.testing.assert_array_equal(self.clipped(g, 1.0), g)
    np.testing.assert_array_equal(self.clipped(g, 0.0), 0.5 * np.sign(g))

  @pytest.mark.slow
  def test_beyond_the_integers_of_float32(self):
    g = np.ones(2**24 + 2, np.float32)
    g[5], g[7], g[9] = 3.0, 2.0, np.nan
    np.testing.assert_array_equal(self.clipped(g, 1.0), g)
    almost = np.nextafter(np.float32(1), np.float32(0))
    assert self.clipped(g, almost)[5] == 2.0

  @pytest.mark.parametrize('last', [2**24, 2**24 + 1, 2**30 + 3, 2**31 - 2])
  def test_ranks_beyond_the_integers_of_float32(self, last):
    """The ends are exact, the others right to the resolution of the quantile."""
    for quantile in (0.0, 1e-9, 0.3, 0.5, 0.99, 1 - 2.0**-24, 1.0):
      quantile = np.float32(quantile)
      found = int(_estimators._rank(quantile, jnp.int32(last), last + 1))
      exact = float(quantile) * last
      near = min(exact, last - exact)
      assert abs(found - exact) <= 1 + near * 2.0**-22, (quantile, found)
      assert 0 <= found <= last
      assert quantile < 1 or found == last

  def test_infinite_and_nan(self):
    g = [np.inf, -np.inf, 1.0, -2.0, np.nan, 0.25, 3.0]
    want = [3.0, -3.0, 1.0, -2.0, np.nan, 0.25, 3.0]
    np.testing.assert_array_equal(self.clipped(g, 0.55), want)


def test_relative_estimators_are_those_of_another_width():
  rng = np.random.default_rng(0)
  x = jnp.asarray(3 * rng.normal(size=(7, 5)), jnp.float32)
  spread = float(np.sqrt(np.mean(np.float64(x) ** 2)))
  relative, window = quantizers.relative, quantizers.window
  pairs = [
    (relative(window(0.5)), window(0.5 * spread, 1 / spread)),
    (relative(window(0.5), keep='height'), window(0.5 * spread)),
    (relative(quantizers.gaussian(1.5)), quantizers.gaussian(1.5 * spread)),
    (relative(quantizers.polynomial(2.0), 4.0), quantizers.polynomial(8.0)),
  ]
  for found, wanted in pairs:
    np.testing.assert_allclose(
      derivative(found, x), derivative(wanted, x), rtol=1e-5
    )


@pytest.mark.parametrize('unit', [1e-30, 1.0, 1e30])
def test_a_relative_estimator_does_not_see_the_unit(unit):
  quantize = quantizers.attach(
    quantizers.sign(), quantizers.relative(quantizers.gaussian(0.5))
  )
  x = jnp.float32([-1.5, 0.25, 0.5, jnp.inf]) * jnp.float32(unit)
  slope = jax.grad(lambda x: quantize(x).sum())(x) * unit
  wanted = derivative(quantizers.relative(quantizers.gaussian(0.5)), x / unit)
  np.testing.assert_allclose(slope, wanted, rtol=1e-4)
  zeros = derivative(quantizers.relative(quantizers.window(0.5)), jnp.zeros(3))
  np.testing.assert_array_equal(zeros, 1)


def test_relative_refuses_what_it_cannot_use():
  for options, text in (
    ({'estimator': 'x'}, 'estimator'),
    ({'estimator': quantizers.window, 'spread': 1.0}, 'estimator'),
    ({'estimator': quantizers.window(), 'spread': 0.0}, 'spread'),
    ({'estimator': quantizers.window(), 'keep': 'width'}, 'keep'),
  ):
    with pytest.raises(types.BadInput, match=text):
      quantizers.relative(**options)
