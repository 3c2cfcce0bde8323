"""Smoothed gains against sums over all masks, and draws against loops in float64."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.scans import _smoothed_factors

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())
KEY = jax.random.key(0)


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


class Network:
  """x -> act(q(W) / 2 + 1/4) -> V -> sign(. / 4) -> U -> logits, in NumPy too."""

  def __init__(self, examples, fan_in, units, seed=0, activation='sign'):
    rng = np.random.default_rng(seed)
    self.activation = activation
    self.x = rng.integers(-2, 3, size=(examples, fan_in)).astype(float)
    self.kernel = np.round(rng.normal(size=(fan_in, units)) * 4) / 4
    self.kernel[0, 0] = 0
    self.v = sign(rng.normal(size=(units, 3)))
    self.u = np.round(rng.normal(size=(3, 3)) * 8) / 8
    self.labels = rng.integers(0, 3, examples)

  @property
  def view(self):
    def f32(a):
      return jnp.asarray(a, jnp.float32)

    act = BINARY if self.activation == 'sign' else None
    return scans.LayerView(
      inputs=f32(self.x),
      kernel=f32(self.kernel),
      labels=jnp.asarray(self.labels),
      tail=(
        scans.Activation(self.activation, act),
        scans.Dense(f32(self.v), affine=scans.Affine(0.25)),
        scans.Activation('sign', BINARY),
        scans.Dense(f32(self.u)),
      ),
      quantizer=BINARY,
      affine=scans.Affine(0.5, 0.25),
    )

  def hidden(self, weights):
    z = self.x @ weights * 0.5 + 0.25
    return sign(z) if self.activation == 'sign' else np.maximum(z, 0)

  def losses(self, h):
    logits = sign(h @ self.v * 0.25) @ self.u
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return total - logits[np.arange(len(self.labels)), self.labels]

  def expected(self, rate):
    """Returns the expected gains and the expected loss, by all 2^n masks."""
    size, shape = self.kernel.size, self.kernel.shape
    gains, expected = np.zeros(size), 0.0
    losses = {}
    for mask in itertools.product((0, 1), repeat=size):
      flips = np.reshape(mask, shape)
      weights = sign(self.kernel) * (1 - 2 * flips)
      losses[mask] = self.losses(self.hidden(weights)).mean()
    for mask, loss in losses.items():
      chances = np.where(mask, rate, 1 - rate)
      expected += chances.prod() * loss
      for k in range(size):
        others = np.delete(chances, k).prod()
        gains[k] += others * loss * (1 - 2 * mask[k])
    return gains.reshape(shape), expected


SMALL = Network(examples=11, fan_in=4, units=2)


@pytest.mark.parametrize(
  ('path', 'draws', 'together'),
  [
    ('factors', 2000, 4),
    pytest.param('factors', 2000, 1, marks=pytest.mark.slow),
    pytest.param('gains', 1000, 1, marks=pytest.mark.slow),
  ],
)
def test_they_are_unbiased(path, draws, together):
  wanted, expected = SMALL.expected(0.2)
  found = scans.smoothed_gains(
    SMALL.view, KEY, 0.2, draws, together=together, path=path
  )
  gains, errors = np.asarray(found.gains), np.asarray(found.standard_errors)
  assert found.path == path and errors.min() > 0
  z = (gains - wanted) / errors
  assert np.abs(z).max() < 4 and 0.3 < np.sqrt(np.mean(z**2)) < 2
  assert np.abs(errors).max() < 0.2 * np.abs(wanted).max()
  assert abs(found.loss - expected) < 0.03


@pytest.mark.slow
def test_a_layer_before_a_relu_is_smoothed_by_its_gains():
  network = Network(examples=5, fan_in=3, units=2, activation='relu')
  wanted, _ = network.expected(0.3)
  found = scans.smoothed_gains(network.view, KEY, jnp.float32(0.3), 400)
  assert (found.path, found.together) == ('gains', 4)
  z = (found.gains - wanted) / np.maximum(found.standard_errors, 1e-6)
  assert np.abs(z).max() < 4


@pytest.mark.parametrize(
  ('examples', 'chunk'),
  [(37, 16), pytest.param(1, None, marks=pytest.mark.slow)],
)
def test_a_group_combines_crossings_with_worths(examples, chunk):
  network = Network(examples, fan_in=5, units=3, seed=1)
  rng = np.random.default_rng(2)
  flips = rng.uniform(size=(5, 5, 3)) < 0.3
  found, loss = _smoothed_factors.gains(network.view, jnp.asarray(flips), chunk)
  weights = sign(network.kernel) * np.where(flips, -1, 1)
  hidden = [network.hidden(w) for w in weights]
  losses = [network.losses(h).mean() for h in hidden]
  wanted = np.zeros((5, 3))
  for i, j in np.ndindex(5, 3):
    worth = []
    for h in hidden:
      on, off = h.copy(), h.copy()
      on[:, j], off[:, j] = 1, -1
      worth.append(network.losses(on) - network.losses(off))
    crossings = []
    for w in weights[:3]:
      kept, turned = w.copy(), w.copy()
      kept[i, j] = sign(network.kernel)[i, j]
      turned[i, j] = -kept[i, j]
      crossings.append(network.hidden(kept) - network.hidden(turned))
    crossing = np.mean(crossings, axis=0)[:, j] / 2
    wanted[i, j] = np.mean(crossing * np.mean(worth, axis=0))
  np.testing.assert_allclose(found, wanted, atol=1e-6)
  np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-6)


@pytest.mark.slow
def test_single_draws_are_gains_of_moved_layers():
  view = Network(examples=20, fan_in=6, units=4, seed=3).view
  pair = [
    scans.smoothed_gains(view, KEY, 0.1, 5, together=1, path=path)
    for path in ('factors', 'gains')
  ]
  for a, b in zip(*map(jax.tree.leaves, pair), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_without_flips_they_are_the_gains():
  view = SMALL.view
  gains = scans.flip_gains(view).gains
  found = scans.smoothed_gains(view, KEY, 0.0, 8)
  np.testing.assert_allclose(found.gains, gains, atol=1e-6)
  np.testing.assert_allclose(found.standard_errors, 0, atol=1e-6)
  back = dataclasses.replace(view, kernel=scans.moves(view).destinations[0])
  found = scans.smoothed_gains(view, KEY, 1.0, 4, together=4)
  np.testing.assert_allclose(
    found.gains, -scans.flip_gains(back).gains, atol=1e-6
  )
  assert np.all(np.isinf(found.standard_errors))  # Of one group.


@pytest.mark.slow
def test_networks_flip_all_their_layers():
  rng = np.random.default_rng(0)
  images = rng.normal(size=(9, 4)).astype(np.float32)
  model = nn.binary_mlp(hidden=(3, 3))
  variables = model.init(KEY, images)
  view = nn.network_view(
    model, variables, images, np.arange(9) % 10, layers='quantized'
  )
  found = scans.smoothed_gains(view, KEY, 0.0, 2)
  assert found.path == 'gains' and 'layers' in scans.flip_gains(view).path
  np.testing.assert_allclose(
    found.gains, scans.flip_gains(view).gains, atol=1e-6
  )


@pytest.mark.slow
def test_groups_do_not_depend_on_devices_or_reports():
  view, shares = SMALL.view, []
  wanted = scans.smoothed_gains(view, KEY, 0.2, 12)
  mesh = jax.make_mesh((1,), ('lanes',))
  others = [
    scans.smoothed_gains(view, KEY, 0.2, 12, mesh=mesh),
    scans.smoothed_gains(view, KEY, 0.2, 12, report=shares.append),
    jax.jit(lambda v: scans.smoothed_gains(v, KEY, 0.2, 12))(view),
  ]
  for found in others:
    np.testing.assert_allclose(found.gains, wanted.gains, atol=1e-6)
  assert shares[-1] == 1 and shares == sorted(shares)


@pytest.mark.slow
def test_groups_lower_the_errors():
  view = Network(examples=500, fan_in=40, units=24, seed=4).view
  variance = {}
  for together in (1, 4, 8):
    found = scans.smoothed_gains(view, KEY, 0.05, 64, together=together)
    variance[together] = float(np.mean(found.standard_errors**2))
  assert variance[8] < variance[4] < 0.8 * variance[1]


def test_what_cannot_flip_is_refused():
  view = SMALL.view
  ternary = quantizers.attach(quantizers.ternary(), quantizers.identity())
  bad = {
    'two levels.*ternary': (dataclasses.replace(view, quantizer=ternary), {}),
    'two levels.*None': (dataclasses.replace(view, quantizer=None), {}),
    'freeze_scale': (
      dataclasses.replace(view, scaling=quantizers.mean_abs()),
      {},
    ),
    'multiple of together, 4; got 6': (view, {'draws': 6, 'together': 4}),
    'flip_rate': (view, {'flip_rate': 1.5}),
    'draws': (view, {'draws': 0}),
    'chunk': (view, {'chunk': 0}),
    'path must be': (view, {'path': 'sign'}),
    'empty': (dataclasses.replace(view, labels=view.labels[:0]), {}),
    'does not feed a sign': (
      dataclasses.replace(view, tail=view.tail[1:]),
      {'path': 'factors'},
    ),
  }
  for text, (view, options) in bad.items():
    with pytest.raises(types.BadInput, match=text):
      scans.smoothed_gains(
        view, key=KEY, **{'flip_rate': 0.1, 'draws': 4} | options
      )


@pytest.mark.parametrize('rounds', [1, 2])
def test_rounds_of_a_discrete_gradient_take_the_largest(rounds):
  view = Network(9, 7, 4, seed=8).view
  path = scans.multi_step_discrete_gradient(
    view, types.Budget(2.0 * rounds, 'flips'), rounds,
    signal='smoothed', flip_rate=0.2, draws=8, key=jax.random.key(3),
  )  # fmt: skip
  signs = sign(np.asarray(view.kernel))
  for number, key in enumerate(jax.random.split(jax.random.key(3), rounds)):
    # The draws depend on signs alone, which the kernel of rounds so far has.
    moved = dataclasses.replace(view, kernel=jnp.asarray(signs, jnp.float32))
    gains = np.asarray(scans.smoothed_gains(moved, key, 0.2, 8).gains).ravel()
    best = np.argsort(-gains, kind='stable')[:2]
    assert gains[best[-1]] > 0
    signs.ravel()[best] *= -1
    np.testing.assert_allclose(
      path.predicted[number], gains[best].sum(), rtol=1e-5
    )
  found = sign(np.asarray(view.kernel + path.displacement))
  np.testing.assert_array_equal(found, signs)
  assert path.loss_evaluations == rounds * 8 * (signs.size + 1) + rounds + 1
  assert path.gradient_evaluations == 0
  if rounds == 1:
    step = scans.discrete_gradient(
      view, types.Budget(2.0, 'flips'),
      signal='smoothed', flip_rate=0.2, draws=8, key=jax.random.key(3),
    )  # fmt: skip
    np.testing.assert_array_equal(step.displacement, path.displacement)


def test_what_a_discrete_gradient_cannot_smooth():
  view = Network(3, 4, 2).view
  grid = quantizers.attach(quantizers.ternary(0.5), quantizers.identity())
  for changes, options, words in (
    ({}, {}, "'smoothed' needs a key"),
    (
      {},
      {'key': jax.random.key(3), 'draws': 0},
      'draws must be an integer >= 1',
    ),
    ({}, {'key': jax.random.key(3), 'flip_rate': 1.5}, 'flip_rate must be'),
    ({'quantizer': grid}, {'key': jax.random.key(3)}, 'two levels'),
  ):
    moved = dataclasses.replace(view, **changes)
    with pytest.raises(types.BadInput, match=words):
      scans.discrete_gradient(
        moved, types.Budget(0.1), signal='smoothed', **options
      )
  with pytest.raises(types.BadInput, match='order must be one of'):
    scans.coordinate_discrete_gradient(
      view, types.Budget(0.1), order='smoothed', key=jax.random.key(3)
    )
