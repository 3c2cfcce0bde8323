"""ADMM and proximal steps, against loops in NumPy and forward passes of quantizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import quantizers
from bitjax import transforms
from bitjax import tree as tree_lib
from bitjax import types

SIGN = quantizers.sign()


def quadratic(seed, size=5, convex=True):
  """A matrix and a centre: f(w) = (w - c) A (w - c) / 2."""
  rng = np.random.default_rng(seed)
  b = rng.normal(size=(size, size))
  matrix = b @ b.T / size if convex else (b + b.T) / 2
  return matrix, rng.normal(size=size), rng.normal(size=size)


def train(tx, gradient, params, num_updates, watch=lambda params, state: None):
  def step(carry, _):
    params, state = carry
    updates, state = tx.update(gradient(params), state, params)
    params = optax.apply_updates(params, updates)
    return (params, state), watch(params, state)

  return jax.lax.scan(step, (params, tx.init(params)), length=num_updates)


def project(v, scale=None):
  scale = np.abs(v).mean() if scale is None else scale
  return scale * np.where(v >= 0, 1.0, -1.0)


@pytest.mark.parametrize(
  ('extragradient', 'dual_first'),
  [
    (True, False),
    (False, True),
    pytest.param(True, True, marks=pytest.mark.slow),
    pytest.param(False, False, marks=pytest.mark.slow),
  ],
)
def test_rounds_equal_the_loop(extragradient, dual_first):
  matrix, centre, w = quadratic(0)
  every, rates, rho, scale = 2, 0.125, lambda k: 1.0 + 0.125 * k, 0.75
  tx = transforms.admm(
    rho,
    SIGN,
    optax.sgd(rates, momentum=0.5),
    every=every,
    extragradient=extragradient,
    lookahead=0.5,
    scale=None if dual_first else scale,
    dual_first=dual_first,
  )
  num_updates = 3 * every * (2 if extragradient else 1)
  gradient = lambda w: jnp.asarray(matrix) @ (w - centre)
  with jax.enable_x64():
    (params, state), _ = train(tx, gradient, jnp.asarray(w), num_updates)

  fitted = None if dual_first else scale
  g, multiplier = project(w, fitted), np.zeros_like(w)  # rho times lambda.
  trace, count = np.zeros_like(w), 0

  def pull(w):
    return matrix @ (w - centre) + rho(count) * (w - g) + multiplier

  for step in range(3 * every):
    ahead = w
    if extragradient:
      ahead = w - 0.5 * rates * (pull(w) + 0.5 * trace)
      count += 1
    trace = pull(ahead) + 0.5 * trace
    w = w - rates * trace
    if (step + 1) % every == 0:
      before = g
      if dual_first:
        multiplier = multiplier + rho(count) * (w - g)
      g = project(w + multiplier / rho(count), fitted)
      if not dual_first:
        multiplier = multiplier + rho(count) * (w - g)
      residuals = (
        np.linalg.norm(w - g),
        rho(count) * np.linalg.norm(g - before),
      )
    count += 1
  np.testing.assert_allclose(params, w, rtol=1e-9)
  np.testing.assert_allclose(state.levels, g, rtol=1e-9)
  np.testing.assert_allclose(state.dual * state.rho, multiplier, rtol=1e-9)
  np.testing.assert_allclose(
    [state.primal_residual, state.dual_residual], residuals, rtol=1e-9
  )
  value = 0.5 * (w - centre) @ matrix @ (w - centre)
  scaled, end = multiplier / float(state.rho), float(state.rho)
  want = value + end / 2 * (np.sum((w - g + scaled) ** 2) - np.sum(scaled**2))
  with jax.enable_x64():
    deployed = transforms.admm_weights(params, state)
    found = transforms.admm_lagrangian(value, params, state)
  np.testing.assert_allclose(deployed, g, rtol=1e-9)
  np.testing.assert_allclose(found, want, rtol=1e-9)


def rises(share, dual_first):
  """The largest rise of each Lagrangian, with exact steps of W, rho near the bound."""

  def lagrangians(matrix, centre, start, rho):
    inverse = jnp.linalg.inv(matrix + rho * jnp.eye(centre.size))
    newton = optax.stateless(lambda updates, params: -inverse @ updates)
    tx = transforms.admm(
      rho, SIGN, newton, extragradient=False, dual_first=dual_first
    )
    loss = lambda w: 0.5 * (w - centre) @ matrix @ (w - centre)
    watch = lambda w, state: transforms.admm_lagrangian(loss(w), w, state)
    return train(tx, jax.grad(loss), start, 40, watch)[1]

  problems = [quadratic(seed, convex=seed % 2 == 0) for seed in range(12)]
  curvatures = np.linalg.eigvalsh([matrix for matrix, *_ in problems])
  low, most = curvatures.min(axis=1), np.abs(curvatures).max(axis=1)
  # The root of rho (rho + low) = 2 most^2.
  rho = share * (np.sqrt(low**2 + 8 * most**2) - low) / 2
  parts = [jnp.stack(part) for part in zip(*problems, strict=True)]
  found = jax.jit(jax.vmap(lagrangians))(*parts, jnp.asarray(rho))
  return np.max(np.diff(found[:, 1:]), axis=1)


def test_the_lagrangian_falls_above_the_bound_only():
  with jax.enable_x64():
    assert np.max(rises(1.0, dual_first=True)) <= 1e-12
    # Below the bound, and in the paper's order, it may rise.
    assert np.max(rises(0.2, dual_first=True)) > 0.01
    assert np.max(rises(1.0, dual_first=False)) > 0.01


def params_and_gradient():
  rng = np.random.default_rng(3)
  params = {
    'a': {'kernel': rng.normal(size=(3, 4)), 'bias': rng.normal(size=4)},
    'b': {'kernel': rng.normal(size=(4, 2))},
  }
  centre = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
  params, centre = jax.tree.map(jnp.float32, (params, centre))
  return params, lambda w: jax.tree.map(jnp.subtract, w, centre)


def chosen(tx, params):
  return optax.partition(
    {'binary': tx, 'rest': optax.sgd(0.1)},
    tree_lib.label(params, lambda path: path.endswith('kernel')),
  )


@pytest.mark.slow
def test_partitions_and_deployed_weights():
  params, gradient = params_and_gradient()
  tx = chosen(
    transforms.admm(2.0, SIGN, optax.sgd(0.1), channel_axis=1, every=2), params
  )
  (end, state), _ = train(tx, gradient, params, 40)
  weights = transforms.admm_weights(end, state)
  np.testing.assert_array_equal(weights['a']['bias'], end['a']['bias'])
  for name in 'ab':
    kernel = np.abs(weights[name]['kernel'])
    np.testing.assert_allclose(kernel, kernel[:1] + 0 * kernel, rtol=1e-6)
  # The biases follow gradient descent, and the distance is the kernels' alone.
  start = params['a']['bias']
  distance = 0.9**40 * (start - (start - gradient(params)['a']['bias']))
  np.testing.assert_allclose(gradient(end)['a']['bias'], distance, rtol=1e-4)
  kernels = [(end[n]['kernel'], weights[n]['kernel']) for n in 'ab']
  gap = np.sqrt(sum(np.sum(np.square(w - g)) for w, g in kernels))
  found = optax.tree.get(state, 'primal_residual')
  np.testing.assert_allclose(found, gap, rtol=1e-5)
  value = transforms.admm_lagrangian(0.0, end, state)
  assert np.isfinite(value)


@pytest.mark.slow
def test_layers_freeze_one_after_another():
  params, gradient = params_and_gradient()
  tx = transforms.admm(
    1.0, SIGN, optax.sgd(0.05), freeze={'a': 8, 'b': None}, every=2
  )
  levels = lambda params, state: (params, state.levels)
  _, (path, levels) = train(tx, gradient, params, 16, levels)
  for kernel, g in zip(
    *map(jax.tree.leaves, (path['a'], levels['a'])), strict=True
  ):
    np.testing.assert_allclose(kernel[8], g[7], rtol=1e-6)
    # From then on the rounding of the first update is corrected.
    np.testing.assert_array_equal(
      kernel[9:], np.broadcast_to(g[7], g[9:].shape)
    )
    assert (np.asarray(kernel[:8]) != np.asarray(g[:8])).any()
  moving = np.asarray(path['b']['kernel'])
  assert (moving[1:] != moving[:-1]).any(axis=(1, 2)).all()


@pytest.mark.slow
def test_seeds_and_penalties_are_vectorised():
  params, gradient = params_and_gradient()
  starts = jax.tree.map(lambda x: jnp.stack([x, -0.5 * x]), params)

  def end(rho, params):
    tx = transforms.admm(rho, (-1, 0, 1), optax.adam(0.05))
    (end, state), _ = train(tx, gradient, params, 6)
    return end, transforms.admm_weights(end, state)

  rhos = jnp.array([0.5, 4.0])
  together = jax.jit(jax.vmap(end))(rhos, starts)
  for index in range(2):
    alone = jax.jit(end)(
      rhos[index], jax.tree.map(lambda x, i=index: x[i], starts)
    )
    for a, b in zip(*map(jax.tree.leaves, (together, alone)), strict=True):
      np.testing.assert_allclose(a[index], b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_admm_finds_better_levels_than_rounding():
  better = 0
  for seed in range(4):
    matrix, centre, start = quadratic(10 + seed, size=8)
    loss = lambda w, a=matrix, c=centre: 0.5 * (w - c) @ a @ (w - c)
    rho = optax.linear_schedule(0.3, 6.0, 400)
    tx = transforms.admm(rho, SIGN, optax.sgd(0.1), every=5, scale=1.0)
    run = jax.jit(lambda w, f=loss, tx=tx: train(tx, jax.grad(f), w, 600)[0])
    params, state = run(jnp.asarray(start, jnp.float32))
    weights = np.float64(transforms.admm_weights(params, state))
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 8)).reshape(8, -1).T
    best = min(loss(w) for w in signs)
    rounded = loss(project(np.linalg.solve(matrix, matrix @ centre), 1.0))
    assert best <= loss(weights) + 1e-9
    assert state.primal_residual < 0.5
    better += loss(weights) < rounded - 1e-9
    assert loss(weights) <= loss(project(start, 1.0))
  assert better >= 1


PROXIMAL = {
  'BinaryRelax': (quantizers.proximal(SIGN), True),
  'PARQ': (quantizers.parq(), True),
  'ProxQuant': (
    quantizers.proximal(SIGN, 0.0, 0.5, distance='l1', schedule='linear'),
    False,
  ),
}


@pytest.mark.parametrize('name', PROXIMAL)
def test_proximal_steps_equal_the_loop(name):
  rule, latent = PROXIMAL[name]
  matrix, centre, start = quadratic(1)
  gradient = lambda w: jnp.asarray(matrix) @ (w - centre)
  tx = transforms.proximal_steps(
    rule, lambda k: jnp.asarray(k, float) / 8, optax.sgd(0.125), latent=latent
  )
  with jax.enable_x64():
    (_, state), path = train(
      tx, gradient, jnp.asarray(start), 10, lambda w, state: w
    )
    y = w = start
    for k in range(10):
      y = (y if latent else w) - 0.125 * np.asarray(gradient(w))
      w = np.asarray(rule(jnp.asarray(y), progress=min((k + 1) / 8, 1.0)))
      np.testing.assert_allclose(path[k], w, rtol=1e-9, atol=1e-12)
  assert set(np.abs(np.asarray(path[-1]))) == {1.0}
  assert bool(jax.tree.leaves(state.latent)) == latent


def test_latent_proximal_steps_train_what_a_quantizer_would():
  """Gradients at P(y) through the identity are those of y."""
  matrix, centre, start = quadratic(2)
  rule, progress = quantizers.parq(), lambda k: jnp.asarray(k, float) / 8
  loss = lambda w: 0.5 * (w - centre) @ matrix @ (w - centre)
  quantize = quantizers.attach(rule, quantizers.identity())
  sgd = optax.sgd(0.125, momentum=0.5)
  tx = transforms.proximal_steps(rule, progress, sgd)
  with jax.enable_x64():
    y = jnp.asarray(start)
    inner = sgd.init(y)
    w, state = y, tx.init(y)
    for k in range(8):
      updates, state = tx.update(jax.grad(loss)(w), state, w)
      w = optax.apply_updates(w, updates)
      # The first gradient is taken at the start itself.
      through = lambda y, k=k: loss(
        quantize(y, progress=progress(k)) if k else y
      )
      steps, inner = sgd.update(jax.grad(through)(y), inner, y)
      y = optax.apply_updates(y, steps)
    np.testing.assert_allclose(state.latent, y, rtol=1e-9)
    np.testing.assert_array_equal(w, SIGN(y))


@pytest.mark.slow
def test_proximal_steps_towards_scaled_levels():
  params, gradient = params_and_gradient()
  levels = lambda x: transforms.project_levels(x, (-1, 0, 1)).values
  rule = quantizers.proximal(levels, 0.5, 50.0)
  tx = chosen(
    transforms.proximal_steps(
      rule, optax.linear_schedule(0.0, 1.0, 10), optax.sgd(0.1)
    ),
    params,
  )
  (end, _), _ = jax.jit(lambda p: train(tx, gradient, p, 10))(params)
  for name in 'ab':
    values = np.unique(np.abs(end[name]['kernel']).round(5))
    assert values.size <= 2 and values[-1] > 0
  assert np.unique(np.abs(end['a']['bias'])).size == 4


def test_bad_input():
  sgd, w = optax.sgd(0.1), jnp.ones(3)
  admm, steps = transforms.admm, transforms.proximal_steps
  tx = admm(1.0, SIGN, sgd)
  after = steps(quantizers.parq(), lambda k: 0.5, sgd)
  for call, message in (
    (lambda: admm(0.0, SIGN, sgd), 'rho must be > 0'),
    (
      lambda: admm(optax.linear_schedule(0.0, 6.0, 400), SIGN, sgd),
      'rho must be > 0',
    ),
    (lambda: tx.update({'a': w}, tx.init(w), {'a': w}), 'of other parameters'),
    (lambda: tx.update(w[:2], tx.init(w), w[:2]), 'of other parameters'),
    (lambda: after.update(w[:2], after.init(w), w[:2]), 'of other parameters'),
    (lambda: admm(1.0, quantizers.ternary(), sgd), 'declares its levels'),
    (lambda: admm(1.0, SIGN, 0.1), 'tx must be an optax transform'),
    (lambda: admm(1.0, SIGN, sgd, every=0), 'every must be an integer >= 1'),
    (lambda: admm(1.0, SIGN, sgd, lookahead=-1.0), 'lookahead must be >= 0'),
    (lambda: admm(1.0, SIGN, sgd, scale=-1.0), 'scale must be > 0'),
    (lambda: admm(1.0, SIGN, sgd, method='x'), 'exact, alternate'),
    (lambda: admm(1.0, SIGN, sgd, freeze={'a': -1}), 'freeze must be >= 0'),
    (lambda: admm(1.0, SIGN, sgd, freeze={'a': 1}).init(w), 'freeze must be a'),
    (lambda: tx.init(jnp.ones(3, int)), 'floating parameters'),
    (lambda: tx.update(w, tx.init(w)), 'not passing `params`'),
    (lambda: transforms.admm_weights(w, sgd.init(w)), 'an AdmmState'),
    (lambda: transforms.admm_lagrangian('x', w, tx.init(w)), 'value must be'),
    (lambda: steps(1.0, lambda k: 1.0, sgd), 'rule must be a function'),
    (lambda: steps(SIGN, 0.5, sgd), 'progress must be a function'),
    (lambda: steps(SIGN, lambda k: 1.0, None), 'tx must be an optax'),
  ):
    with pytest.raises(types.BadInput, match=message):
      call()
