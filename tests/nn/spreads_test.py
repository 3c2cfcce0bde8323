"""Running spreads: averages against NumPy, kept in a collection of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types

MOMENTUM = 0.75
BATCHES = np.float32(
  np.random.default_rng(0).normal(size=(3, 6, 5))
  * np.array([0.5, 4.0, 2.0])[:, None, None]
)
WEIGHTS = np.float32(np.random.default_rng(1).normal(size=(5, 2)))


def rule(**options):
  return quantizers.relative(quantizers.gaussian(0.5), **options)


def layer(estimator):
  return nn.QuantDense(
    2,
    input_quantizer=quantizers.attach(quantizers.sign(), estimator),
    use_bias=False,
  )


RUNNING = layer(rule(momentum=MOMENTUM))


def spreads():
  """The running spread after each batch, in float64."""
  total, weight, found = 0.0, 0.0, []
  for x in BATCHES.astype(np.float64):
    total = MOMENTUM * total + (1 - MOMENTUM) * np.mean(x**2)
    weight = MOMENTUM * weight + (1 - MOMENTUM)
    found.append(np.sqrt(total / weight))
  return found


def gradient(model, variables, x, **options):
  def loss(x):
    found = model.apply(variables, x, **options)
    y, moved = found if options else (found, None)
    return jnp.sum(y), moved

  return jax.grad(loss, has_aux=True)(x)


def test_training_averages_and_evaluation_keeps():
  variables = RUNNING.init(jax.random.key(0), jnp.zeros((1, 5)))
  assert {*variables} == {'params', 'spreads'}
  params = {'kernel': jnp.asarray(WEIGHTS)}
  variables = {'params': params, 'spreads': variables['spreads']}
  fixed = {'params': params}
  known = [None, *spreads()]  # At first that of the batch.
  for step, x in enumerate(BATCHES):
    found, moved = gradient(RUNNING, variables, x, mutable=['spreads'])
    wanted = gradient(layer(rule(spread=known[step])), fixed, x)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    still = gradient(RUNNING, variables, x)[0]
    np.testing.assert_array_equal(still, found)
    variables = variables | moved
  state = variables['spreads']['input_quantizer']
  np.testing.assert_allclose(
    state['rms'] / np.sqrt(state['weight']), known[-1], rtol=1e-6
  )
  y = RUNNING.apply(variables, x)
  assert (y == RUNNING.apply(variables, 3 * x)).all()


@pytest.mark.parametrize('unit', [1e-25, 1e25])
def test_far_units_neither_vanish_nor_overflow(unit):
  state = quantizers.initial_spread(BATCHES[0])
  for x in BATCHES:
    state = quantizers.next_spread(state, unit * x, MOMENTUM)
  np.testing.assert_allclose(
    state['rms'] / jnp.sqrt(state['weight']) / np.float32(unit),
    spreads()[-1],
    rtol=1e-5,
  )


def test_zeros_leave_a_spread_of_one():
  state = quantizers.initial_spread(jnp.zeros(3))
  state = quantizers.next_spread(state, jnp.zeros(3), MOMENTUM)
  np.testing.assert_allclose(state['rms'] ** 2, state['weight'], rtol=1e-6)


def test_views_have_the_spread_of_the_layer():
  model = nn.QuantMLP(
    hidden=(4,),
    num_classes=3,
    kernel_quantizer=quantizers.attach(
      quantizers.sign(), quantizers.identity()
    ),
    input_quantizer=quantizers.attach(
      quantizers.sign(), rule(momentum=MOMENTUM)
    ),
  )
  x, y = BATCHES[0], np.array([0, 1, 2, 0, 1, 2])
  variables = model.init(jax.random.key(0), x)
  _, moved = model.apply(
    variables, x, train=True, mutable=['spreads', 'batch_stats']
  )
  variables = {**variables, **moved}
  view = nn.layer_view(model, variables, x, y, 'Dense_0', train=False)
  assert any(isinstance(s, scans.Activation) for s in view.tail)

  def loss(kernel):
    params = variables['params'] | {'Dense_0': {'kernel': kernel}}
    logits = model.apply({**variables, 'params': params}, x)
    total = jax.nn.log_softmax(logits)
    return -jnp.mean(total[jnp.arange(6), y])

  np.testing.assert_allclose(
    jax.grad(view.loss)(view.kernel), jax.grad(loss)(view.kernel), rtol=1e-4,
    atol=1e-6,
  )  # fmt: skip


def test_what_is_not_kept_is_refused():
  binary = quantizers.attach(quantizers.sign(), rule(momentum=0.9))
  kept = quantizers.with_spread(binary, quantizers.initial_spread(BATCHES[0]))
  assert quantizers.spread_momentum(kept) == 0.9
  assert quantizers.spread_of(binary) is None
  assert {*quantizers.spread_of(kept)} == {'rms', 'weight'}
  plain = quantizers.attach(quantizers.sign(), rule())
  assert quantizers.with_spread(plain, kept) is plain
  assert quantizers.spread_momentum(None) is None
  assert 'momentum=0.9' in repr(binary) and repr(kept) == repr(binary)
  for call, words in (
    (lambda: rule(momentum=1.0), r'momentum must be in \[0, 1\)'),
    (lambda: rule(momentum='x'), 'momentum'),
    (lambda: rule(momentum=0.9, spread=1.0), 'a spread or a momentum'),
    (
      lambda: jax.grad(lambda x: binary(x).sum())(BATCHES[0]),
      'momentum needs a layer that keeps the running spread',
    ),
    (
      lambda: nn.MLP(activation_quantizer=binary).init(
        jax.random.key(0), BATCHES[0]
      ),
      'neither learns nor remembers',
    ),
  ):
    with pytest.raises(types.BadInput, match=words):
      call()
