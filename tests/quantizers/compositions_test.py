"""Quantizers composed of other quantizers equal their rules in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import types

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 3)).astype(np.float32)
G = RNG.normal(size=(9, 3)).astype(np.float32)


@jax.jit
def vjp(quantize, x, g):
  y, pull_back = jax.vjp(quantize, x)
  return y, *pull_back(g)


def ste(staircase=None, estimator=None):
  return quantizers.attach(
    staircase or quantizers.sign(), estimator or quantizers.identity()
  )


def close(got, want, rtol=2e-6):
  np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-6)


class TestStandardized:
  """Weights are standardised; `detached` drops the statistics' gradients."""

  w = np.float64(X)
  hat = (w - w.mean(axis=0)) / w.std(axis=0, ddof=1)

  @pytest.mark.parametrize('detached', [False, True])
  def test_equals_formula(self, detached):
    quantize = quantizers.standardized(
      ste(estimator=quantizers.window(1.0)), detached=detached
    )
    y, x_bar = vjp(quantize, X, G)
    np.testing.assert_array_equal(y, np.where(self.hat >= 0, 1, -1))
    g = G * (np.abs(self.hat) <= 1)
    if not detached:
      n = len(g)
      g = g - g.mean(axis=0) - self.hat * np.sum(self.hat * g, axis=0) / (n - 1)
    close(x_bar, g / self.w.std(axis=0, ddof=1), rtol=1e-5)

  def test_convolution_kernels_and_equal_weights(self):
    kernel = RNG.normal(size=(2, 2, 3, 4)).astype(np.float32)
    kernel[..., 1] = 0.5
    identity = quantizers.standardized(lambda x: x)
    y, x_bar = vjp(identity, kernel, kernel)
    flat = np.float64(kernel).reshape(-1, 4)
    hat = (flat - flat.mean(axis=0))[:, [0, 2, 3]]
    hat /= hat.std(axis=0, ddof=1)
    close(np.asarray(y).reshape(-1, 4)[:, [0, 2, 3]], hat)
    np.testing.assert_array_equal(y[..., 1], 0)
    assert np.isfinite(x_bar).all()

  @pytest.mark.optimised
  @pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
  @pytest.mark.parametrize(
    'size',
    [2, 4097, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 10, 999))],
  )
  def test_constants_up_to_rounding(self, size, dtype):
    """A constant is 0 of either sign of rounding; one other last bit is seen."""
    limit = float(jnp.finfo(dtype).max)
    values = np.array([0.1, -0.3, 1 / 3, 1, 1e-30, 1e30, 3e38, 1e-4, 6e4])
    values = values[np.abs(values) <= limit]
    constant = np.tile(np.asarray(values, jnp.dtype(dtype)), (size, 1))
    random = np.random.default_rng(size)
    up = random.random(constant.shape) < 0.5
    up[0], up[1] = True, False
    integer = f'int{constant.dtype.itemsize * 8}'
    bits = constant.view(integer) + up.astype(integer)
    x = np.concatenate([constant, bits.view(constant.dtype)], axis=1)
    g = random.normal(size=x.shape).astype(x.dtype)
    y, x_bar = vjp(quantizers.standardized(lambda x: x), x, g)

    num = len(values)
    np.testing.assert_array_equal(np.float32(y[:, :num]), 0)
    exact_g = np.float64(g[:, :num])
    exact_g -= exact_g.mean(axis=0)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
      np.float64(x_bar[:, :num]), exact_g, rtol=4 * eps, atol=8 * eps
    )
    seen = np.float64(x[:, num:])
    seen = np.where(np.abs(values) > 1e-20, seen, seen * 1e20)  # Not 0 / 0.
    hat = (seen - seen.mean(axis=0)) / seen.std(axis=0, ddof=1)
    if dtype != 'float16':  # The last bit of 1e-30 is subnormal, hence 0.
      tolerance = max(4 * eps, 4e-6)  # Sums of 4097 terms are taken in float32.
      np.testing.assert_allclose(
        np.float64(y[:, num:]), hat, rtol=tolerance, atol=tolerance
      )

  def test_signs_of_a_constant_unit_are_positive(self):
    quantize = quantizers.standardized(ste())
    g = np.tile(G[:1], (10, 1))  # Along the direction that keeps it constant.
    y, x_bar = vjp(quantize, np.full((10, 3), 0.1, np.float32), g)
    np.testing.assert_array_equal(y, 1)
    np.testing.assert_allclose(x_bar, 0, atol=1e-6)

  def test_irnet_weights(self):
    quantize = quantizers.standardized(
      quantizers.scaled(ste(), quantizers.power_of_two())
    )
    y, _ = vjp(quantize, X, G)
    scale = 2 ** np.rint(np.log2(np.abs(self.hat).mean(axis=0)))
    np.testing.assert_array_equal(y, np.where(self.hat >= 0, 1, -1) * scale)


class TestScaled:
  """Codes are multiplied by a scale, which has a gradient unless detached."""

  @pytest.mark.parametrize('detached', [False, True])
  @pytest.mark.parametrize('coupling', ['column', 'tensor'])
  def test_xnor_net(self, coupling, detached):
    scaling = quantizers.mean_abs(coupling, detached=detached)
    quantize = quantizers.scaled(ste(estimator=quantizers.window(1.0)), scaling)
    y, x_bar = vjp(quantize, X, G)
    axis = 0 if coupling == 'column' else None
    sign = np.where(X >= 0, 1.0, -1.0)
    alpha = np.abs(np.float64(X)).mean(axis=axis)
    close(y, alpha * sign)
    want = alpha * G * (np.abs(X) <= 1)
    if not detached:
      count = X.size if axis is None else len(X)
      want = want + sign * np.sum(sign * G, axis=axis) / count
    close(x_bar, want)


class TestDorefa:
  """Equals the authors' code, larq's, and the ports' (``'identity'``)."""

  @pytest.mark.parametrize('bits', [1, 2, 4])
  def test_activations(self, bits):
    n = 2**bits - 1
    ties = (np.arange(n) + 0.5) / n
    x = np.float32([-np.inf, -1, 0, 1, np.inf, *ties])
    x = np.concatenate([x, np.nextafter(x, np.float32(-9)), X.ravel()])
    x = np.where(np.abs(x) < 1e-30, 0, x).astype(np.float32)
    y, x_bar = vjp(quantizers.dorefa_activations(bits), x, np.ones_like(x))
    codes = np.rint(np.clip(x, 0, 1) * np.float32(n))
    close(y, codes / n)
    np.testing.assert_array_equal(x_bar, (x >= 0) & (x <= 1))

  @pytest.mark.parametrize('variant', quantizers.DOREFA_VARIANTS)
  @pytest.mark.parametrize('bits', [1, 2, 4])
  def test_weights(self, bits, variant):
    y, x_bar = vjp(quantizers.dorefa_weights(bits, variant=variant), X, G)
    w, n = np.float64(X), 2**bits - 1
    if bits == 1 and variant == 'authors':
      close(y, np.abs(w).mean() * np.where(w >= 0, 1, -1))
      close(x_bar, G)
      return
    t = np.tanh(w)
    m = np.abs(t).max()
    close(y, 2 * np.rint(n * (t / (2 * m) + 0.5)) / n - 1)
    want = np.float64(G)
    if variant != 'identity':
      g_t = G / m
      if variant == 'authors':
        g_t = g_t - (np.abs(t) == m) * np.sign(t) * np.sum(G * t) / m**2
      want = (1 - t**2) * g_t
    close(x_bar, want, rtol=1e-5)

  @pytest.mark.parametrize('variant', ['authors', 'larq'])
  def test_tiny_weights(self, variant):
    """The square of the largest one is 0 in float32; gradients are not NaN."""
    quantize = quantizers.dorefa_weights(2, variant=variant)
    unit = np.float32(2.0**-90)
    y, x_bar = vjp(quantize, unit * X, G)
    u = np.float64(X) / np.abs(X).max() / 2 + 0.5
    close(y, 2 * np.rint(3 * u) / 3 - 1)
    size = np.abs(np.float64(X))
    want = np.float64(G) / size.max()
    if variant == 'authors':
      top = size == size.max()
      want -= top * np.sign(X) / size.max() ** 2 * np.sum(G * np.float64(X))
    np.testing.assert_allclose(
      np.float64(x_bar) * unit, want, rtol=1e-5, atol=1e-5
    )

  def test_activations_are_a_staircase_and_weights_are_not(self):
    staircase = quantizers.staircase(quantizers.dorefa_activations(2))
    assert staircase.num_levels == 4
    assert quantizers.staircase(quantizers.dorefa_weights(2)) is None


def test_dtypes_shapes_and_equal_structure():
  makes = [
    lambda: quantizers.standardized(ste()),
    lambda: quantizers.scaled(ste(), quantizers.mean_abs()),
    lambda: quantizers.scaled(ste(), quantizers.power_of_two('tensor')),
    lambda: quantizers.dorefa_activations(2),
    lambda: quantizers.dorefa_weights(1),
    lambda: quantizers.dorefa_weights(3, variant='identity'),
  ]
  for make in makes:
    quantize = make()
    assert jax.tree.structure(quantize) == jax.tree.structure(make())
    for dtype in ('float32', 'float16', 'bfloat16'):
      x = jax.ShapeDtypeStruct((3, 2, 4), dtype)
      y, x_bar = jax.eval_shape(vjp, quantize, x, x)
      assert y == x_bar == x
    zeros = jax.jit(quantize)(jnp.zeros((3, 2)))
    assert np.isfinite(zeros).all()


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: quantizers.dorefa_activations(0), r'bits .* \[1, 16\]; got 0'),
    (lambda: quantizers.dorefa_weights(0), r'bits .* \[1, 16\]; got 0'),
    (
      lambda: quantizers.dorefa_weights(2, variant='torch'),
      'variant must be one of authors, larq, identity',
    ),
    (lambda: quantizers.dorefa_weights(2)(np.arange(3)), 'needs a floating x'),
    (
      lambda: quantizers.scaled(ste(), quantizers.mean_abs())(np.arange(3)),
      'needs a floating x',
    ),
    (
      lambda: quantizers.standardized(ste())(X[:1]),
      r'at least 2 weights for each unit; got shape \(1, 3\)',
    ),
    (lambda: quantizers.power_of_two('row'), 'coupling must be one of'),
    (
      lambda: quantizers.scaled(quantizers.sign(), quantizers.mean_abs()),
      'must take the progress, as attach.* A staircase alone passes no gradient',
    ),
    (
      lambda: quantizers.standardized(quantizers.uniform(2, step='unit')),
      'A staircase alone passes no gradient',
    ),
    (
      lambda: quantizers.at_progress(quantizers.ternary(), 0.5),
      'A staircase alone passes no gradient',
    ),
  ],
)
def test_bad_input_is_refused(call, message):
  with pytest.raises(types.BadInput, match=message):
    call()


def test_magnitude_aware_sign_of_larq():
  """The entry of `docs/quantizers.md`: values and gradients are scaled alike."""
  sign = quantizers.attach(quantizers.sign(), quantizers.window())
  quantize = quantizers.scaled(sign, quantizers.mean_abs())
  y, x_bar = vjp(quantize, X, G)
  scale = np.abs(X).mean(axis=0)
  close(y, scale * np.where(X >= 0, 1, -1))
  close(x_bar, scale * G * (np.abs(X) <= 1))
