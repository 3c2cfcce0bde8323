"""Two updates of every optimiser against NumPy, leaf by leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import training
from bitjax import types

RATE, DECAY = 0.1, 0.01
PARAMS = {
  'Dense_0': {'kernel': np.array([[0.5, -1.0]]), 'bias': np.array([0.3, 0.1])},
  'Block_0': {
    'kernel': np.array([[0.2, -0.4], [0.95, -0.05]]),
    'kernel_quantizer': {'step': np.array(0.7)},
  },
  'BatchNorm_0': {'scale': np.array([1.0, 1.2])},
}
PARAMS = jax.tree.map(lambda leaf: leaf.astype(np.float32), PARAMS)
DRAW = np.random.default_rng(0)
GRADIENTS = [
  jax.tree.map(
    lambda leaf: DRAW.normal(size=leaf.shape).astype(np.float32), PARAMS
  )
  for _ in range(2)
]


def moved(tx, gradients=GRADIENTS):
  """Returns the parameters after updates by these gradients, and the state."""
  params = jax.tree.map(jnp.asarray, PARAMS)
  state = tx.init(params)
  for gradient in gradients:
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def rule(name, w, gradients, decay, rate=RATE):
  """Two updates of one leaf in float64, from the papers' formulas."""
  w, v, m, s = w.astype(np.float64), 0.0, 0.0, 0.0
  for t, g in enumerate(gradients, 1):
    if name != 'adamw':
      g = g + decay * w
    if name == 'sgd':
      v = 0.9 * v + g
      w = w - rate * v
      continue
    m = 0.9 * m + 0.1 * g
    s = 0.999 * s + 0.001 * g**2
    step = m / (1 - 0.9**t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
    w = w - rate * (step + (decay * w if name == 'adamw' else 0.0))
  return w


def leaves(tree):
  found, _ = jax.tree.flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in found
  }


def wanted(name, decay=DECAY, multiples=None, decayed='/kernel'):
  """Applies `rule` to each leaf; decay acts on paths that end with `decayed`."""
  gradients = [leaves(gradient) for gradient in GRADIENTS]
  return {
    path: rule(
      name,
      w,
      [gradient[path] for gradient in gradients],
      decay if path.endswith(decayed) else 0.0,
      RATE * (multiples or {}).get(path, 1.0),
    )
    for path, w in leaves(PARAMS).items()
  }


def close(params, wanted):
  found = leaves(params)
  assert found.keys() == wanted.keys()
  for path, value in wanted.items():
    np.testing.assert_allclose(
      found[path], value, rtol=1e-5, atol=1e-6, err_msg=path
    )


@pytest.mark.parametrize('name', ['sgd', 'adam', 'adamw'])
def test_two_updates(name):
  tx = training.optimizer(name, RATE, weight_decay=DECAY)
  close(moved(tx)[0], wanted(name))


@pytest.mark.parametrize('name', ['sgd', 'adam', 'adamw'])
def test_decay_of_all_leaves(name):
  tx = training.optimizer(name, RATE, weight_decay=DECAY, decayed='all')
  close(moved(tx)[0], wanted(name, decayed=''))


def test_sgd_without_momentum():
  params, _ = moved(training.optimizer('sgd', RATE, momentum=0.0))
  first, second = (leaves(gradient) for gradient in GRADIENTS)
  close(
    params,
    {k: w - RATE * (first[k] + second[k]) for k, w in leaves(PARAMS).items()},
  )


def test_a_schedule():
  rates = np.array([0.1, 0.03], np.float32)
  tx = training.optimizer(
    'sgd', lambda step: jnp.asarray(rates)[step], momentum=0.0
  )
  first, second = (leaves(gradient) for gradient in GRADIENTS)
  close(
    moved(tx)[0],
    {
      k: w - rates[0] * first[k] - rates[1] * second[k]
      for k, w in leaves(PARAMS).items()
    },
  )


def test_quantizers_have_a_rate_of_their_own():
  tx = training.optimizer('adam', RATE, weight_decay=DECAY, quantizer_rate=0.25)
  multiples = {'Block_0/kernel_quantizer/step': 0.25}
  close(moved(tx)[0], wanted('adam', multiples=multiples))


@pytest.mark.parametrize('decayed', training.DECAYED)
def test_alphas_of_quantizers_have_a_decay_of_their_own(decayed):
  """Theirs alone: the step of LSQ is decayed as the other leaves are."""
  params = {
    'Block_0': {
      'kernel': jnp.ones(2),
      'kernel_quantizer': {'alpha': jnp.ones(()), 'lower': jnp.ones(())},
      'input_quantizer': {'alpha': jnp.ones(())},
    },
    'alpha': jnp.ones(()),
  }
  tx = training.optimizer(
    *('sgd', 1.0), weight_decay=0.5, decayed=decayed, quantizer_decay=0.25
  )
  nothing = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(nothing, tx.init(params), params)
  other = 0.5 if decayed == 'all' else 0.0
  assert {
    path: float(np.max(leaf)) for path, leaf in leaves(updates).items()
  } == {
    'Block_0/kernel': -0.5,
    'Block_0/kernel_quantizer/alpha': -0.25,
    'Block_0/kernel_quantizer/lower': -other,
    'Block_0/input_quantizer/alpha': -0.25,
    'alpha': -other,
  }


def test_a_multiplier_is_a_factor_on_the_learning_rate():
  tx = training.optimizer('adam', RATE, weight_decay=DECAY)
  params = jax.tree.map(jnp.asarray, PARAMS)
  state = optax.tree.set(tx.init(params), multiplier=jnp.float32(0.5))
  for gradient in GRADIENTS:
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  half = training.optimizer('adam', RATE / 2, weight_decay=DECAY)
  close(params, leaves(jax.tree.map(np.asarray, moved(half)[0])))


@pytest.mark.parametrize('frozen', [(), ('Dense_0',)])
@pytest.mark.parametrize('name', training.OPTIMIZERS)
def test_every_optimizer_has_a_multiplier(name, frozen):
  tx = training.optimizer(name, RATE, binary=('Block_',), frozen=frozen)
  state = tx.init(PARAMS)
  assert optax.tree.get(state, 'multiplier') == 1
  state = optax.tree.set(state, multiplier=jnp.float32(0.0))
  updates, _ = tx.update(GRADIENTS[0], state, PARAMS)
  assert not np.any(updates['BatchNorm_0']['scale'])


@pytest.mark.parametrize('name', ['sgd', 'adamw', 'bop'])
def test_frozen_leaves_do_not_change_at_all(name):
  tx = training.optimizer(
    name,
    RATE,
    weight_decay=DECAY,
    clip_latent=0.3,
    binary=('Block_',),
    frozen=(r'Dense_0/', 'step'),
  )
  params = leaves(moved(tx)[0])
  before = leaves(PARAMS)
  still = {'Dense_0/kernel', 'Dense_0/bias', 'Block_0/kernel_quantizer/step'}
  for path, value in params.items():
    equal = np.asarray(value).tobytes() == before[path].tobytes()
    assert equal == (path in still), path


def test_bop_flips_binary_kernels_and_adam_moves_the_rest():
  tx = training.optimizer(
    'bop',
    RATE,
    weight_decay=DECAY,
    bop_threshold=0.05,
    bop_gamma=0.2,
    binary=('Block_',),
  )
  w = PARAMS['Block_0']['kernel'].copy()
  average, flips = np.zeros_like(w), 0
  for gradient in GRADIENTS:
    average = 0.8 * average + 0.2 * gradient['Block_0']['kernel']
    against = np.where(w < 0, -1, 1) * average > 0.05
    flips += against.sum()
    w = np.where(against, -w, w)
  assert 0 < flips < 2 * w.size
  close(moved(tx)[0], wanted('adam') | {'Block_0/kernel': w})


def test_latent_weights_of_binary_layers_are_clipped():
  options = {'weight_decay': DECAY, 'binary': ('Block_',)}
  clipped, _ = moved(training.optimizer('sgd', 1.0, clip_latent=0.3, **options))
  kernel = np.asarray(clipped['Block_0']['kernel'])
  assert 0.2999 < np.abs(kernel).max() <= np.float32(0.3)
  first = GRADIENTS[0]['Block_0']['kernel']
  w = PARAMS['Block_0']['kernel']
  w = np.clip(w - (first + DECAY * w), -0.3, 0.3)
  v = 0.9 * (first + DECAY * PARAMS['Block_0']['kernel'])
  v = v + GRADIENTS[1]['Block_0']['kernel'] + DECAY * w
  np.testing.assert_allclose(kernel, np.clip(w - v, -0.3, 0.3), rtol=1e-5)
  free, _ = moved(training.optimizer('sgd', 1.0, weight_decay=DECAY))
  for layer, name in (('Dense_0', 'kernel'), ('Block_0', 'kernel_quantizer')):
    jax.tree.map(
      np.testing.assert_array_equal, clipped[layer][name], free[layer][name]
    )
  assert np.abs(free['Dense_0']['kernel']).max() > 0.3


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'name': 'lamb'}, 'name must be one of sgd, adam, adamw, bop'),
    ({'momentum': 1.0}, 'momentum must be in'),
    ({'momentum': -0.1}, 'momentum must be in'),
    ({'weight_decay': -1e-4}, 'weight_decay must be >= 0'),
    ({'decayed': 'biases'}, 'decayed must be one of kernels, all'),
    ({'quantizer_rate': 0.0}, 'quantizer_rate must be > 0'),
    ({'quantizer_decay': -1.0}, 'quantizer_decay must be >= 0'),
    ({'name': 'bop'}, "binary must name the binary layers for 'bop'"),
    ({'clip_latent': 1.0}, 'binary must name the binary layers'),
    ({'clip_latent': 0.0, 'binary': ('a',)}, 'clip_latent must be > 0'),
    ({'name': 'bop', 'binary': ('a',), 'bop_gamma': 2.0}, 'gamma must be in'),
    ({'frozen': ('Dense_(',)}, r"'Dense_\(' is no regular expression"),
    ({'learning_rate': 0.0}, 'learning_rate must be > 0'),
    ({'learning_rate': float('nan')}, 'learning_rate must be > 0'),
  ],
)
def test_bad_input(options, message):
  options = {'name': 'sgd', 'learning_rate': RATE} | options
  with pytest.raises(types.BadInput, match=message):
    training.optimizer(**options)


@pytest.mark.parametrize(
  ('options', 'pattern'),
  [
    ({'frozen': ('Conv_7',)}, 'Conv_7'),
    ({'frozen': ('Dense_0', 'Conv_7')}, 'Conv_7'),
    ({'name': 'bop', 'binary': ('Block_', 'Conv_7')}, 'Conv_7'),
    ({'clip_latent': 1.0, 'binary': ('Conv_7',)}, 'Conv_7'),
    # This expression matches a leaf, but no kernel.
    ({'clip_latent': 1.0, 'binary': ('BatchNorm',)}, 'BatchNorm'),
  ],
)
def test_expressions_that_match_nothing(options, pattern):
  options = {'name': 'sgd', 'learning_rate': RATE} | options
  tx = training.optimizer(**options)
  with pytest.raises(types.BadInput, match=f"no (leaf|kernel).*'{pattern}'"):
    tx.init(PARAMS)


def test_what_is_frozen_need_not_be_clipped():
  tx = training.optimizer(
    'sgd', RATE, clip_latent=0.3, binary=('Block_',), frozen=('Block_0',)
  )
  params, _ = moved(tx)
  np.testing.assert_array_equal(
    params['Block_0']['kernel'], PARAMS['Block_0']['kernel']
  )
