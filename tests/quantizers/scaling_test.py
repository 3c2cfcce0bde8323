"""Scales computed from the weights, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import types

KERNEL = np.random.default_rng(0).normal(size=(5, 3))
AXES = {'column': 0, 'tensor': None}


@pytest.mark.parametrize('coupling', AXES)
def test_equals_numpy(coupling):
  scaling = quantizers.mean_abs(coupling)
  got = jax.jit(scaling)(np.float32(KERNEL))
  want = np.abs(KERNEL).mean(axis=AXES[coupling])
  np.testing.assert_allclose(got, want, rtol=1e-6)
  assert got.shape == want.shape
  assert scaling.coupling == coupling


@pytest.mark.parametrize('coupling', AXES)
@pytest.mark.parametrize('detached', [True, False])
def test_gradient_equals_finite_differences(coupling, detached):
  weights = np.random.default_rng(1).normal(size=KERNEL.shape)

  def function(kernel):
    """(scale(w) * w) . weights: w acts through the scale and directly."""
    scaling = quantizers.mean_abs(coupling, detached=detached)
    return jnp.sum(scaling(kernel) * kernel * weights)

  def value(kernel):
    scaled_by = KERNEL if detached else kernel
    scale = np.abs(scaled_by).mean(axis=AXES[coupling])
    return np.sum(scale * kernel * weights)

  step = 1e-6
  want = np.empty_like(KERNEL)
  for index in np.ndindex(KERNEL.shape):
    move = np.zeros_like(KERNEL)
    move[index] = step
    want[index] = (value(KERNEL + move) - value(KERNEL - move)) / (2 * step)
  with jax.numpy_rank_promotion('allow'), jax.enable_x64(True):
    got = jax.grad(function)(jnp.asarray(KERNEL))
  np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


def test_gradient_at_zero_is_that_of_a_positive_weight():
  scaling = quantizers.mean_abs('tensor', detached=False)
  got = jax.grad(scaling)(np.float32([[0.0, 2.0], [-0.0, -4.0]]))
  np.testing.assert_array_equal(got, [[0.25, 0.25], [0.25, -0.25]])


def test_is_the_best_fit_of_a_scaled_sign():
  sign = np.where(KERNEL >= 0, 1, -1)
  scale = np.float64(quantizers.mean_abs()(np.float32(KERNEL)))

  def error(scale):
    return np.sum((KERNEL - scale * sign) ** 2, axis=0)

  assert (error(scale) < error(scale * 1.01)).all()
  assert (error(scale) < error(scale * 0.99)).all()


@pytest.mark.parametrize('coupling', ['none', 'row', ''])
def test_rejects_other_couplings(coupling):
  with pytest.raises(
    types.BadInput, match='coupling must be one of column, te'
  ):
    quantizers.mean_abs(coupling)


def test_equal_scalings_have_equal_structure():
  structure = jax.tree.structure
  assert structure(quantizers.mean_abs()) == structure(quantizers.mean_abs())
  assert structure(quantizers.mean_abs()) != structure(
    quantizers.mean_abs('tensor')
  )


@pytest.mark.parametrize('coupling', AXES)
def test_scales_of_a_convolution_are_those_of_its_channels(coupling):
  kernel = np.random.default_rng(2).normal(size=(3, 3, 2, 4))
  axes = (0, 1, 2) if coupling == 'column' else None
  want = np.abs(kernel).mean(axis=axes)
  got = quantizers.mean_abs(coupling)(np.float32(kernel))
  np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize('coupling', AXES)
def test_power_of_two_is_the_nearest_in_the_exponent(coupling):
  kernel = np.float32(KERNEL * [1e-20, 1, 3e15])
  scaling = quantizers.power_of_two(coupling)
  got = np.asarray(jax.jit(scaling)(kernel))
  mean = np.abs(np.float64(kernel)).mean(axis=AXES[coupling])
  np.testing.assert_array_equal(got, 2.0 ** np.rint(np.log2(mean)))
  assert scaling.coupling == coupling
  assert np.all(scaling(np.zeros((3, 2), np.float32)) == 0)
  grad = jax.grad(lambda k: jnp.sum(scaling(k)))(kernel)
  np.testing.assert_array_equal(grad, np.zeros_like(kernel))
