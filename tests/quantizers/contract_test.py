"""Checks what every estimator and staircase must satisfy, from a row for each.

A new estimator is one row of `ESTIMATORS`: how to make it, its rule rewritten in
NumPy (float64), and the points where the rule has a kink. The row of an annealed
estimator lists the values of progress to test. That of a smooth one gives its peak:
in the tail of an exponential, errors are small only relative to the peak.
"""

from collections.abc import Callable
import dataclasses
import functools
import inspect
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import types

DTYPES = ('float32', 'float16', 'bfloat16')
slow = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Row:
  """One estimator: ``rule(g, x, x_q, progress, **hyper)`` is its oracle."""

  name: str
  make: Callable[..., quantizers.Estimator]
  rule: Callable[..., np.ndarray]
  hyper: dict[str, Any] = dataclasses.field(default_factory=dict)
  kinks_of_x: tuple[float, ...] = ()
  kinks_of_g: tuple[float, ...] = ()
  bad: tuple[dict[str, Any], ...] = ()
  at: tuple[float, ...] = (1.0,)  # Values of progress to test.
  static: dict[str, Any] = dataclasses.field(default_factory=dict)
  peak: float = 0.0
  elementwise: bool = True

  @property
  def progress(self) -> float:
    return self.at[len(self.at) // 2]

  def __call__(self, **hyper) -> quantizers.Estimator:
    return self.make(**{**self.hyper, **hyper}, **self.static)

  def expected(self, g, x, x_q, progress=None, **hyper):
    progress = self.progress if progress is None else progress
    arrays = (np.asarray(a).astype(np.float64) for a in (g, x, x_q))
    with np.errstate(all='ignore'):
      return self.rule(*arrays, progress, **{**self.hyper, **hyper})

  def check(self, got, g, x, x_q, progress=None, rtol=1e-6, name='', **hyper):
    """Compares with the rule; NaN is equal to NaN."""
    want = self.expected(g, x, x_q, progress, **hyper)
    want, scale = np.broadcast_arrays(want, self.peak * np.abs(float64(g)))
    got = float64(got)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), name)
    error = np.abs(got - want)
    # XLA flushes subnormal numbers to zero.
    allowed = rtol * (np.abs(want) + scale) + np.finfo(np.float32).tiny
    worst = np.flatnonzero(error > allowed)[:5]
    assert not worst.size, (
      f'{name} at x = {np.ravel(x)[worst]}: got {np.ravel(got)[worst]}, '
      f'want {np.ravel(want)[worst]}'
    )


def narrowing(start=2.0):
  """The tests' own annealed estimator: a window that shrinks with progress."""
  return jax.tree_util.Partial(_narrowing, start)


def _narrowing(start, g, x, x_q, progress):
  return jnp.where(jnp.abs(x) <= start * (1 - 0.5 * progress), g, 0)


def pull(rate=0.5):
  """The tests' own estimator that uses ``x_q``, like EWGS."""
  return jax.tree_util.Partial(_pull, rate)


def _pull(rate, g, x, x_q, progress):
  return g * (1 + rate * jnp.sign(g) * jnp.clip(x - x_q, -1, 1))


def _window_rule(g, x, x_q, progress, half_width=1.0, gain=1.0):
  return np.where(np.abs(x) <= half_width, gain * g, 0)


def _clip_rule(g, x, x_q, progress, limit, num_examples=1):
  return np.clip(num_examples * g, -limit, limit) / num_examples


def _quantile_rule(g, x, x_q, progress, quantile):
  if not g.size:
    return g
  limit = np.nanquantile(np.abs(g), quantile, method='higher')
  return np.clip(g, -limit, limit)


def _error_decay_rule(g, x, x_q, progress, t_min=0.1, t_max=10):
  t = 10 ** (np.log10(t_min) + progress * np.log10(t_max / t_min))
  return g * max(1 / t, 1) * t / np.cosh(np.clip(t * x, -400, 400)) ** 2


def _rbnn_rule(g, x, x_q, progress, t_min=0.01, t_max=10):
  t = 10 ** (np.log10(t_min) + progress * np.log10(t_max / t_min))
  k = max(1 / t, 1)
  return g * np.maximum(0, k * (np.sqrt(2) * t - t**2 * np.abs(x)))


def _rbnn_activations_rule(g, x, x_q, progress, t_min=0.01, t_max=10):
  t = 10 ** (np.log10(t_min) + progress * np.log10(t_max / t_min))
  t = max(t, 1)
  return g * np.maximum(0, np.sqrt(2) * t - t**2 * np.abs(x))


def _shrinking_rule(g, x, x_q, progress, start=1, end=0.1, mass=True):
  c = start ** (1 - progress) * end**progress
  return np.where(np.abs(x / c) <= 1, g / c if mass else g, 0)


def _dspike_rule(g, x, x_q, progress, temperature=1, half_width=1):
  # The derivative of 2 D((x / c + 1) / 2) - 1, with D of the paper.
  b, u = temperature, (x / half_width + 1) / 2
  with_respect_to_u = b / np.cosh(b * np.clip(u - 0.5, -9, 9)) ** 2
  slope = with_respect_to_u / (2 * np.tanh(b / 2)) / half_width
  return np.where((u >= 0) & (u <= 1), g * slope, 0)


def _magnitude_rule(g, x, x_q, progress, half_width=1):
  # Each element of a vector is a unit; estimators_test.py tests kernels.
  return np.where(np.abs(x) <= half_width, g * np.abs(x), 0)


def _reste_rule(g, x, x_q, progress, o_end=3, inner=0.1, outer=1.5):
  o = 1 + (1 - np.cos(progress * np.pi / 2)) * (o_end - 1)
  size = np.abs(x)
  slope = np.full_like(size, inner ** (1 / o) / inner)
  slope = np.where(size > inner, size ** ((1 - o) / o) / o, slope)
  return np.where(size <= outer, g * slope, 0)


def _gaussian_rule(g, x, x_q, progress, sigma=1):
  z = np.clip(x / sigma, -40, 40)
  return g * 2 / sigma * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def _relative_rule(g, x, x_q, progress, sigma=0.5, spread=None, mass=True):
  finite = x[np.isfinite(x)]
  own = np.sqrt(np.mean(finite**2)) if finite.any() else 1.0
  s = own if spread is None else spread
  return _gaussian_rule(g / s if mass else g, x / s, x_q, progress, sigma)


def _swish_rule(g, x, x_q, progress, beta=5):
  z = np.clip(beta * x, -400, 400)
  return g * beta * (2 - z * np.tanh(z / 2)) / (1 + np.cosh(z))


def _ewgs_rule(g, x, x_q, progress, delta=1e-3, low=-1, high=1):
  normal, normal_q = (x - low) / (high - low), (x_q - low) / (high - low)
  scaled = g * (1 + delta * np.sign(g) * (normal - normal_q))
  return np.where((normal >= 0) & (normal <= 1), scaled, 0)


def _soft_steps(x, low, high, levels):
  """Returns distances to the nearest midpoint, in widths, and what is inside."""
  width = (high - low) / (levels - 1)
  midpoints = low + width * (np.arange(round(levels) - 1) + 0.5)
  distances = np.abs(np.asarray(x)[..., None] - midpoints) / width
  return np.min(distances, axis=-1), (x >= low) & (x <= high)


def _dsq_rule(
  g, x, x_q, p, alpha=0.2, alpha_end=None, low=-1, high=1, levels=2
):
  alpha = alpha ** (1 - p) * (alpha_end or alpha) ** p
  distance, inside = _soft_steps(x, low, high, levels)
  width = (high - low) / (levels - 1)
  k, s = np.log(2 / alpha - 1) / width, 1 / (1 - alpha)
  slope = 0.5 * s * k * width * (1 - np.tanh(k * width * distance) ** 2)
  return np.where(inside, g * slope, 0)


def _dsq_window_rule(
  g, x, x_q, p, alpha=0.2, alpha_end=None, low=-1, high=1, levels=2
):
  alpha = alpha ** (1 - p) * (alpha_end or alpha) ** p
  distance, inside = _soft_steps(x, low, high, levels)
  slope = 0.5 * np.log(2 / alpha - 1) / (1 - alpha)
  return np.where(inside & (np.abs(2 * slope * distance) <= 1), g * slope, 0)


NOT_POSITIVE = (0, -1.0, float('nan'), np.float32(-2), [[1.0], [-1.0]])


def _bad(name, **others):
  return tuple(
    {**others, name: np.asarray(v) if isinstance(v, list) else v}
    for v in NOT_POSITIVE
  )


def _outside(name, *values):
  return tuple({name: value} for value in values)


ESTIMATORS = (
  Row('identity', quantizers.identity, lambda g, x, x_q, progress: g),
  Row('window', quantizers.window, _window_rule, {}, (-1, 1)),
  Row(
    'window, narrow and louder',
    quantizers.window,
    _window_rule,
    {'half_width': 0.5, 'gain': 2.0},
    (-0.5, 0.5),
    bad=_bad('half_width'),
  ),
  Row(
    'clip of the mean',
    quantizers.clip,
    _clip_rule,
    {'limit': 0.25},
    kinks_of_g=(-0.25, 0.25),
    bad=_bad('limit'),
  ),
  Row(
    'clip per example',
    quantizers.clip,
    _clip_rule,
    {'limit': 0.5, 'num_examples': 4},
    kinks_of_g=(-0.125, 0.125),
    bad=_bad('num_examples', limit=1.0),
  ),
  Row(
    'window, edges outside',
    quantizers.window,
    lambda g, x, x_q, progress: np.where(np.abs(x) < 1, g, 0),
    kinks_of_x=(-1, 1),
    static={'inclusive': False},
  ),
  Row(
    'clip at a quantile',
    quantizers.clip_quantile,
    _quantile_rule,
    {'quantile': 0.3},
    bad=_outside('quantile', -0.1, 1.1),
    elementwise=False,
  ),
  Row(
    'polynomial',
    quantizers.polynomial,
    lambda g, x, x_q, progress: g * np.maximum(0, 2 - 2 * np.abs(x)),
    kinks_of_x=(-1, 1),
    peak=2,
  ),
  Row(
    'polynomial, wide',
    quantizers.polynomial,
    lambda g, x, x_q, p, half_width: (
      g * np.maximum(0, 2 / half_width - 2 * np.abs(x) / half_width**2)
    ),
    {'half_width': 1.5},
    (-1.5, 1.5),
    bad=_bad('half_width'),
    peak=2,
  ),
  Row(
    'swish',
    quantizers.swish_sign,
    _swish_rule,
    {'beta': 5.0},
    (-0.48, 0.48),
    bad=_bad('beta'),
    peak=5,
  ),
  Row('Gaussian', quantizers.gaussian, _gaussian_rule, peak=1),
  Row(
    'Gaussian, narrow',
    quantizers.gaussian,
    _gaussian_rule,
    {'sigma': 0.25},
    bad=_bad('sigma'),
    peak=4,
  ),
  Row(
    'relative',
    quantizers.relative,
    _relative_rule,
    static={'estimator': quantizers.gaussian(0.5)},
    peak=2,
    elementwise=False,
  ),
  Row(
    'relative, given a spread',
    quantizers.relative,
    functools.partial(_relative_rule, mass=False),
    {'spread': 2.0},
    bad=_bad('spread', estimator=quantizers.gaussian(0.5)),
    static={'estimator': quantizers.gaussian(0.5), 'keep': 'height'},
    peak=2,
  ),
  Row(
    'error decay',
    quantizers.error_decay,
    _error_decay_rule,
    {'t_min': 0.1, 't_max': 10.0},
    bad=_bad('t_min') + _bad('t_max'),
    at=(0.0, 0.25, 0.5, 1.0),
    peak=10,
  ),
  Row(
    'error decay from 1e-3',
    quantizers.error_decay,
    _error_decay_rule,
    {'t_min': 1e-3},
    at=(0.0, 0.75),
    peak=10,
  ),
  Row(
    'ReSTE',
    quantizers.reste,
    _reste_rule,
    kinks_of_x=(-1.5, 1.5, -0.11, -0.09, 0.09, 0.11),
    at=(0.0, 0.5, 1.0),
  ),
  Row(
    'ReSTE, other cuts',
    quantizers.reste,
    _reste_rule,
    {'o_end': 2.0, 'inner': 0.125, 'outer': 1.0},
    (-1, -0.125, 0.125, 1),
    bad=_bad('inner')
    + _outside('o_end', 0.5, float('nan'))
    + _outside('outer', 0.1, 0.05),
    at=(0.0, 0.5, 1.0),
  ),
  Row(
    'RBNN',
    quantizers.rbnn,
    _rbnn_rule,
    {'t_min': 0.01, 't_max': 10.0},
    (-0.1414, 0.1414, -1.414, 1.414),
    bad=_bad('t_min') + _bad('t_max'),
    at=(0.0, 0.5, 2 / 3, 1.0),
    peak=15,
  ),
  Row(
    'RBNN of activations',
    quantizers.rbnn,
    _rbnn_activations_rule,
    {'t_max': 5.0},
    (-1.414, 1.414),
    at=(0.0, 0.7, 1.0),
    static={'activations': True},
    peak=8,
  ),
  Row(
    'shrinking window',
    quantizers.shrinking_window,
    _shrinking_rule,
    {'start': 2.0, 'end': 0.125},
    (-2.01, -1.99, -0.51, 0.49, 0.126, 0.124),
    bad=_bad('start') + _bad('end'),
    at=(0.0, 0.5, 1.0),
  ),
  Row(
    'shrinking window of one height',
    quantizers.shrinking_window,
    functools.partial(_shrinking_rule, mass=False),
    {'start': 2.0, 'end': 0.125},
    (-2.01, -1.99, -0.51, 0.49, 0.126, 0.124),
    at=(0.0, 0.5, 1.0),
    static={'keep': 'height'},
  ),
  Row(
    'Dspike',
    quantizers.dspike,
    _dspike_rule,
    {'temperature': 3.0},
    (-1, 1),
    bad=_bad('temperature') + _bad('half_width'),
    peak=2,
  ),
  Row(
    'Dspike, narrow',
    quantizers.dspike,
    _dspike_rule,
    {'temperature': 1.0, 'half_width': 0.5},
    (-0.5, 0.5),
    peak=2,
  ),
  Row(
    'magnitude aware',
    quantizers.magnitude_aware,
    _magnitude_rule,
    {'half_width': 0.5},
    (-0.5, 0.5),
    bad=_bad('half_width'),
  ),
  Row(
    'DSQ',
    quantizers.dsq,
    _dsq_rule,
    {'alpha': 0.2},
    (-1, 1),
    bad=_outside('alpha', 0, 1, -0.5, float('nan'))
    + _outside('alpha_end', 0, 1)
    + _outside('levels', 1, 0, float('nan'))
    + _outside('high', -1, -2, float('inf'))
    + _outside('low', 1, 2, -float('inf'))
    + _outside('step', 'soft'),
    peak=1.5,
  ),
  Row(
    'DSQ, 2 bits, annealed',
    quantizers.dsq,
    _dsq_rule,
    {'alpha': 0.3, 'alpha_end': 0.01, 'low': 0.0, 'high': 1.5, 'levels': 4},
    (-0.5, 0.5, 1, 1.5),
    at=(0.0, 0.5, 1.0),
    peak=2.7,
  ),
  Row(
    'DSQ as a window',
    quantizers.dsq,
    _dsq_window_rule,
    {'alpha': 0.2},
    (-1, 1, -0.728, -0.729, 0.728, 0.729),
    static={'step': 'hardtanh'},
  ),
  Row(
    'DSQ as windows, 3 bits, annealed',
    quantizers.dsq,
    _dsq_window_rule,
    {'alpha': 0.3, 'alpha_end': 0.02, 'low': -1.75, 'high': 1.75, 'levels': 8},
    (-1.75, 0.5, 1.75),
    at=(0.0, 0.5, 1.0),
    static={'step': 'hardtanh'},
  ),
  Row(
    'EWGS',
    quantizers.ewgs,
    _ewgs_rule,
    {'delta': 0.1},
    (-1, 0, 1),
    (0.0,),
    bad=_outside('delta', -0.1, float('nan'))
    + _outside('high', -1, float('inf'))
    + _outside('low', 1, -float('inf')),
  ),
  Row(
    'EWGS of another range',
    quantizers.ewgs,
    _ewgs_rule,
    {'delta': 0.5, 'low': -0.5, 'high': 1.5},
    (-0.5, 0, 1, 1.5),
    (0.0,),
  ),
  Row(
    'annealed',
    narrowing,
    lambda g, x, x_q, p, start: np.where(
      np.abs(x) <= start * (1 - 0.5 * p), g, 0
    ),
    {'start': 2.0},
    (-1.5, 1.5),
    at=(0.5,),
  ),
  Row(
    'reads x_q',
    pull,
    lambda g, x, x_q, p, rate: (
      g * (1 + rate * np.sign(g) * np.clip(x - x_q, -1, 1))
    ),
    {'rate': 0.5},
    (-2, 0, 2),
    (0.0,),
  ),
)

EXPORTED = {
  make
  for make in map(quantizers.__dict__.get, quantizers.__all__)
  if inspect.isfunction(make)
  and make.__annotations__.get('return', '').endswith('.Estimator')
  and make is not quantizers.named  # It makes what others write.
}


def test_every_exported_estimator_has_a_row():
  assert {row.make for row in ESTIMATORS} >= EXPORTED > {quantizers.window}


STAIRCASES = {
  'sign': (quantizers.sign, lambda x: np.where(x >= 0, 1.0, -1.0), (0.0,)),
  'heaviside': (
    quantizers.heaviside,
    lambda x: np.where(x >= 0, 1.0, 0.0),
    (0.0,),
  ),
  'shifted sign': (
    lambda: quantizers.shifted_sign(-0.5),
    lambda x: np.where(x >= -0.5, 1.0, -1.0),
    (-0.5,),
  ),
  'ternary': (
    lambda: quantizers.ternary(0.5),
    lambda x: np.where(x > 0.5, 1.0, np.where(x < -0.5, -1.0, 0.0)),
    (-0.5, 0.5),
  ),
  'uniform, 1 bit': (
    lambda: quantizers.uniform(1, signed=False),
    lambda x: np.clip(np.rint(x), 0, 1),
    (0.5, 1.0, 1.5),
  ),
  'uniform, 2 bits': (
    lambda: quantizers.uniform(2, step=0.25),
    lambda x: 0.25 * np.clip(np.rint(x / 0.25), -2, 1),
    (-0.625, -0.5, -0.375, -0.125, 0.125, 0.375),
  ),
  'uniform, narrow': (
    lambda: quantizers.uniform(3, narrow=True, step=2.0),
    lambda x: 2 * np.clip(np.rint(x / 2), -3, 3),
    (-7.0, -5.0, -3.0, -1.0, 1.0, 3.0, 5.0, 7.0),
  ),
}

every_estimator = pytest.mark.parametrize(
  'row', ESTIMATORS, ids=[row.name for row in ESTIMATORS]
)
every_staircase = pytest.mark.parametrize('name', STAIRCASES)
every_dtype = pytest.mark.parametrize(
  'dtype', ['float32', 'bfloat16', pytest.param('float16', marks=slow)]
)


def around(kinks, dtype):
  """Each kink and its two neighbours; zeros, large and plain values."""
  dtype = jnp.dtype(dtype)
  kinks = np.asarray([k for k in kinks if k], dtype)
  sides = [np.nextafter(kinks, np.asarray(side, dtype)) for side in (-9, 9)]
  far = float(jnp.finfo(dtype).max)
  near = 4 * float(jnp.finfo(dtype).tiny)  # XLA flushes subnormals to zero.
  plain = np.asarray([0.0, near, 0.0625, 0.75, 3.0, far, np.inf], dtype)
  return np.concatenate([kinks, *sides, plain, -plain, [np.nan]]).astype(dtype)


def pairs(row, dtype):
  """Every x of interest with every g of interest, both flat."""
  x = around(row.kinks_of_x, dtype)
  g = around(row.kinks_of_g, dtype)
  # Products stay finite here: overflow has its own test.
  g = g[~(np.abs(g.astype(np.float64)) > 100)]
  x, g = np.meshgrid(x, g)
  return x.ravel(), g.ravel()


def sign_of(x):
  return np.where(np.asarray(x).astype(np.float64) >= 0, 1.0, -1.0)


@jax.jit
def vjp(quantize, x, g, progress=1.0):
  x_q, pull_back = jax.vjp(lambda x: quantize(x, progress=progress), x)
  (x_bar,) = pull_back(jnp.asarray(g).astype(x_q.dtype))
  return x_q, x_bar


@jax.jit
def vjps(quantize, inputs, progress):
  """Applies `vjp` to every ``[x, g]`` of `inputs`, in one program."""
  return jax.tree.map(
    lambda pair: vjp(quantize, *pair, progress),
    inputs,
    is_leaf=lambda node: isinstance(node, list),
  )


def float64(x):
  return np.asarray(x).astype(np.float64)


def attach(estimator):
  return quantizers.attach(quantizers.sign(), estimator)


def loss(x, quantize, progress, g):
  """A scalar whose gradient by x is the estimator's answer to g."""
  return jnp.sum(quantize(x, progress=progress) * g)


class TestRule:
  """Forward and backward are the rule of the table."""

  @every_estimator
  def test_equals_rule_around_kinks_and_at_random(self, row):
    drawn = np.random.default_rng(0).normal(size=(2, 500))
    inputs = {
      dtype: [
        np.concatenate(both)
        for both in zip(pairs(row, dtype), drawn.astype(dtype), strict=True)
      ]
      for dtype in DTYPES
    }
    for progress in row.at:
      outputs = vjps(attach(row()), inputs, progress)
      for dtype, (x, g) in inputs.items():
        x_q, x_bar = outputs[dtype]
        assert x_q.dtype == x_bar.dtype == x.dtype
        np.testing.assert_array_equal(float64(x_q), sign_of(x))
        eps = 0 if dtype == 'float32' else float(jnp.finfo(dtype).eps)
        row.check(x_bar, g, x, sign_of(x), progress, 1e-6 + 4 * eps, dtype)
        finite = ~np.isnan(float64(x)) & ~np.isnan(float64(g))
        assert np.isfinite(float64(x_bar)[finite]).all()

  def test_clip_of_infinite_gradients_is_finite(self):
    g = np.float16([np.inf, -np.inf, 6e4, 1e-3])
    _, x_bar = vjp(attach(quantizers.clip(1.0, 8192)), np.ones_like(g), g)
    want = np.float16([1, -1, 1, 1]) / np.float16(8192)
    np.testing.assert_array_equal(x_bar, want)

  def test_clip_leaves_small_gradients_bitwise_alone(self):
    g = np.random.default_rng(1).normal(size=500).astype(np.float32)
    x_bar = vjp(attach(quantizers.clip(9e3, 1000)), g, g)[1]
    np.testing.assert_array_equal(x_bar, g)

  def test_narrow_window_with_reciprocal_gain_keeps_the_mass(self):
    x = np.linspace(-2, 2, 4001, dtype=np.float32)
    masses = [
      vjp(attach(quantizers.window(c, 1 / c)), x, np.ones_like(x))[1].mean()
      for c in (0.5, 1.0)
    ]
    np.testing.assert_allclose(masses, 0.5, rtol=2e-3)


class TestText:
  """An estimator is written as the code that makes it."""

  @pytest.mark.parametrize(
    'row',
    [row for row in ESTIMATORS if row.make in EXPORTED],
    ids=lambda row: row.name,
  )
  def test_its_repr_is_a_name_that_makes_it(self, row):
    text = repr(row())
    again = quantizers.named(f'bitjax.quantizers:{text}')
    assert repr(again) == text
    assert jax.tree.structure(again) == jax.tree.structure(row())
    assert jax.tree.leaves(again) == jax.tree.leaves(row())

  def test_one_of_somebody_else_is_written_as_a_call(self):
    assert repr(attach(pull(0.25))) == 'attach(sign(), _pull(0.25))'
    rule = lambda g, x, x_q, progress: g
    assert repr(attach(rule)) == 'attach(sign(), <lambda>)'


class TestShapesAndTypes:
  """Any shape, any float; everything else is a ValueError."""

  @every_estimator
  def test_any_shape(self, row):
    shapes = [(), (0,), (3, 0), (2, 3, 4)]
    x = [np.full(shape, -0.25, np.float32) for shape in shapes]
    g = [np.full(shape, 0.0625, np.float32) for shape in shapes]
    inputs = dict(enumerate(map(list, zip(x, g, strict=True))))
    with jax.numpy_rank_promotion('raise'):
      outputs = vjps(attach(row()), inputs, row.progress)
    for shape, (x_q, x_bar) in zip(shapes, outputs.values(), strict=True):
      assert x_q.shape == x_bar.shape == shape
      np.testing.assert_array_equal(x_q, -np.ones(shape))
      row.check(x_bar, np.float64(0.0625), np.float64(-0.25), -1.0)

  @every_estimator
  def test_cotangent_has_dtype_of_x(self, row):
    """This holds for all dtypes of staircase, hyperparameters and progress."""
    for returned, dtype in itertools.product(DTYPES, DTYPES):
      x = jnp.zeros(3, dtype)
      cast = float if dtype == returned else np.float32
      staircase = jax.tree_util.Partial(lambda x, t=returned: x.astype(t))
      quantize = quantizers.attach(staircase, jax.tree.map(cast, row()))
      x_q, x_bar = jax.eval_shape(vjp, quantize, x, x, cast(row.progress))
      assert x_q.dtype == returned
      assert x_bar.dtype == dtype

  @pytest.mark.parametrize(
    'x', [1, True, np.arange(3), np.ones(2, bool), 1j], ids=repr
  )
  def test_rejects_what_is_not_floating(self, x):
    quantize = attach(quantizers.identity())
    with pytest.raises(types.BadInput, match='needs a floating x; got dtype'):
      quantize(x)

  @pytest.mark.parametrize(
    'progress', [-0.01, 1.01, float('nan'), np.float32(2), 5, 'jax']
  )
  def test_rejects_progress_outside_its_range(self, progress):
    progress = jnp.float32(-1) if progress == 'jax' else progress
    quantize = attach(quantizers.identity())
    with pytest.raises(types.BadInput, match=r'progress must be in \[0'):
      quantize(jnp.ones(2), progress=progress)

  @pytest.mark.parametrize('progress', [0, 1, 0.5, np.float32(1)])
  def test_accepts_progress_in_its_range(self, progress):
    x = np.float32([0.7, 1.0, 1.4])
    _, x_bar = vjp(attach(narrowing(1.5)), x, np.ones_like(x), progress)
    want = x <= 1.5 * (1 - 0.5 * float(progress))
    np.testing.assert_array_equal(x_bar, want)

  @pytest.mark.parametrize(
    ('make', 'hyper'),
    [
      pytest.param(row.make, bad, id=f'{row.name}-{bad}')
      for row in ESTIMATORS
      for bad in row.bad
    ],
  )
  def test_rejects_bad_hyperparameters(self, make, hyper):
    name = list(hyper)[-1]
    with pytest.raises(types.BadInput, match=rf'{name}.* must be .*; got'):
      make(**hyper)


def _over_lanes(transform):
  """Sweeps estimator and progress over three lanes; the middle one is as given."""

  def swept(x, quantize, progress, g):
    lanes = jax.tree.map(
      lambda leaf: jnp.asarray([0.5 * leaf, leaf, 2.0 * leaf]), quantize
    )
    progresses = jnp.asarray([0.0, progress, 1.0])
    grads = jax.vmap(transform, in_axes=(None, 0, 0, None))
    return grads(x, lanes, progresses, g)[1]

  return swept


def _in_scan(transform):
  """Transforms within a scan, so that progress is a tracer, as in training."""

  def scanned(x, quantize, progress, g):
    def step(carry, progress):
      return carry, transform(x, carry, progress, g)

    quantize = jax.tree.map(jnp.float32, quantize)
    progresses = jnp.asarray([0.0, progress, 1.0])
    return jax.lax.scan(step, quantize, progresses)[1][1]

  return scanned


def _through_scan(x, quantize, progress, g):
  def total(x):
    def step(carry, row):
      return carry + loss(row[0], quantize, progress, row[1]), None

    return jax.lax.scan(step, 0.0, (x, g))[0]

  return jax.grad(total)(x)


def _closed_over(transform):
  """Transforms a function that closes over the quantizer and its tracers."""

  @jax.jit
  def outer(x, quantize, progress, g):
    def inner(x, g):
      return loss(x, quantize, progress, g)

    return jax.grad(transform(inner))(x, g)

  return outer


GRADIENTS = {
  'jit(grad)': jax.jit(jax.grad(loss)),
  'grad(jit)': jax.grad(jax.jit(loss)),
  'grad(checkpoint)': jax.grad(jax.checkpoint(loss)),
  'jit(grad(checkpoint(jit)))': jax.jit(
    jax.grad(jax.checkpoint(jax.jit(loss)))
  ),
  'vmap(grad(jit))': jax.vmap(
    jax.grad(jax.jit(loss)), in_axes=(0, None, None, 0)
  ),
  'grad(jit) of a closure': _closed_over(jax.jit),
  'grad(checkpoint) of a closure': _closed_over(jax.checkpoint),
  'lanes(grad(jit))': _over_lanes(jax.grad(jax.jit(loss))),
  'lanes(closure)': _over_lanes(_closed_over(jax.checkpoint)),
  'scan(grad)': _in_scan(jax.grad(loss)),
  'grad(scan)': _through_scan,
}


# The rest of these are parts of one another.
NESTED = (
  'jit(grad(checkpoint(jit)))',
  'vmap(grad(jit))',
  'lanes(closure)',
  'scan(grad)',
  'grad(scan)',
)

# Each estimator runs in one program that nests all these transformations.
_CLOSURE = _closed_over(jax.checkpoint)
WHOLE = _in_scan(_over_lanes(_CLOSURE))
ELEMENTS = _in_scan(_over_lanes(jax.vmap(_CLOSURE, (0, None, None, 0))))


class TestTransformations:
  """The same gradient under every nesting, and no leaked tracers."""

  x = np.float32([0.0, -0.3, 0.5, 0.9, -1.4, 1.6, 2.5])
  g = np.float32([0.5, 0.1, -0.1, 2.0, 0.2, -0.3, 0.06])

  @slow  # `test_every_nesting_equals_rule` tests one estimator in each nesting.
  @every_estimator
  def test_scan_of_lanes_of_elements_equals_rule(self, row):
    nested = ELEMENTS if row.elementwise else WHOLE
    with jax.checking_leaks():
      x_bar = jax.jit(nested)(self.x, attach(row()), row.progress, self.g)
    row.check(x_bar, self.g, self.x, sign_of(self.x))

  @pytest.mark.parametrize(
    'nesting',
    [
      pytest.param(name, marks=() if name in NESTED else slow)
      for name in GRADIENTS
    ],
  )
  def test_every_nesting_equals_rule(self, nesting):
    (row,) = (row for row in ESTIMATORS if row.name == 'annealed')
    with jax.checking_leaks():
      x_bar = GRADIENTS[nesting](self.x, attach(row()), row.progress, self.g)
    want = row.expected(self.g, self.x, sign_of(self.x))
    np.testing.assert_allclose(x_bar, want, rtol=1e-6)

  def test_window_width_swept_by_vmap(self):
    widths = np.float32([0.25, 0.5, 1.0, 2.0])
    x = np.linspace(-3, 3, 25, dtype=np.float32)

    def passed(half_width):
      estimator = quantizers.window(half_width)
      quantize = quantizers.attach(quantizers.sign(), estimator)
      return jax.grad(jax.jit(lambda x: jnp.sum(quantize(x))))(x)

    with jax.checking_leaks():
      got = jax.jit(jax.vmap(passed))(widths)
    want = np.abs(x) <= np.asarray(widths)[:, None]
    np.testing.assert_array_equal(got, want)

  @every_estimator
  def test_hyperparameters_are_leaves_with_zero_gradient(self, row):
    quantize = jax.tree.map(np.float32, attach(row()))
    sent = jax.tree.leaves(quantize)
    assert all(np.float32(value) in sent for value in row.hyper.values())
    got = jax.jit(jax.grad(loss, argnums=1))(
      self.x, quantize, row.progress, self.g
    )
    assert jax.tree.structure(got) == jax.tree.structure(quantize)
    assert all(leaf == 0 for leaf in jax.tree.leaves(got))

  @every_estimator
  def test_equal_quantizers_share_one_trace(self, row):
    traces = []

    @jax.jit
    def step(x, quantize, progress):
      traces.append(None)
      return jax.grad(loss)(x, quantize, progress, x)

    for factor in (1.0, 1.0, 3.0):
      hyper = {k: factor * v for k, v in row.hyper.items()}
      x = np.linspace(-2, 2, 9, dtype=np.float32)
      got = step(x, attach(row(**hyper)), row.progress / factor)
      row.check(got, x, x, sign_of(x), row.progress / factor, **hyper)
    assert len(traces) == 1


def noisy_sign(amplitude=1.0):
  """The tests' own random staircase."""
  return jax.tree_util.Partial(_noisy_sign, amplitude)


def _noisy_sign(amplitude, x, *, key):
  noise = jax.random.uniform(key, x.shape, x.dtype, -1, 1)
  return jnp.where(x + amplitude * noise >= 0, 1, -1).astype(x.dtype)


class TestStaircases:
  """Staircases without an estimator, and random staircases."""

  @every_dtype
  @every_staircase
  def test_equals_rule_around_kinks(self, name, dtype):
    make, rule, kinks = STAIRCASES[name]
    x = around(kinks, dtype)
    got = jax.jit(make())(x)
    assert got.dtype == x.dtype
    want = rule(float64(x))
    np.testing.assert_array_equal(float64(got), want)

  @every_staircase
  def test_compositions(self, name):
    make, rule, kinks = STAIRCASES[name]
    x = np.stack(2 * [around(kinks, 'float32')])
    want = rule(float64(x))
    np.testing.assert_array_equal(jax.jit(make())(x), want)
    np.testing.assert_array_equal(jax.vmap(make())(x), want)
    np.testing.assert_array_equal(jax.lax.map(make(), x), want)
    assert make()(jnp.zeros((0, 2))).shape == (0, 2)
    assert jax.tree.structure(make()) == jax.tree.structure(make())

  @pytest.mark.parametrize('dtype', DTYPES)
  def test_signed_zeros_are_positive(self, dtype):
    got = quantizers.sign()(jnp.asarray([0.0, -0.0], dtype))
    np.testing.assert_array_equal(float64(got), [1, 1])

  def test_own_gradient_is_zero(self):
    sign = quantizers.sign()
    grad = jax.jit(jax.grad(lambda x: jnp.sum(sign(x))))(np.arange(-2.0, 3))
    np.testing.assert_array_equal(grad, np.zeros(5))

  def test_random_staircase_draws_by_its_key(self):
    x = jnp.zeros(200)
    quantize = quantizers.attach(noisy_sign(), quantizers.window(1.0))
    draw = jax.jit(lambda seed: quantize(x, key=jax.random.key(seed)))
    first, again, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(first, again)
    assert 50 < np.sum(np.asarray(first) != np.asarray(other)) < 150
    with pytest.raises(types.BadInput, match='key must be a random key'):
      quantize(x)

  def test_random_staircase_with_traced_amplitude(self):
    x = np.linspace(-2, 2, 50, dtype=np.float32)
    amplitudes = np.float32([0.0, 0.5, 2.0])

    def run(amplitude, seed):
      quantize = quantizers.attach(
        noisy_sign(amplitude), quantizers.window(amplitude + 0.5)
      )

      def total(x):
        x_q = quantize(x, key=jax.random.key(seed))
        return jnp.sum(x_q), x_q

      return jax.grad(jax.checkpoint(total), has_aux=True)(x)

    with jax.checking_leaks():
      grads, outputs = jax.jit(jax.vmap(run))(amplitudes, np.arange(3))
    for seed, amplitude in enumerate(amplitudes):
      key = jax.random.key(seed)
      noise = float64(jax.random.uniform(key, x.shape, x.dtype, -1, 1))
      want = np.where(x + amplitude * noise >= 0, 1, -1)
      np.testing.assert_array_equal(outputs[seed], want)
      np.testing.assert_array_equal(grads[seed], np.abs(x) <= amplitude + 0.5)

  def test_leaves_of_a_random_staircase_are_not_hidden(self):
    """Differentiated hyperparameters must not be closed over."""
    x = np.zeros(4, np.float32)

    def total(amplitude, seed):
      quantize = quantizers.attach(noisy_sign(amplitude), quantizers.identity())
      return jnp.sum(quantize(x, key=jax.random.key(seed)))

    assert jax.jit(jax.grad(total))(1.0, 0) == 0
