"""Annealed staircases: relaxed before the end of progress, exact at its end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import types

DTYPES = ('float32', 'float16', 'bfloat16')
PROGRESS = (0.0, 0.3, 0.9, 1.0)
X = np.array([0.0, -0.0, 0.3, -0.3, 0.5, -0.5, 1.0, -1.0, 1.5, -2.5, 4e4, -4e4])
# In float32, as 2 x may exceed the range of float16.
TO_HALVES = jax.tree_util.Partial(
  lambda x: (jnp.round(2 * x.astype('float32')) / 2).astype(x.dtype)
)


def nearest(x, levels):
  """Returns the nearest level of each x; at a tie, the upper one."""
  levels = np.asarray(levels, np.float64)
  distances = np.abs(np.subtract.outer(x, levels[::-1]))
  return levels[::-1][np.argmin(distances, axis=-1)]


def _hardtanh_rule(x, p, start=1.0, end=4.0**-10):
  if p == 1:
    return np.where(x >= 0, 1.0, -1.0)
  width = start * (end / start) ** p
  return np.clip(x / width, -1, 1)


def _bitorch_rule(x, p):
  temperature = 1 - 4 ** (-10 * p)
  return np.clip(x / (1 - temperature), -1, 1) if p < 1 else nearest(x, [-1, 1])


def _boolnet_rule(x, p, updates=100):
  return np.clip(x / 0.965 ** (updates * p), -1, 1)


def _parq_rule(x, p, levels, s=10.0):
  if p == 1:
    return nearest(x, levels)
  falling = 1 / (1 + np.exp(s * (p - 0.5)))
  first, last = 1 / (1 + np.exp(-s / 2)), 1 / (1 + np.exp(s / 2))
  inverse_slope = (falling - last) / (first - last)
  above = np.clip(np.searchsorted(levels, x), 1, len(levels) - 1)
  lower, upper = np.asarray(levels)[above - 1], np.asarray(levels)[above]
  center = (lower + upper) / 2
  return np.clip(center + (x - center) / inverse_slope, lower, upper)


def _binary_relax_rule(x, p, project, start=1.0, end=100.0):
  strength = np.inf if p == 1 else start * (end / start) ** p
  if np.isinf(strength):
    return project(x)
  return (x + strength * project(x)) / (1 + strength)


def _prox_quant_rule(x, p, project, end):
  if p == 1:
    return project(x)
  residual = x - project(x)
  shrunk = np.maximum(np.abs(residual) - end * p, 0)
  return project(x) + np.sign(residual) * shrunk


def _sign(x):
  return np.where(x >= 0, 1.0, -1.0)


def _halves(x):
  return np.round(2 * x) / 2


ANNEALED = {
  'progressive hardtanh': (quantizers.progressive_hardtanh(), _bitorch_rule),
  'progressive hardtanh, slow': (
    quantizers.progressive_hardtanh(2.0, 0.5),
    lambda x, p: _hardtanh_rule(x, p, 2.0, 0.5),
  ),
  'PARQ': (quantizers.parq(), lambda x, p: _parq_rule(x, p, [-1.0, 1.0])),
  'PARQ, 2 bits': (
    quantizers.parq(4.0, low=0.0, high=3.0, levels=4),
    lambda x, p: _parq_rule(x, p, [0.0, 1.0, 2.0, 3.0], 4.0),
  ),
  'BinaryRelax': (
    quantizers.proximal(quantizers.sign()),
    lambda x, p: _binary_relax_rule(x, p, _sign),
  ),
  'BinaryRelax of halves': (
    quantizers.proximal(TO_HALVES, 0.5, 8.0),
    lambda x, p: _binary_relax_rule(x, p, _halves, 0.5, 8.0),
  ),
  'ProxQuant': (
    quantizers.proximal(
      quantizers.sign(), 0.0, 2.0, distance='l1', schedule='linear'
    ),
    lambda x, p: _prox_quant_rule(x, p, _sign, 2.0),
  ),
}
every = pytest.mark.parametrize('name', ANNEALED)


@pytest.mark.parametrize('cast', [int, np.int64, jnp.int32])
def test_parq_knows_the_bits_of_integers_of_any_kind(cast):
  assert quantizers.parq(levels=cast(5)).bits == 3


@jax.jit
def forward(staircase, inputs, progress):
  quantize = quantizers.attach(staircase, quantizers.identity())
  return {k: quantize(x, progress=progress) for k, x in inputs.items()}


class TestForward:
  """The rule at every progress, and the staircase itself at the end."""

  @every
  def test_equals_rule(self, name):
    staircase, rule = ANNEALED[name]
    inputs = {dtype: jnp.asarray(X, dtype) for dtype in DTYPES}
    for progress in PROGRESS:
      outputs = forward(staircase, inputs, progress)
      for dtype, x in inputs.items():
        assert outputs[dtype].dtype == dtype
        eps = 0 if dtype == 'float32' else float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(
          np.float64(outputs[dtype]),
          rule(np.asarray(x).astype(np.float64), progress),
          rtol=1e-6 + eps,
          atol=1e-6 + eps,
          err_msg=f'{dtype} at progress {progress}',
        )

  def test_is_the_staircase_itself_at_the_end_and_by_default(self):
    x = jnp.asarray([0.0, -0.0, 1e-30, -1e-30, jnp.inf, -jnp.inf, jnp.nan])
    staircases = [
      quantizers.progressive_hardtanh(),
      quantizers.parq(),
      quantizers.proximal(quantizers.sign()),
      quantizers.proximal(quantizers.sign(), distance='l1'),
    ]

    @jax.jit
    def run(staircases, x):
      estimator = quantizers.identity()
      return [[s(x), quantizers.attach(s, estimator)(x)] for s in staircases]

    for outputs in run(staircases, x):
      for got in outputs:
        np.testing.assert_array_equal(got, quantizers.sign()(x))

  @every
  def test_infinite_and_nan_before_the_end(self, name):
    staircase, _ = ANNEALED[name]
    x = jnp.asarray([jnp.inf, -jnp.inf, jnp.nan, 3e38, -3e38])
    got = np.asarray(forward(staircase, {'x': x}, 0.5)['x'])
    assert np.isnan(got[2]) and not np.isnan(got[[0, 1, 3, 4]]).any()
    assert got[0] >= got[3] > 0.9 and got[1] <= got[4] < 0.1

  def test_boolnet_shrinks_the_width_in_every_update(self):
    staircase = quantizers.progressive_hardtanh(1.0, 0.965**100)
    for progress in (0.0, 0.25, 0.5):
      got = forward(staircase, {'x': np.float32(X)}, progress)['x']
      want = _boolnet_rule(X, progress)
      np.testing.assert_allclose(got, want, rtol=1e-5)

  def test_shrinking_window_is_the_true_derivative_of_the_hardtanh(self):
    staircase = quantizers.progressive_hardtanh(1.0, 0.1)
    estimator = quantizers.shrinking_window(1.0, 0.1)
    x = np.linspace(-1.5, 1.5, 41, dtype=np.float32)
    quantize = quantizers.attach(staircase, estimator)

    def slope(function, progress):
      return jax.grad(lambda x: function(x, progress=progress).sum())(x)

    @jax.jit
    def slopes(progress):
      return slope(quantize, progress), slope(staircase, progress)

    for progress in (0.0, 0.4, 0.8):
      got, true = slopes(progress)
      np.testing.assert_allclose(got, true, rtol=1e-6)


class TestAttach:
  """Progress reaches the staircase as a leaf, with a key if it draws."""

  def test_under_vmap_scan_grad_and_checkpoint(self):
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    ends = np.float32([0.5, 0.1])

    def run(end, progress):
      quantize = quantizers.attach(
        quantizers.progressive_hardtanh(1.0, end),
        quantizers.window(progress + 0.5),
      )

      def total(x):
        x_q = quantize(x, progress=progress)
        return jnp.sum(x_q), x_q

      return jax.grad(jax.checkpoint(total), has_aux=True)(x)

    def step(carry, progress):
      return carry, jax.vmap(run, (0, None))(ends, progress)

    with jax.checking_leaks():
      progresses = jnp.asarray([0.0, 0.5])
      _, (grads, outputs) = jax.jit(
        lambda progresses: jax.lax.scan(step, None, progresses)
      )(progresses)
    for i, progress in enumerate((0.0, 0.5)):
      for j, end in enumerate(ends):
        want = _hardtanh_rule(x, progress, 1.0, end)
        np.testing.assert_allclose(outputs[i, j], want, rtol=1e-6)
        passed = np.abs(x) <= progress + 0.5
        np.testing.assert_array_equal(grads[i, j], passed)

  def test_progress_and_key_together(self):
    def dithered(amplitude, x, *, progress, key):
      noise = jax.random.uniform(key, x.shape, minval=-1)
      return x + amplitude * (1 - progress) * noise

    staircase = quantizers.Annealed(jax.tree_util.Partial(dithered, 0.5))
    quantize = quantizers.attach(staircase, quantizers.identity())
    x = jnp.ones(8)
    key = jax.random.key(0)
    noise = jax.random.uniform(jax.random.clone(key), x.shape, minval=-1)
    got = quantize(x, progress=0.25, key=key)
    np.testing.assert_allclose(got, 1 + 0.375 * noise, rtol=1e-6)
    assert jax.tree.leaves(staircase) == [0.5]

  def test_other_staircases_never_see_progress(self):
    quantize = quantizers.attach(quantizers.sign(), quantizers.identity())
    np.testing.assert_array_equal(quantize(jnp.ones(2), progress=0.5), [1, 1])


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: quantizers.progressive_hardtanh(0.0), 'start must be > 0'),
    (lambda: quantizers.progressive_hardtanh(end=-1.0), 'end must be > 0'),
    (lambda: quantizers.parq(0.0), 'steepness must be > 0'),
    (lambda: quantizers.parq(low=1.0), 'high - low must be > 0'),
    (lambda: quantizers.parq(high=np.inf), 'high must be finite'),
    (lambda: quantizers.parq(levels=1), 'levels must be in'),
    (lambda: quantizers.proximal(TO_HALVES, 0.0), 'start must be > 0'),
    (
      lambda: quantizers.proximal(TO_HALVES, -1.0, schedule='linear'),
      'start must be >= 0',
    ),
    (lambda: quantizers.proximal(TO_HALVES, distance='l3'), 'distance must be'),
    (lambda: quantizers.proximal(TO_HALVES, schedule='x'), 'schedule must be'),
  ],
)
def test_rejects_bad_hyperparameters(make, message):
  with pytest.raises(types.BadInput, match=message):
    make()
