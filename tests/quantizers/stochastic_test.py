"""Random staircases: the right mean, exact where there is nothing to draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import types

DRAWS = 5_000
DTYPES = ('float32', 'bfloat16', 'float16')


@jax.jit
def drawn(staircase, inputs, seed):
  """Returns [DRAWS, *x.shape] independent draws of each x, in one program."""
  keys = jax.random.split(jax.random.key(seed), (len(inputs), DRAWS))
  return {
    name: jax.vmap(lambda key, x=x: staircase(x, key=key))(some)
    for some, (name, x) in zip(keys, inputs.items(), strict=True)
  }


def check(share, probability):
  spread = np.sqrt(probability * (1 - probability) / DRAWS)
  assert np.all(np.abs(share - probability) <= 5 * spread)


def test_sign_has_the_probability_of_the_paper():
  x = [-1.5, -1, -0.75, -0.25, 0, 0.125, 0.5, 1, 2]
  inputs = {dtype: jnp.asarray(x, dtype) for dtype in DTYPES}
  for dtype, x_q in drawn(quantizers.stochastic_sign(), inputs, 0).items():
    assert x_q.dtype == dtype
    x_q = np.float64(x_q)
    assert set(np.unique(x_q)) == {-1.0, 1.0}
    probability = np.clip((np.asarray(x) + 1) / 2, 0, 1)
    check(np.mean(x_q > 0, axis=0), probability)


def test_rounding_is_right_on_average_to_the_two_neighbours():
  x = [-2.0, -1.3, -0.1, 0.0, 0.3, 0.75, 1.5, 40.0]
  inputs = {dtype: jnp.asarray(x, dtype) for dtype in DTYPES}
  for step in (1.0, 0.25):
    outputs = drawn(quantizers.stochastic_round(step), inputs, 1)
    for dtype, x_q in outputs.items():
      assert x_q.dtype == dtype
      scaled = np.asarray(inputs[dtype]).astype(np.float64) / step
      up = np.float64(x_q) / step - np.floor(scaled)
      assert set(np.unique(up)) == {0.0, 1.0}
      check(np.mean(up, axis=0), scaled - np.floor(scaled))


def test_elements_and_keys_are_independent():
  inputs = {'x': jnp.zeros(2)}
  one, other = (
    np.float64(drawn(quantizers.stochastic_sign(), inputs, seed)['x'])
    for seed in (0, 1)
  )
  assert abs(np.mean(one[:, 0] * one[:, 1])) < 5 / np.sqrt(DRAWS)
  assert abs(np.mean(one * other)) < 5 / np.sqrt(2 * DRAWS)


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
  with pytest.raises(types.BadInput, match='key must be a random key'):
    quantize(x)


@pytest.mark.parametrize('step', [0, -1.0, float('nan')])
def test_rejects_bad_step(step):
  with pytest.raises(types.BadInput, match='step must be > 0'):
    quantizers.stochastic_round(step)
