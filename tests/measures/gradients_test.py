"""Measures of gradients, against SciPy and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bitjax import measures
from bitjax import types


def pair(shape=(7, 9), *, ties=False, seed=0):
  a, b = np.random.default_rng(seed).normal(size=(2, *shape))
  b = b + 0.5 * a
  if ties:
    a, b = np.round(a), np.round(b)
  return a.astype(np.float32), b.astype(np.float32)


def expected(a, b, top):
  a, b = (x.ravel().astype(np.float64) for x in (a, b))
  both = (a != 0) & (b != 0)
  num = int(np.ceil(top * a.size))
  best = [set(np.argsort(-np.abs(x), kind='stable')[:num]) for x in (a, b)]
  return measures.Agreement(
    a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    np.corrcoef(a, b)[0, 1],
    stats.spearmanr(a, b).statistic,
    np.mean(np.sign(a[both]) == np.sign(b[both])),
    len(best[0] & best[1]) / num,
  )


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('top', [0.01, 0.2, 1.0])
def test_agreement_is_what_scipy_says(ties, top):
  a, b = pair(ties=ties)
  found = measures.agreement(a, b, top=top)
  np.testing.assert_allclose(found, expected(a, b, top), rtol=2e-6)


def test_agreement_knows_no_scale():
  a, b = pair()
  scaled = jax.jit(measures.agreement)(a * 1e-25, b * 1e15)
  np.testing.assert_allclose(scaled, measures.agreement(a, b), rtol=1e-5)


@pytest.mark.parametrize('sign', [1, -1])
def test_agreement_with_itself(sign):
  a, _ = pair()
  found = measures.agreement(a, sign * a)
  np.testing.assert_allclose(found[:3], [sign] * 3, rtol=1e-6)
  assert found.sign_agreement == (sign > 0)
  assert found.top_precision == 1


def test_a_zero_gradient_agrees_with_nothing_and_nan_shows():
  a, _ = pair()
  found = measures.agreement(a, np.zeros_like(a))
  np.testing.assert_array_equal(found[:4], np.zeros(4))
  a[0, 0] = np.nan
  assert np.isnan(measures.agreement(a, a)).all()


def test_a_gradient_can_be_sorted_once():
  a, b = pair()
  first = measures.ranked(a, top=0.1)
  found = measures.agreement(first, measures.ranked(b, top=0.1))
  np.testing.assert_array_equal(found, measures.agreement(a, b, top=0.1))
  with pytest.raises(types.BadInput, match='tops 7 and 1'):
    measures.agreement(first, b)


@pytest.mark.parametrize('dtype', ['int32', 'bfloat16', 'float32'])
def test_what_enters_a_quantizer_may_have_any_dtype(dtype):
  x = np.arange(-4, 8).reshape(3, 4)
  with jax.numpy_dtype_promotion('strict'):
    found = measures.entering(jnp.asarray(x, dtype), jnp.int32([1, 4]))
  assert {value.dtype for value in found} == {jnp.dtype('float32')}
  want = [x.mean(), x.std(), [3 / 12, 9 / 12]]
  for got, wanted in zip(found, want, strict=True):
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_agreement_over_lanes():
  a, b = pair((3, 8, 5))
  found = jax.jit(jax.vmap(measures.agreement))(a, b)
  for lane in range(3):
    one = expected(a[lane], b[lane], 0.01)
    np.testing.assert_allclose([x[lane] for x in found], one, rtol=1e-5)


@pytest.mark.parametrize(
  'values', [[3.0], [2, 2, 2], [1, 3, 2, 3, 1], [0.0, -0.0, 1, -1]]
)
def test_ranks_are_scipys(values):
  found = measures.ranks(jnp.float32(values))
  np.testing.assert_array_equal(found, stats.rankdata(values) - 1)


def test_split_half_of_signal_and_noise():
  random = np.random.default_rng(1)
  signal = random.normal(size=20_000)
  noise = random.normal(size=(8, 20_000))
  found = measures.split_half(jnp.asarray(signal + noise, jnp.float32))
  # Of four batches each: variance 1 of signal, 1/4 of noise.
  np.testing.assert_allclose(found.halves.correlation, 1 / 1.25, atol=0.01)
  np.testing.assert_allclose(found.reliability, 1 / 1.125, atol=0.01)


def test_statistics_are_numpys():
  gradients = np.random.default_rng(2).normal(0.3, 2, (5, 6, 4))
  gradients[:, 0] = 0
  reference = np.random.default_rng(3).normal(size=(6, 4))
  found = measures.gradient_statistics(
    jnp.float32(gradients), jnp.float32(reference)
  )
  mean = gradients.mean(0)
  noise = gradients.var(0, ddof=1)
  # A least-squares fit, whose residual is what no learning rate mends.
  (gain,), (residual,), _, _ = np.linalg.lstsq(
    reference.reshape(-1, 1), mean.ravel(), rcond=None
  )
  want = measures.GradientStatistics(
    mean.mean(),
    mean.var(),
    noise.mean(),
    4 / 24,
    ((mean**2).sum() - noise.sum() / 5) / noise.sum(),
    gain,
    np.sqrt(residual) / np.linalg.norm(gain * reference),
  )
  np.testing.assert_allclose(found, want, rtol=2e-5)


def test_statistics_without_reference_or_noise():
  gradients = jnp.ones((3, 4))
  found = measures.gradient_statistics(gradients)
  assert (found.bias, found.gain, found.batch_variance) == (0, 0, 0)
  assert found.signal_to_noise == np.inf


@pytest.mark.optimised
@pytest.mark.parametrize('size', [10, 4097])
def test_what_is_constant_but_for_rounding_is_constant(size):
  """0.1 has no exact mean: neither noise nor correlation may come from that."""
  other = np.random.default_rng(size).normal(size=size).astype(np.float32)

  @jax.jit
  def measured(equal):
    return (
      measures.gradient_statistics(jnp.stack([equal] * 3), equal),
      measures.correlation(equal, other),
      measures.entering(equal, jnp.ones(1)).std,
    )

  for value in (0.1, -1e-30, 1e30):
    equal = jnp.full(size, value, jnp.float32)
    found, correlation, std = measured(equal)
    assert found.batch_variance == found.coordinate_variance == 0
    assert found.signal_to_noise == np.inf
    np.testing.assert_allclose(found.gain, 1, rtol=1e-6)
    np.testing.assert_allclose(found.bias, 0, atol=1e-6)
    assert correlation == std == 0


def test_statistics_do_not_depend_on_the_unit():
  gradients = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
  measure = jax.jit(measures.gradient_statistics)
  want = measure(gradients, gradients[0])
  for unit in (2.0**-100, 2.0**100):
    found = measure(gradients * unit, gradients[0] / unit)
    for name in ('signal_to_noise', 'bias', 'sparsity'):
      assert getattr(found, name) == getattr(want, name)
  nothing = measure(gradients, 0 * gradients[0])
  assert (nothing.gain, nothing.bias) == (0, np.inf)


@pytest.mark.slow
def test_bias_is_an_angle():
  reference = jnp.array([3.0, 0.0])
  gradients = jnp.array([[1.0, 1.0], [1.0, 1.0]])
  for scale in (1.0, -7.0):
    found = measures.gradient_statistics(scale * gradients, reference)
    np.testing.assert_allclose(found.bias, 1, rtol=1e-6)
    np.testing.assert_allclose(found.gain, scale / 3, rtol=1e-6)
  across = jnp.array([[0.0, 1.0], [0.0, 1.0]])
  assert measures.gradient_statistics(across, reference).bias == jnp.inf


@pytest.mark.slow
def test_signal_to_noise_is_unbiased():
  random = np.random.default_rng(4)
  gradients = random.normal(size=(4, 100_000)).astype(np.float32)
  found = measures.gradient_statistics(gradients)
  assert abs(found.signal_to_noise) < 0.01
  found = measures.gradient_statistics(gradients + 1)
  np.testing.assert_allclose(found.signal_to_noise, 1, atol=0.02)


def test_what_enters_a_window():
  x = np.float32([[-2, -0.5, 0], [0.5, 0.6, 3]])
  found = measures.entering(x, [0.0, 0.5, 2, 9])
  np.testing.assert_allclose(found.shares, np.array([1, 3, 5, 6]) / 6)
  np.testing.assert_allclose(
    [found.mean, found.std], [x.mean(), x.std()], rtol=1e-6
  )


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: measures.agreement(jnp.ones(3), jnp.ones(4)), 'as many'),
    (lambda: measures.agreement(jnp.ones(0), jnp.ones(0)), 'not be empty'),
    (lambda: measures.agreement(jnp.ones(3), jnp.ones(3), top=0), r'\(0, 1\]'),
    (lambda: measures.split_half(jnp.ones((3, 2))), 'even number'),
    (lambda: measures.gradient_statistics(jnp.ones((1, 2))), 'needs two'),
    (
      lambda: measures.gradient_statistics(jnp.ones((2, 2)), jnp.ones(3)),
      r'must have shape \(2,\)',
    ),
  ],
)
def test_bad_input(call, words):
  with pytest.raises(types.BadInput, match=words):
    call()
