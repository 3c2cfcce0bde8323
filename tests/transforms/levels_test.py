"""Projections onto scaled levels, against every assignment of levels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import transforms
from bitjax import types

# Name -> what is given, the levels, and how many weights are enumerated.
LEVELS = {
  'sign': (quantizers.sign(), (-1, 1), 12),
  'shifted': (quantizers.shifted_sign(0.3), (-1, 1), 9),
  'heaviside': (quantizers.heaviside(), (0, 1), 12),
  'ternary': (quantizers.ternary(0.5), (-1, 0, 1), 7),
  'unsigned': (quantizers.uniform(2, signed=False), (0, 1 / 3, 2 / 3, 1), 6),
  'signed': (quantizers.uniform(2, step=0.5), (-1, -0.5, 0, 0.5), 6),
  'narrow': (
    quantizers.uniform(3, narrow=True, step='unit'),
    tuple(n / 3 for n in range(-3, 4)),
    4,
  ),
  'powers': ((-4, -2, -1, 0, 1, 2, 4), (-4, -2, -1, 0, 1, 2, 4), 4),
}


def draw(size, trial):
  rng = np.random.default_rng(trial)
  x = rng.normal(size=size)
  if trial % 3 == 1:  # Zeros and ties.
    x = np.round(2 * x) / 2
  return np.float32(np.abs(x) if trial % 3 == 2 else x)


def smallest_error(x, levels, scale=None):
  """The smallest squared distance, over all assignments of levels."""
  q = np.array(list(itertools.product(levels, repeat=x.size)))
  x = np.float64(x)
  square = (q * q).sum(axis=1)
  if scale is None:
    scale = np.maximum(q @ x, 0) / np.where(square > 0, square, 1)
  return np.min(((x - np.reshape(scale, (-1, 1)) * q) ** 2).sum(axis=1))


def error(x, found):
  return np.sum((np.float64(x) - np.float64(found.values)) ** 2)


QUICK = ('sign', 'heaviside', 'ternary', 'powers')


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in LEVELS
  ],
)
def test_the_projection_is_the_best_of_all_assignments(name):
  given, levels, size = LEVELS[name]
  project = jax.jit(
    lambda x: (
      transforms.project_levels(x, given),
      transforms.project_levels(x, given, scale=0.7),
      transforms.project_levels(x, given, method='alternate'),
    )
  )
  worse = 0
  for trial in range(9):
    x = draw(size, trial)
    best = smallest_error(x, levels)
    fitted, fixed, alternated = project(x)
    np.testing.assert_allclose(error(x, fitted), best, atol=2e-6)
    np.testing.assert_allclose(
      error(x, fixed), smallest_error(x, levels, 0.7), atol=2e-6
    )
    codes = np.float64(fitted.values) / max(np.float64(fitted.scale), 1e-30)
    np.testing.assert_allclose(
      np.abs(codes[:, None] - np.array(levels)).min(axis=1), 0, atol=1e-5
    )
    assert error(x, alternated) >= best - 2e-6
    worse += error(x, alternated) > best + 1e-4
  # The alternation is a local search, but for two opposite levels.
  assert worse == 0 or levels != (-1, 1)


def test_the_alternation_may_end_elsewhere():
  given, levels, size = LEVELS['narrow']
  found = [
    error(x, transforms.project_levels(x, given, method='alternate'))
    > smallest_error(x, levels) + 1e-4
    for x in (draw(size, trial) for trial in range(12))
  ]
  assert any(found) and not all(found)


def test_binary_scales_are_mean_magnitudes():
  x = draw((5, 3), 0)
  for method in ('exact', 'alternate'):
    found = transforms.project_levels(x, quantizers.sign(), method=method)
    np.testing.assert_allclose(found.scale, np.abs(x).mean(), rtol=1e-6)
  np.testing.assert_array_equal(np.sign(found.values), np.sign(x))


@pytest.mark.parametrize(
  'axis', [1, *(pytest.param(a, marks=pytest.mark.slow) for a in (0, -1))]
)
@pytest.mark.parametrize(
  'method', [pytest.param('exact', marks=pytest.mark.slow), 'alternate']
)
def test_each_channel_is_projected_by_itself(axis, method):
  x = draw((3, 2, 4), 0)
  options = {'levels': quantizers.ternary(0.2), 'method': method}
  found = transforms.project_levels(x, channel_axis=axis, **options)
  assert found.values.shape == x.shape
  for channel in range(x.shape[axis]):
    row = np.take(x, channel, axis)
    alone = transforms.project_levels(row, **options)
    got = np.take(np.asarray(found.values), channel, axis)
    np.testing.assert_allclose(got, alone.values, rtol=1e-6)
    np.testing.assert_allclose(found.scale[channel], alone.scale, rtol=1e-6)


@pytest.mark.slow
def test_zeros_and_single_weights_and_what_is_not_finite():
  sign = quantizers.sign()
  found = transforms.project_levels(jnp.array([0.0, -0.0]), sign, scale=2.0)
  np.testing.assert_array_equal(found.values, [2.0, 2.0])
  zero = transforms.project_levels(jnp.zeros((2, 3)), (-1, 0, 1))
  assert zero.scale == 0 and not zero.values.any()
  empty = transforms.project_levels(jnp.zeros((0, 3)), sign)
  assert empty.values.shape == (0, 3) and empty.scale == 0
  one = transforms.project_levels(jnp.float32(-0.3), (-2, -1, 0, 1, 2))
  np.testing.assert_allclose(one.values, -0.3, rtol=1e-6)
  # No scale >= 0 brings levels >= 0 nearer to what is negative.
  below = transforms.project_levels(-jnp.ones(3), quantizers.heaviside())
  assert below.scale == 0
  x = jnp.array([[1.0, np.nan], [1.0, 2.0], [np.inf, 1.0]])
  rows = transforms.project_levels(x, sign, channel_axis=0).values
  assert np.isnan(rows).all(axis=1).tolist() == [True, False, True]
  fixed = transforms.project_levels(x, sign, scale=1.0).values
  np.testing.assert_array_equal(fixed, [[1, np.nan], [1, 1], [1, 1]])


@pytest.mark.slow
def test_grids_of_many_levels_are_listed_too():
  x = draw(5, 0)
  grid = quantizers.uniform(6, step=0.25)
  found = transforms.project_levels(x, grid, scale=1.0)
  np.testing.assert_array_equal(found.values, np.round(4 * x) / 4)
  fitted = transforms.project_levels(x, grid)
  assert error(x, fitted) <= error(x, found) and error(x, fitted) < 1e-3


@pytest.mark.slow
def test_levels_may_be_traced():
  def project(step, x):
    grid = quantizers.uniform(2, step=step)
    return transforms.project_levels(x, grid).values

  x = draw(6, 0)
  found = jax.jit(jax.vmap(project, (0, None)))(jnp.array([0.25, 2.0]), x)
  # The scale takes up the step.
  want = transforms.project_levels(x, (-2, -1, 0, 1)).values
  np.testing.assert_allclose(found, [want, want], rtol=1e-5)


def test_bad_input():
  project, sign = transforms.project_levels, quantizers.sign()
  steps = quantizers.uniform(2, step=jnp.ones(3), channel_axis=0)
  quantizer = quantizers.attach(sign, quantizers.identity())
  for call, message in (
    (lambda: project(jnp.ones(3), (1.0,)), 'two or more distinct'),
    (lambda: project(jnp.ones(3), (1.0, 1.0)), 'two or more distinct'),
    (lambda: project(jnp.ones(3), (0.0, np.nan)), 'levels must be finite'),
    (lambda: project(jnp.ones(3), 'sign'), r"levels must be.*got 'sign'"),
    (lambda: project(jnp.ones(3), quantizer), r'quantizers\.staircase\('),
    (
      lambda: project(jnp.ones(3), quantizers.ternary()),
      'declares its levels',
    ),
    (lambda: project(jnp.ones(3), steps), 'the same for all weights'),
    (lambda: project(jnp.ones(3, int), sign), 'x must be floating'),
    (lambda: project(jnp.ones(3), sign, scale=0.0), 'scale must be > 0'),
    (lambda: project(jnp.ones(3), sign, method='x'), 'exact, alternate'),
    (lambda: project(jnp.ones(3), sign, channel_axis=1), 'channel_axis must'),
  ):
    with pytest.raises(types.BadInput, match=message):
      call()
