"""The two readings of clipping: the mean loss's gradient, or each example's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers

BATCH, UNITS, LIMIT = 5, 7, 0.3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, UNITS)).astype(np.float32)
W = RNG.normal(size=UNITS).astype(np.float32)


def attach(estimator):
  return quantizers.attach(quantizers.sign(), estimator)


def own_loss(x_q, other):
  """Returns one example's loss; its gradient in x_q is 2 (x_q . other) other."""
  return jnp.sum(x_q * other) ** 2


def own_gradient(x, other):
  x_q = np.where(x >= 0, 1.0, -1.0)
  return 2 * (x_q @ other) * other


def test_of_the_mean_loss_clips_the_mean_gradient():
  quantize = attach(quantizers.clip(LIMIT))

  def loss(w):
    return jnp.mean(jax.vmap(lambda x: own_loss(quantize(w), x))(X))

  mean = np.mean([own_gradient(W, x) for x in np.float64(X)], axis=0)
  want = np.clip(mean, -LIMIT, LIMIT)
  np.testing.assert_allclose(jax.jit(jax.grad(loss))(W), want, rtol=1e-5)
  assert np.sum(np.abs(mean) > LIMIT) > 1  # Some are clipped.
  assert np.sum(np.abs(mean) < LIMIT) > 1  # Others are not.


def test_per_example_on_activations_equals_a_loop():
  quantize = attach(quantizers.clip(LIMIT, num_examples=BATCH))

  def loss(x):
    return jnp.mean(jax.vmap(own_loss, (0, None))(quantize(x), W))

  want = [
    np.clip(own_gradient(x, np.float64(W)), -LIMIT, LIMIT) / BATCH for x in X
  ]
  np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), want, rtol=1e-5)


def per_example_by_copies(w):
  quantize = attach(quantizers.clip(LIMIT, num_examples=BATCH))

  def loss(w):
    copies = quantize(jnp.broadcast_to(w, (BATCH, UNITS)))
    return jnp.mean(jax.vmap(own_loss)(copies, X))

  return jax.grad(loss)(w)


def per_example_by_vmap_of_grad(w):
  quantize = attach(quantizers.clip(LIMIT))
  grad = jax.grad(lambda w, x: own_loss(quantize(w), x))
  return jnp.mean(jax.vmap(grad, (None, 0))(w, X), axis=0)


@pytest.mark.parametrize(
  'recipe', [per_example_by_copies, per_example_by_vmap_of_grad]
)
def test_per_example_on_weights_equals_a_loop(recipe):
  each = [np.clip(own_gradient(W, x), -LIMIT, LIMIT) for x in np.float64(X)]
  want = np.mean(each, axis=0)
  np.testing.assert_allclose(jax.jit(recipe)(W), want, rtol=1e-5)
  clipped_mean = np.clip(
    np.mean([own_gradient(W, x) for x in X], axis=0), -LIMIT, LIMIT
  )
  assert np.max(np.abs(want - clipped_mean)) > 0.1  # The readings differ.


def test_weights_shared_by_a_vmap_receive_one_sum():
  """The documented trap: JAX applies the estimator once, outside the vmap."""
  quantize = attach(quantizers.clip(LIMIT, num_examples=BATCH))

  def loss(w):
    return jnp.mean(jax.vmap(lambda x: own_loss(quantize(w), x))(X))

  mean = np.mean([own_gradient(W, x) for x in np.float64(X)], axis=0)
  want = np.clip(mean, -LIMIT / BATCH, LIMIT / BATCH)
  np.testing.assert_allclose(jax.jit(jax.grad(loss))(W), want, rtol=1e-5)
