"""Checks what every learned quantizer must satisfy, from a row for each.

A new quantizer is one row of `LEARNED`: how to make it, its parameters, the rule in NumPy
(float64) for each element's value and its derivatives, and the rule's kinks.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import quantizers
from bitjax import types


@dataclasses.dataclass(frozen=True)
class Row:
  """``rule(x, **qparams) -> y, dy/dx, {name: dy/dparam}``, elementwise."""

  name: str
  make: Callable[[], quantizers.Quantizer]
  qparams: dict[str, Any]
  rule: Callable[..., Any]
  kinks: tuple[float, ...]
  channels: int = 0  # 0 for a vector; else x is [examples, channels].
  infinite: bool = True
  side: float = 0.0  # To a kink's neighbours in float32; 0 for the next float.
  bits: int | None = 2

  def x(self, dtype):
    """Each kink and its neighbours, plain values, infinities."""
    dtype = jnp.dtype(dtype)
    kinks = np.asarray(self.kinks, dtype)
    if self.side and dtype == np.float32:
      sides = [kinks - np.float32(self.side), kinks + np.float32(self.side)]
    else:
      away = np.where(kinks == 0, 2.0**-12, 0).astype(dtype)
      sides = [
        np.nextafter(kinks - away, np.asarray(-9, dtype)),
        np.nextafter(kinks + away, np.asarray(9, dtype)),
      ]
    plain = np.random.default_rng(0).uniform(-3, 3, 9).astype(dtype)
    ends = [np.inf, -np.inf] if self.infinite else [4.0, -4.0]
    x = np.concatenate([kinks, *sides, plain, np.asarray(ends, dtype)])
    return np.stack(self.channels * [x], axis=1) if self.channels else x

  def params(self):
    return {k: np.float32(v) for k, v in self.qparams.items()}

  def expected(self, x):
    x = np.asarray(x).astype(np.float64)
    with np.errstate(invalid='ignore'):
      y, dx, dq = self.rule(x, **self.qparams)
    assert set(dq) == set(self.qparams)
    return tuple(np.broadcast_to(a, x.shape) for a in (y, dx, *dq.values()))


def _lsq(x, step, low, high, batch=False, offset=None, clip_codes=False):
  step, channels = np.asarray(step), np.size(step)
  share = (x.shape[1] if batch else x.size) // channels
  v = (x - (0 if offset is None else np.asarray(offset))) / step
  inside = (v > low) & (v < high)
  if clip_codes:
    inside = (np.rint(v) >= low) & (np.rint(v) <= high)
  y = step * np.clip(np.rint(v), low, high)
  slope = np.where(inside, np.rint(v) - v, np.clip(v, low, high))
  dq = {'step': slope / np.sqrt(share * high)}
  if offset is not None:
    y, dq = y + offset, {'offset': 1.0 * ~inside, **dq}
  return y, 1.0 * inside, dq


def _pact(x, alpha, leak=False):
  step = alpha / 3
  clipped = np.clip(x, 0, alpha)
  y = step * np.rint(clipped / step)
  slope = 1.0 * (x >= alpha)
  if leak:
    slope = slope + (np.rint(clipped / step) - clipped / step) / 3
  return y, 1.0 * ((x >= 0) & (x < alpha)), {'alpha': slope}


def _ttq(x, negative, positive):
  threshold = 0.25 * np.abs(x).max(axis=0)
  up, down = x > threshold, x < -threshold
  y = np.where(up, positive, np.where(down, -np.asarray(negative), 0))
  dx = np.where(up, positive, np.where(down, negative, 1))
  return y, dx, {'negative': -1.0 * down, 'positive': 1.0 * up}


def _dsq(x, alpha, lower, upper, step='tanh', level='soft'):
  n = 3
  width = (upper - lower) / n
  i = np.clip(np.floor((x - lower) / width), 0, n - 1)
  middle = lower + (i + 0.5) * width
  s, k = 1 / (1 - alpha), np.log(2 / alpha - 1) / width
  tau = np.tanh(k * (x - middle))
  code = i + (s * tau >= 0)
  p = 0.5 * s * k * width * (1 - tau**2)
  ds = s**2 * tau
  dk = -2 / (alpha * (2 - alpha)) / width
  phi = s * tau
  if step == 'hardtanh':
    inside = np.abs(s * k * (x - middle)) <= 1
    phi = np.clip(s * k * (x - middle), -1, 1)
    p = 0.5 * s * k * width * inside
    ds = s**2 * k * (x - middle) * inside
    dk, tau = dk * inside, 0
  index = i + (phi + 1) / 2 if level == 'soft' else code
  up = (index - p * (x - lower) / width) / n
  below, above = x < lower, x > upper

  def choose(inside, at_lower, at_upper):
    return np.where(below, at_lower, np.where(above, at_upper, inside))

  soft = ds + s * (1 - tau**2) * (x - middle) * dk
  dq = {
    'alpha': choose(width / 2 * soft, 0, 0),
    'lower': choose(1 - p - up, 1, 0),
    'upper': choose(up, 0, 1),
  }
  return choose(lower + width * code, lower, upper), choose(p, 0, 0), dq


def _dsq_window(x, alpha, lower, upper):
  return _dsq(x, alpha, lower, upper, 'hardtanh')


def _dsq_hard(x, alpha, lower, upper):
  return _dsq(x, alpha, lower, upper, level='hard')


def _dsq_fixed(x, lower, upper):
  y, dx, dq = _dsq(x, 0.25, lower, upper)
  return y, dx, {name: dq[name] for name in ('lower', 'upper')}


def _rsign(x, threshold):
  x = x - threshold
  passed = 1.0 * (np.abs(x) <= 1)
  return np.where(x >= 0, 1.0, -1.0), passed, {'threshold': -passed}


def _rprelu(x, shift_in, shift_out, slope):
  x = x - shift_in
  up = x > 0
  y = np.where(up, x, slope * x) + shift_out
  dx = np.where(up, 1, slope)
  dq = {'shift_in': -dx, 'shift_out': 1.0, 'slope': np.where(up, 0, x)}
  return y, dx, dq


def halves(low, high, step):
  return tuple(step * k / 2 for k in range(2 * low - 1, 2 * high + 2))


CLOSE = 2.0**-20  # After a subtraction, nearer floats may be equal.
LEARNED = (
  Row(
    'lsq',
    lambda: quantizers.lsq(2),
    {'step': 0.25},
    lambda x, step: _lsq(x, step, -2, 1),
    halves(-2, 1, 0.25),
  ),
  Row(
    'lsq of activations',
    lambda: quantizers.lsq(3, signed=False, batch_axes=1),
    {'step': 0.5},
    lambda x, step: _lsq(x, step, 0, 7, batch=True),
    halves(0, 7, 0.5),
    channels=2,
    bits=3,
  ),
  Row(
    'lsq, narrow, of channels',
    lambda: quantizers.lsq(3, narrow=True, channel_axis=-1),
    {'step': [0.25, 1.0]},
    lambda x, step: _lsq(x, step, -3, 3),
    halves(-3, 3, 0.25) + halves(-3, 3, 1.0),
    channels=2,
    bits=3,
  ),
  Row(
    'lsq+',
    lambda: quantizers.lsq(2, offset=True),
    {'offset': 0.5, 'step': 0.25},
    lambda x, offset, step: _lsq(x, step, -2, 1, offset=offset),
    halves(0, 3, 0.25),
    side=CLOSE,
  ),
  Row(
    'lsq+ of channels, clipped codes',
    lambda: quantizers.lsq(
      3, signed=False, channel_axis=1, offset=True, clip_codes=True
    ),
    {'offset': [-1.0, 0.25], 'step': [0.5, 0.25]},
    lambda x, offset, step: _lsq(x, step, 0, 7, offset=offset, clip_codes=True),
    halves(-2, 5, 0.5) + halves(1, 8, 0.25),
    channels=2,
    bits=3,
    side=CLOSE,
  ),
  Row(
    'lsq, clipped codes',
    lambda: quantizers.lsq(2, clip_codes=True),
    {'step': 0.25},
    lambda x, step: _lsq(x, step, -2, 1, clip_codes=True),
    halves(-3, 2, 0.25),
  ),
  Row(
    'pact',
    lambda: quantizers.pact(2),
    {'alpha': 1.5},
    _pact,
    (0.0, 0.25, 0.75, 1.25, 1.5),
  ),
  Row(
    'pact through its step',
    lambda: quantizers.pact(2, through_step=True),
    {'alpha': 1.5},
    functools.partial(_pact, leak=True),
    (0.0, 0.25, 0.75, 1.25, 1.5),
  ),
  Row(
    'ttq',
    lambda: quantizers.ttq(0.25),
    {'negative': 0.5, 'positive': 3.0},
    _ttq,
    (-1.0, 0.0, 1.0),
    infinite=False,
  ),
  Row(
    'ttq of channels',
    lambda: quantizers.ttq(0.25, channel_axis=1),
    {'negative': [0.5, 2.0], 'positive': [3.0, 0.25]},
    _ttq,
    (-1.0, 0.0, 1.0),
    channels=2,
    infinite=False,
  ),
  *(
    Row(
      name,
      functools.partial(quantizers.learned_dsq, 2, **options),
      {'lower': -1.0, 'upper': 2.0}
      if 'alpha_end' in options
      else {'alpha': 0.25, 'lower': -1.0, 'upper': 2.0},
      rule,
      (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0),
      side=CLOSE,
    )
    for name, options, rule in (
      ('dsq', {}, _dsq),
      ('dsq by its hard level', {'level': 'hard'}, _dsq_hard),
      ('dsq with a window', {'step': 'hardtanh'}, _dsq_window),
      ('dsq of one alpha', {'alpha': 0.25, 'alpha_end': 0.25}, _dsq_fixed),
    )
  ),
  Row(
    'rsign',
    lambda: quantizers.rsign(quantizers.window(1.0)),
    {'threshold': [0.5, -0.25]},
    _rsign,
    (-1.25, -0.5, -0.25, 0.5, 0.75, 1.5),
    channels=2,
    side=CLOSE,
    bits=1,
  ),
  Row(
    'rprelu',
    lambda: quantizers.rprelu(),
    {'shift_in': [0.5, -1.0], 'shift_out': [0.25, 2.0], 'slope': [0.25, 3.0]},
    _rprelu,
    (-1.0, 0.5),
    channels=2,
    infinite=False,
    bits=None,
  ),
)
every_row = pytest.mark.parametrize('row', LEARNED, ids=lambda row: row.name)


@functools.cache
def pull_backs(dtype):
  """Returns each row's y, and cotangents of qparams and x for each element."""

  def run(rows):
    results = []
    for quantizer, qparams, x in rows:
      y, pull = jax.vjp(quantizer.apply, qparams, x)
      ones = jnp.eye(x.size, dtype=y.dtype).reshape(-1, *x.shape)
      results.append((y, *jax.vmap(pull)(ones)))
    return results

  rows = [(row.make(), row.params(), row.x(dtype)) for row in LEARNED]
  results = jax.jit(run)(rows)
  return {row.name: r for row, r in zip(LEARNED, results, strict=True)}


class TestRule:
  """Forward, input gradient and parameter gradients, element by element."""

  @pytest.mark.parametrize(
    'dtype',
    ['float32', 'bfloat16', pytest.param('float16', marks=pytest.mark.slow)],
  )
  @every_row
  def test_equals_rule_around_kinks(self, row, dtype):
    x = row.x(dtype)
    y, qparams_bar, x_bar = pull_backs(dtype)[row.name]
    assert y.dtype == x_bar.dtype == x.dtype
    want_y, want_dx, *want_dq = row.expected(x)
    eps = float(jnp.finfo(dtype).eps)
    tolerance = 1e-6 if dtype == 'float32' else eps

    def close(got, want):
      got = np.asarray(got).astype(np.float64)
      np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance / 2)

    close(y, want_y)
    x_bar = np.asarray(x_bar).astype(np.float64).reshape(x.size, x.size)
    close(x_bar, np.diag(want_dx.ravel()))
    for name, want in zip(qparams_bar, want_dq, strict=True):
      got = qparams_bar[name]
      assert got.dtype == np.float32
      if got.ndim == 2:  # Each element moves the parameter of its channel.
        channel = np.arange(x.size) % row.channels
        own = np.eye(row.channels, dtype=bool)[channel]
        want = np.where(own, want.reshape(-1, 1), 0)
      close(got, want.reshape(got.shape))

  @every_row
  def test_bits_and_structure(self, row):
    assert row.make().bits == row.bits
    structure = jax.tree.structure
    assert structure(row.make()) == structure(row.make())

  @every_row
  def test_its_repr_makes_it(self, row):
    text = repr(row.make())
    again = eval(text, vars(quantizers))
    assert repr(again) == text
    assert jax.tree.structure(again) == jax.tree.structure(row.make())
    assert jax.tree.leaves(again) == jax.tree.leaves(row.make())

  @pytest.mark.parametrize('cast', [np.int64, np.uint8, jnp.int32])
  def test_bits_may_be_integers_of_any_kind(self, cast):
    structure = jax.tree.structure
    for make in (quantizers.lsq, quantizers.pact, quantizers.learned_dsq):
      assert structure(make(cast(2))) == structure(make(2))
      assert type(make(cast(2)).bits) is int


class TestTransformations:
  """The same gradients under every nesting, and no leaked tracers."""

  @pytest.mark.parametrize(
    'some',
    [LEARNED[1:4:2], pytest.param(LEARNED[1::2], marks=pytest.mark.slow)],
    ids=['two', 'one of each file'],
  )
  def test_every_nesting_equals_rule(self, some):
    rng = np.random.default_rng(1)

    def loss(qparams, x, quantizer, progress, g):
      bound = quantizers.bind(quantizer, qparams)
      return jnp.sum(bound(x, progress=progress) * g)

    grad = jax.grad(loss, argnums=(0, 1))

    def nestings(quantizer, qparams, x, g):
      def step(carry, progress):
        return carry, grad(carry, x, quantizer, progress, g)

      @jax.checkpoint
      def closure(qparams, x):  # Closes over tracers.
        return jax.jit(loss)(qparams, x, quantizer, 0.5, g)

      lanes = jax.tree.map(lambda p: jnp.stack([2 * p, p]), qparams)
      swept = jax.vmap(grad, in_axes=(0, None, None, None, None))
      scanned = jax.lax.scan(step, qparams, jnp.asarray([0.0, 1.0]))[1]
      return [
        jax.grad(closure, argnums=(0, 1))(qparams, x),
        jax.tree.map(lambda a: a[1], swept(lanes, x, quantizer, 1.0, g)),
        jax.tree.map(lambda a: a[1], scanned),
      ]

    rows = []
    for row in some:
      x = row.x('float32')
      x = np.where(np.isfinite(x), x, 2.5).astype(np.float32)
      g = rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
      rows.append((row.make(), row.params(), x, g))
    with jax.checking_leaks():
      results = jax.jit(lambda rows: [nestings(*row) for row in rows])(rows)
    for row, (_, _, x, g), result in zip(some, rows, results, strict=True):
      _, dx, *dq = row.expected(x)
      for qparams_bar, x_bar in result:
        np.testing.assert_allclose(x_bar, dx * g, rtol=3e-6, atol=1e-6)
        for (name, got), d in zip(qparams_bar.items(), dq, strict=True):
          want = np.sum(d * g, axis=None if got.ndim == 0 else 0)
          np.testing.assert_allclose(
            got, want, rtol=1e-5, atol=1e-5, err_msg=f'{row.name} {name}'
          )

  def test_any_shape(self):
    shapes = [(), (0,), (2, 3, 4)]
    of_channels = {'ttq of channels': [(0, 2)]}

    def run(rows):
      results = []
      for row, quantizer in zip(LEARNED, rows, strict=True):
        known = of_channels.get(row.name)
        others = [(0, 2), (3, 4, 2)] if row.channels else shapes
        for shape in known or others:
          x = jnp.full(shape, 0.75)
          qparams = quantizer.init(None, x)
          y = quantizer.apply(qparams, x)
          assert y.shape == shape
          results.append(jax.tree.map(jnp.isfinite, qparams))
      return results

    results = jax.jit(run)([row.make() for row in LEARNED])
    assert all(np.all(leaf) for leaf in jax.tree.leaves(results))


def normal(*shape):
  return np.random.default_rng(2).normal(size=shape).astype(np.float32)


class TestInit:
  """Initial values of the parameters."""

  def test_lsq(self):
    x = normal(40, 3)
    got = quantizers.lsq(3).init(None, x)['step']
    want = 2 * np.abs(x).mean() / np.sqrt(3)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    got = quantizers.lsq(2, signed=False, channel_axis=1).init(None, x)['step']
    want = 2 * np.abs(x).mean(axis=0) / np.sqrt(3)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert quantizers.lsq(2).init(None, np.zeros(3, np.float32))['step'] == 1
    plus = quantizers.lsq(2, channel_axis=1, offset=True)
    qparams = plus.init(None, x)
    y = plus.apply(qparams, x)
    np.testing.assert_allclose(y.min(axis=0), x.min(axis=0), rtol=1e-5)
    np.testing.assert_allclose(y.max(axis=0), x.max(axis=0), rtol=1e-5)
    flat = plus.init(None, np.full((3, 2), 0.5, np.float32))
    np.testing.assert_array_equal(flat['step'], [1, 1])

  def test_ttq(self):
    x = np.float32([4, 2, 0.9, -0.5, -3])
    got = quantizers.ttq(0.25).init(None, x)
    assert {k: float(v) for k, v in got.items()} == {
      'positive': 3.0,
      'negative': 3.0,
    }
    got = quantizers.ttq(0.25).init(None, np.abs(x))
    assert got['negative'] == 1

  def test_others(self):
    x = normal(40, 3)
    assert quantizers.pact(4, alpha=6.0).init(None, x) == {'alpha': 6.0}
    for bits, codes in ((2, 3), (4, 15)):  # Its step is that of LSQ.
      got = quantizers.pact(bits).init(None, x)['alpha'] / codes
      step = quantizers.lsq(bits, signed=False).init(None, np.maximum(x, 0))
      np.testing.assert_allclose(got, step['step'], rtol=1e-6)
    for nothing in (-np.abs(x), x[:0]):
      assert quantizers.pact(2).init(None, nothing) == {'alpha': 1.0}
    pact = quantizers.pact(2)
    assert len(np.unique(pact.apply(pact.init(None, x), x))) == 4
    got = quantizers.learned_dsq(2, alpha=0.3).init(None, x)
    want = {'alpha': np.float32(0.3), 'lower': x.min(), 'upper': x.max()}
    assert got == want
    sign = quantizers.rsign(quantizers.identity())
    np.testing.assert_array_equal(sign.init(None, x)['threshold'], np.zeros(3))
    for dtype in ('bfloat16', 'float16'):
      got = quantizers.lsq(2).init(None, jnp.asarray(x, dtype))
      assert got['step'].dtype == np.float32


class TestBehaviour:
  """Properties that single quantizers are documented to have."""

  def test_nan_stays_nan_or_is_minus_one(self):
    x = np.float32([np.nan, 0.5])
    for make in (
      lambda: quantizers.lsq(2),
      lambda: quantizers.pact(2),
      lambda: quantizers.learned_dsq(2),
    ):
      quantizer = make()
      y = quantizer.apply(quantizer.init(None, np.float32([1, -1])), x)
      np.testing.assert_array_equal(np.isnan(y), [True, False])
    rsign = quantizers.rsign(quantizers.identity())
    assert rsign.apply({'threshold': jnp.zeros(2)}, x)[0] == -1

  def test_clipped_codes_shrink_the_gradient_of_the_step(self):
    """The rules differ just beyond the range; the values are the same."""
    x = np.float32(4) * normal(4096)
    quantizer, codes = (quantizers.lsq(2, clip_codes=c) for c in (False, True))

    def value(step, quantizer):
      y = quantizer.apply({'step': step}, x)
      return jnp.sum(y), y

    grad = jax.grad(value, has_aux=True)
    (paper, y), (others, other_y) = (grad(3.0, q) for q in (quantizer, codes))
    np.testing.assert_array_equal(y, other_y)
    assert abs(paper - others) > 0.1 * abs(others)

  def test_dsq_has_the_gradients_of_the_estimator(self):
    """`learned_dsq` and `dsq` agree for every x, at the ends of the range too."""
    x = np.append(np.linspace(-3, 3, 97, dtype=np.float32), [-1, 2])
    qparams = {'alpha': 0.25, 'lower': -1.0, 'upper': 2.0}

    def both(step):
      learned = quantizers.learned_dsq(2, step=step)
      y, pull = jax.vjp(lambda x: learned.apply(qparams, x), x)
      rule = quantizers.dsq(0.25, low=-1, high=2, levels=4, step=step)
      return pull(jnp.ones_like(y))[0], rule(jnp.ones_like(y), x, y, 1.0)

    for got, want in jax.jit(lambda: [*map(both, quantizers.SOFT_STEPS)])():
      np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

  def test_dsq_starts_with_a_gradient_for_every_weight(self):
    x, quantizer = normal(64), quantizers.learned_dsq(2)

    def start(x):
      qparams = quantizer.init(None, x)
      return qparams, jax.grad(lambda x: jnp.sum(quantizer.apply(qparams, x)))(
        x
      )

    qparams, gradients = jax.jit(start)(x)
    assert qparams['lower'] == x.min() and qparams['upper'] == x.max()
    assert np.all(gradients > 0)

  def test_dsq_has_as_many_levels_as_its_bits_say(self):
    """The highest level is u itself, also where u - l is not a float."""
    ends = {'alpha': 0.2, 'lower': -0.3, 'upper': 0.7 / 3}
    x = np.linspace(-1, 1, 501, dtype=np.float32)
    made = [quantizers.learned_dsq(bits) for bits in (1, 2, 3)]
    for y, count in zip(
      jax.jit(lambda x: [quantizer.apply(ends, x) for quantizer in made])(x),
      (2, 4, 8),
      strict=True,
    ):
      assert len(np.unique(y)) == count
      assert y.max() == np.float32(0.7 / 3) and y.min() == np.float32(-0.3)

  @pytest.mark.parametrize('bits', [1, 2, 3])
  def test_dsq_gradient_mass_is_the_range(self, bits):
    """Each interval's gradient integrates to its width, for every alpha."""
    quantizer = quantizers.learned_dsq(bits)
    x = np.linspace(-1, 2, 24 * 400 + 1, dtype=np.float32)[1::2]

    def mass(alpha):
      qparams = {'alpha': alpha, 'lower': -1.0, 'upper': 2.0}
      grads = jax.grad(lambda x: jnp.sum(quantizer.apply(qparams, x)))(x)
      return 3 * jnp.mean(grads)

    masses = jax.jit(jax.vmap(mass))(jnp.asarray([0.05, 0.2, 0.6]))
    np.testing.assert_allclose(masses, 3.0, rtol=1e-3)

  def test_scheduled_dsq_is_that_of_its_alpha(self):
    """Halfway between 0.4 and 0.1, by equal factors, is 0.2."""
    x, ends = normal(64), {'lower': jnp.float32(-2), 'upper': jnp.float32(1.5)}

    def gradient(quantizer, progress):
      found = lambda x: jnp.sum(quantizer.apply(ends, x, progress=progress))
      return jax.grad(found)(x)

    scheduled = quantizers.learned_dsq(2, alpha=0.4, alpha_end=0.1)
    assert 'alpha' not in scheduled.init(None, x)
    fixed = quantizers.learned_dsq(2, alpha=0.2, alpha_end=0.2)
    middle = gradient(scheduled, 0.5)
    np.testing.assert_allclose(middle, gradient(fixed, 0.5), rtol=1e-5)
    assert np.abs(middle - gradient(scheduled, 1.0)).max() > 0.1

  def test_learned_thresholds_fit_shifted_data(self):
    """A learned threshold approaches the value at which labels change."""
    quantizer = quantizers.rsign(quantizers.window(1.0))
    x = normal(256, 1)
    labels = np.where(x >= 0.4, 1.0, -1.0)

    def loss(qparams):
      return jnp.mean((quantizer.apply(qparams, x) - labels) ** 2)

    def step(qparams, _):
      grads = jax.grad(loss)(qparams)
      return jax.tree.map(lambda p, g: p - 0.05 * g, qparams, grads), None

    qparams = quantizer.init(None, x)
    qparams, _ = jax.lax.scan(step, qparams, None, 200)
    np.testing.assert_allclose(qparams['threshold'], 0.4, atol=0.1)

  def test_bound_staircases_are_what_is_computed(self):
    x = 3 * normal(50, 2)
    for row in LEARNED:
      bound = quantizers.bind(row.make(), row.params())
      staircase = quantizers.staircase(bound)
      if staircase is None:
        assert row.name.startswith(('ttq', 'dsq', 'rprelu', 'lsq+'))
        continue
      np.testing.assert_allclose(staircase(x), bound(x), rtol=1e-6)


RATES = {'adam': (0.1, 1.0), 'sgd': (1.0,)}
STARTS = (0.0, 0.1, -0.1, -1.0, 10.0, -253.0)  # Multiples of good parameters.
FAST = ('dsq',)
FREE = ('rsign', 'rprelu')  # Any number is in the domain of their parameters.


@functools.cache
def trainings(name):
  """Trains the parameters of a row from bad starts, to act as the row's parameters.

  Returns `losses`, a dict from optimisers and rates to [starts, updates], and `fine`,
  a dict from properties that must always hold to whether they always did.
  """
  row = next(row for row in LEARNED if row.name == name)
  quantizer = row.make()
  good = jax.tree.map(jnp.asarray, row.params())
  x = normal(32, row.channels) if row.channels else normal(64)
  goal = quantizer.apply(good, x)

  def loss(qparams):
    y = quantizer.apply(qparams, x)
    return jnp.mean((y - goal) ** 2), y

  adam = optax.scale_by_adam()

  def train(qparams, is_adam, rate):
    def step(carry, _):
      qparams, state = carry
      (value, y), grads = jax.value_and_grad(loss, has_aux=True)(qparams)
      scaled, state = adam.update(grads, state)
      inside = quantizer.effective(qparams)
      fine = {
        'finite': [jnp.isfinite(a).all() for a in (y, *grads.values())],
        'positive': [
          jnp.all(inside[name] > 0)
          for name in ('step', 'alpha', 'negative', 'positive')
          if name in inside
        ],
        'a range': [inside['lower'] <= inside['upper']]
        if 'lower' in inside
        else [],
      }
      fine = {key: jnp.all(jnp.asarray(all_)) for key, all_ in fine.items()}
      qparams = jax.tree.map(
        lambda p, u, g: p - rate * jnp.where(is_adam, u, g),
        *(qparams, scaled, grads),
      )
      return (qparams, state), (value, fine)

    start = (qparams, adam.init(qparams))
    return jax.lax.scan(step, start, None, 300)[1]

  settings = [(name, rate) for name in RATES for rate in RATES[name]]
  is_adam = jnp.asarray([name == 'adam' for name, _ in settings])
  rates = jnp.asarray([rate for _, rate in settings])
  starts = jax.tree.map(
    lambda p: jnp.stack([factor * p for factor in STARTS]), good
  )
  run = jax.vmap(jax.vmap(train, (0, None, None)), (None, 0, 0))
  losses, fine = jax.jit(run)(starts, is_adam, rates)
  fine = {key: bool(np.all(value)) for key, value in fine.items()}
  return dict(zip(settings, np.asarray(losses), strict=True)), fine


class TestDomains:
  """Optimisers may carry a parameter anywhere: it stays valid, and it returns."""

  some_rows = pytest.mark.parametrize(
    'name',
    [
      pytest.param(row.name, marks=[] if row.name in FAST else pytest.mark.slow)
      for row in LEARNED
      if row.name not in FREE
    ],
  )

  @some_rows
  def test_no_training_leaves_the_domain(self, name):
    _, fine = trainings(name)
    assert fine == {'finite': True, 'positive': True, 'a range': True}

  @some_rows
  def test_the_loss_falls_from_the_boundary(self, name):
    losses, _ = trainings(name)
    boundary = slice(0, 3)  # At zero, and close to it on either side.
    for setting, curves in losses.items():
      first, curves = curves[boundary, 0], curves[boundary]
      assert np.all(curves.min(axis=1) < 0.7 * first), setting
      if setting != (
        'adam',
        1.0,
      ):  # The steps of which are as large as the range.
        assert np.all(curves[:, -50:].min(axis=1) < 0.3 * first), setting

  @every_row
  def test_inside_its_domain_a_parameter_is_what_is_stored(self, row):
    quantizer = row.make()
    inside = quantizer.effective(row.params())
    assert set(inside) == set(row.qparams)
    for name, value in row.params().items():
      np.testing.assert_array_equal(inside[name], value)

  @pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
  def test_stored_in_16_bits_a_parameter_stays_inside_its_domain(self, dtype):
    x = normal(20)
    one = jnp.ones((), dtype)
    for quantizer, qparams in (
      (quantizers.lsq(2), {'step': 0 * one}),
      (quantizers.pact(2), {'alpha': 0 * one}),
      (
        quantizers.learned_dsq(2),
        {'alpha': 0.999 * one, 'lower': -one, 'upper': one},
      ),
    ):
      y, pull = jax.vjp(lambda q, a=quantizer: a.apply(q, x), qparams)
      assert np.isfinite(y).all()
      for bar in pull(y)[0].values():
        assert np.isfinite(bar) and bar.dtype == one.dtype

  def test_a_mirrored_parameter_acts_as_its_image(self):
    """Equal outputs; equal gradients but for their signs, or swapped."""
    x = normal(50)

    def outcomes(quantizer, *both):
      def total(qparams):
        y = quantizer.apply(qparams, x)
        return jnp.sum(y * x), y

      lanes = jax.tree.map(lambda *ends: jnp.stack(ends), *both)
      return jax.vmap(jax.grad(total, has_aux=True))(lanes)

    scales = {'negative': 0.5, 'positive': 2.0}
    dsq, ends = quantizers.learned_dsq(2), {'lower': -1.0, 'upper': 2.0}
    cases = [
      (quantizers.lsq(2), {'step': 0.3}, {'step': -0.3}),
      (quantizers.pact(2), {'alpha': 0.7}, {'alpha': -0.7}),
      (quantizers.ttq(), scales, {k: -v for k, v in scales.items()}),
      (dsq, {'alpha': 0.25, **ends}, {'alpha': 1.75, **ends}),
      (
        *(dsq, {'alpha': 0.25, **ends}),
        {'alpha': 0.25, 'lower': 2.0, 'upper': -1.0},
      ),
    ]
    results = jax.jit(lambda cases: [outcomes(*case) for case in cases])(cases)
    for (_, qparams, image), (both, (y, other)) in zip(
      cases, results, strict=True
    ):
      np.testing.assert_array_equal(y, other)
      grads, mirrored = ({k: v[i] for k, v in both.items()} for i in (0, 1))
      if image.get('lower') == 2:
        mirrored |= {'lower': mirrored['upper'], 'upper': mirrored['lower']}
        image = qparams
      for name in qparams:
        sign = 1 if qparams[name] == image[name] else -1
        assert mirrored[name] == sign * grads[name] != 0

  def test_a_projected_parameter_returns(self):
    """`optax.keep_params_nonnegative` puts it on 0, where 1 / 0 lurks."""
    tx = optax.chain(optax.adam(0.1), optax.keep_params_nonnegative())
    x = np.abs(normal(64))
    for quantizer, name in (
      (quantizers.lsq(2, signed=False), 'step'),
      (quantizers.pact(2), 'alpha'),
    ):
      start = {name: jnp.float32(0.1)}

      def loss(qparams, goal, quantizer=quantizer):
        return jnp.mean((quantizer.apply(qparams, x) - goal) ** 2)

      def update(carry, goal, loss=loss):
        qparams, state = carry
        value, grads = jax.value_and_grad(loss)(qparams, goal)
        updates, state = tx.update(grads, state, qparams)
        qparams = optax.apply_updates(qparams, updates)
        return (qparams, state), (value, qparams)

      goals = jnp.stack(100 * [0 * x - 1] + 200 * [x])
      _, (losses, passed) = jax.jit(
        lambda s, g, update=update: jax.lax.scan(update, (s, tx.init(s)), g)
      )(start, goals)
      assert np.isfinite(losses).all() and np.isfinite(passed[name]).all()
      assert np.any(passed[name] == 0)
      assert losses[-1] < 0.3 * losses[100]


X = np.ones((4, 3), np.float32)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: quantizers.lsq(1), r'bits must be an integer in \[2, 16\]; got 1'),
    (lambda: quantizers.lsq(0, signed=False), r'in \[1, 16\]; got 0'),
    (lambda: quantizers.lsq(2.0), 'got 2.0'),
    (
      lambda: quantizers.lsq(2, batch_axes=-1),
      'batch_axes must be an integer >= 0',
    ),
    (lambda: quantizers.pact(0), 'bits must be'),
    (lambda: quantizers.pact(2, alpha=0.0), 'alpha must be > 0'),
    (lambda: quantizers.ttq(-0.1), 'factor must be > 0'),
    (lambda: quantizers.learned_dsq(0), 'bits must be'),
    (
      lambda: quantizers.learned_dsq(2, alpha=0.0),
      r'alpha must be in \(0.0, 1',
    ),
    (
      lambda: quantizers.learned_dsq(2, alpha_end=1.0),
      'alpha_end must be',
    ),
    (lambda: quantizers.learned_dsq(2, step='cubic'), 'step must be'),
    (
      lambda: quantizers.learned_dsq(
        2, step=quantizers.window(), alpha_end=0.1
      ),
      'alpha_end must be None for steps of an estimator',
    ),
    (
      lambda: quantizers.learned_dsq(2, level='middle'),
      'level must be one of soft, hard',
    ),
    (lambda: quantizers.pact(2, alpha=-1.0), 'alpha must be > 0'),
    (lambda: quantizers.pact(2, alpha=np.inf), 'alpha must be > 0 and finite'),
    (
      lambda: quantizers.lsq(2).init(None, np.float32([0, np.nan])),
      'x, from which parameters are initialised, must be finite; got nan',
    ),
    (
      lambda: quantizers.ttq().init(None, np.float32([0, np.inf])),
      'must be finite; got inf',
    ),
    (
      lambda: quantizers.learned_dsq(2, alpha=1.0),
      r'alpha must be in \(0.0, 1',
    ),
    (
      lambda: quantizers.lsq(2, channel_axis=2).init(None, X),
      r'channel_axis must be in \[-2, 2\), an axis .* got 2',
    ),
    (
      lambda: quantizers.ttq(channel_axis=-3).init(None, X),
      r'channel_axis must be in \[-2, 2\)',
    ),
    (
      lambda: quantizers.lsq(2, channel_axis=0).apply({'step': X[0]}, X),
      r'step must have shape \(4,\) .* channel_axis 0; got \(3,\)',
    ),
    (
      lambda: quantizers.rsign(quantizers.identity()).init(None, X[0, 0]),
      'channel_axis must be',
    ),
    (lambda: quantizers.lsq(2).init(None, np.arange(3)), 'needs a floating x'),
    (
      lambda: quantizers.pact(2).apply({'alpha': 1.0}, np.arange(3)),
      'needs a floating x; got dtype int',
    ),
    (
      lambda: quantizers.pact(2).apply({'alpha': 1.0}, X, progress=2.0),
      'progress must be in',
    ),
  ],
)
def test_bad_input_is_refused(call, message):
  with pytest.raises(types.BadInput, match=message):
    call()
