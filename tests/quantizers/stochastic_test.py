"""Random staircases: the right mean, exact where there is nothing to draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers

DRAWS = 20_000


def draws(staircase, x, seed=0):
  """[DRAWS, *x.shape] of independent draws."""
  many = jnp.broadcast_to(jnp.asarray(x), (DRAWS, *np.shape(x)))
  return np.float64(jax.jit(staircase)(many, key=jax.random.key(seed)))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_sign_has_the_probability_of_the_paper(dtype):
  x = np.asarray([-1.5, -1, -0.75, -0.25, 0, 0.125, 0.5, 1, 2], dtype)
  drawn = draws(quantizers.stochastic_sign(), x)
  assert set(np.unique(drawn)) == {-1.0, 1.0}
  probability = np.clip((np.float64(x) + 1) / 2, 0, 1)
  spread = np.sqrt(probability * (1 - probability) / DRAWS)
  assert np.all(np.abs(np.mean(drawn > 0, axis=0) - probability) <= 5 * spread)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('step', [1.0, 0.25])
def test_rounding_is_right_on_average_to_the_two_neighbours(dtype, step):
  x = np.asarray([-2.0, -1.3, -0.1, 0.0, 0.3, 0.75, 1.5, 40.0], dtype)
  drawn = draws(quantizers.stochastic_round(step), x)
  scaled = np.float64(x) / step
  below = np.floor(scaled)
  up = drawn / step - below
  assert set(np.unique(up)) == {0.0, 1.0}
  probability = scaled - below
  spread = np.sqrt(probability * (1 - probability) / DRAWS)
  assert np.all(np.abs(np.mean(up, axis=0) - probability) <= 5 * spread)


def test_elements_and_keys_are_independent():
  drawn = draws(quantizers.stochastic_sign(), np.zeros(2, np.float32))
  assert abs(np.mean(drawn[:, 0] * drawn[:, 1])) < 5 / np.sqrt(DRAWS)
  other = draws(quantizers.stochastic_sign(), np.zeros(2, np.float32), 1)
  assert abs(np.mean(drawn * other)) < 5 / np.sqrt(DRAWS)


def test_infinite_and_nan():
  x = jnp.asarray([jnp.inf, -jnp.inf, jnp.nan])
  key = jax.random.key(0)
  signs = quantizers.stochastic_sign()(x, key=jax.random.clone(key))
  np.testing.assert_array_equal(signs, [1, -1, -1])
  np.testing.assert_array_equal(quantizers.stochastic_round()(x, key=key), x)


@pytest.mark.parametrize(
  'staircase', [quantizers.stochastic_sign(), quantizers.stochastic_round(0.5)]
)
def test_attached_draws_by_its_key_and_learns_by_its_estimator(staircase):
  quantize = quantizers.attach(staircase, quantizers.window(1.0))
  x = np.linspace(-1.6, 1.6, 33, dtype=np.float32)

  @jax.jit
  def run(key):
    x_q, pull_back = jax.vjp(lambda x: quantize(x, key=key), x)
    return x_q, pull_back(jnp.ones_like(x_q))[0]

  x_q, x_bar = run(jax.random.key(3))
  np.testing.assert_array_equal(x_q, run(jax.random.key(3))[0])
  assert np.any(x_q != run(jax.random.key(4))[0])
  np.testing.assert_array_equal(x_bar, np.abs(x) <= 1)
  with pytest.raises(TypeError, match='key'):
    quantize(x)


@pytest.mark.parametrize('step', [0, -1.0, float('nan')])
def test_rejects_bad_step(step):
  with pytest.raises(ValueError, match='step must be > 0'):
    quantizers.stochastic_round(step)
