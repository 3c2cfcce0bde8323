"""What moves promise by crossing and effect behind, against loops in float64.

The oracle knows nothing of stages or estimators: its network is written out, with the
derivatives of its windows.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types

WINDOW = 0.75  # Half-width of the activations' estimator.
KERNEL = 1.5  # That of the weights' estimator.


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


class Network:
  """x -> sign(scale x q(W) + shift) * gain -> V -> sign(. / 4) -> U -> logits."""

  def __init__(self, seed, examples, fan_in, units, width, binary_inputs=False):
    rng = np.random.default_rng(seed)
    self.x = rng.integers(-2, 4, size=(examples, fan_in)).astype(float)
    if binary_inputs:
      self.x = sign(rng.normal(size=self.x.shape))
    # Multiples of a power of two: all sums are exact in float32.
    self.kernel = np.round(rng.normal(size=(fan_in, units)) * 16) / 16
    self.kernel[rng.uniform(size=self.kernel.shape) < 0.1] = 0
    self.scale = np.resize([0.25, -0.5, 0.125], units)
    self.shift = np.resize([0.25, 0.0, -0.5, 0.0], units)
    if binary_inputs:
      self.shift = np.zeros(units)
    self.gain = np.resize([1.0, -0.5, 0.0, 2.0], units)
    self.v = sign(rng.normal(size=(units, width)))
    self.u = np.round(rng.normal(size=(width, 3)) * 8) / 8
    self.labels = rng.integers(0, 3, examples)

  def view(self, half_width=WINDOW):
    def f32(a):
      return jnp.asarray(a, jnp.float32)

    act = quantizers.attach(quantizers.sign(), quantizers.window(half_width))
    return scans.LayerView(
      inputs=f32(self.x),
      kernel=f32(self.kernel),
      labels=jnp.asarray(self.labels),
      tail=(
        scans.Activation('sign', act),
        scans.Affine(f32(self.gain), 0.5),
        scans.Dense(f32(self.v), affine=scans.Affine(0.25)),
        scans.Activation('sign', act),
        scans.Dense(f32(self.u)),
      ),
      quantizer=quantizers.attach(quantizers.sign(), quantizers.window(KERNEL)),
      affine=scans.Affine(f32(self.scale), f32(self.shift)),
    )

  def losses(self, h):
    """Returns losses for h, what the layer hands on, and their gradient."""
    z = (h @ self.v) * 0.25
    logits = sign(z) @ self.u
    top = logits.max(axis=1, keepdims=True)
    exp = np.exp(logits - top)
    rows = np.arange(len(h))
    losses = np.log(exp.sum(1)) + top[:, 0] - logits[rows, self.labels]
    error = exp / exp.sum(1, keepdims=True)
    error[rows, self.labels] -= 1
    inner = (error @ self.u.T) * (np.abs(z) <= WINDOW) * 0.25
    return losses, inner @ self.v.T

  def hand_on(self, p):
    return sign(self.scale * p + self.shift) * self.gain + 0.5

  def worth(self, weights):
    """Returns what a plus is worth over a minus, [examples, units]."""
    h = self.hand_on(self.x @ weights)
    found = np.zeros(h.shape)
    for j in range(h.shape[1]):
      a = sign((h[:, j] - 0.5) * sign(self.gain[j]))
      other = h.copy()
      other[:, j] = 0.5 - (h[:, j] - 0.5)
      found[:, j] = a * (self.losses(other)[0] - self.losses(h)[0])
    return found

  def promises(self, worth=None):
    """Returns the four signals, by loops over all moves and examples.

    Args:
      worth: what takes the place of `worth`; None for that of the network as it is.
    """
    weights = sign(self.kernel)
    p = self.x @ weights
    z, h = self.scale * p + self.shift, self.hand_on(p)
    base, gradient = self.losses(h)
    found = np.zeros((4, *self.kernel.shape))
    for i, j in np.ndindex(*self.kernel.shape):
      change = -2 * weights[i, j]
      other = h.copy()
      other[:, j] = -(h[:, j] - 0.5) + 0.5
      tau = (other - h)[:, j]
      exact = self.losses(other)[0] - base
      if worth is not None:
        exact = sign((h[:, j] - 0.5) * sign(self.gain[j])) * worth[:, j]
      slope = np.divide(exact, tau, out=np.zeros_like(tau), where=tau != 0)
      moved = p.copy()
      moved[:, j] += change * self.x[:, i]
      true = self.hand_on(moved)[:, j] - h[:, j]
      passed = (np.abs(z[:, j]) <= WINDOW) * self.scale[j] * self.gain[j]
      smoothed = passed * change * self.x[:, i]
      smoothed = smoothed * (abs(self.kernel[i, j]) <= KERNEL)
      for row, (delta, behind) in enumerate(
        (delta, behind)
        for delta in (true, smoothed)
        for behind in (slope, gradient[:, j])
      ):
        found[row, i, j] = -np.mean(delta * behind)
    return found


NETWORKS = {
  'odd sizes': (0, 37, 7, 5, 3),
  'one example': (3, 1, 6, 8, 5),
  'many ties': (2, 40, 8, 4, 6, True),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_signals_equal_the_oracle(name):
  network = Network(*NETWORKS[name])
  wanted = network.promises()
  if name == 'many ties':
    p = network.x @ sign(network.kernel)
    assert np.mean(p == 0) > 0.15
  found = scans.flip_factorial(network.view())
  for row, label in enumerate(found._fields):
    assert np.abs(wanted[row]).max() > 1e-3  # Not a test of zeros.
    np.testing.assert_allclose(
      found[row], wanted[row], atol=1e-6, err_msg=label
    )


@pytest.mark.parametrize('name', NETWORKS)
def test_averaged_effects_equal_the_oracle(name):
  network = Network(*NETWORKS[name])
  rate, draws, shape = 0.3, 5, network.kernel.shape
  worth = 0.0
  for number in range(draws):
    key = jax.random.fold_in(jax.random.key(7), number)
    flips = np.asarray(jax.random.bernoulli(key, rate, shape))
    assert 0 < flips.sum() < flips.size
    worth += network.worth(sign(network.kernel) * np.where(flips, -1, 1))
  wanted = network.promises(worth / draws)[[0, 2]]
  assert np.abs(wanted - network.promises()[[0, 2]]).max() > 1e-3
  found = scans.averaged_factorial(
    network.view(), jax.random.key(7), rate, draws
  )
  for row, label in enumerate(found._fields):
    np.testing.assert_allclose(
      found[row], wanted[row], atol=1e-6, err_msg=label
    )


def test_without_flips_averaged_effects_are_exact():
  view = Network(1, 1300, 9, 6, 5).view()
  found = scans.averaged_factorial(view, jax.random.key(0), 0.0, 2)
  wanted = scans.flip_factorial(view)
  np.testing.assert_allclose(found.true_averaged, wanted.exact, atol=1e-7)
  np.testing.assert_allclose(
    found.smoothed_averaged, wanted.smoothed_exact, atol=1e-7
  )


def test_what_cannot_be_averaged():
  view, key = Network(0, 4, 3, 2, 2).view(), jax.random.key(0)
  relu = dataclasses.replace(view, tail=(scans.Activation('relu'),))
  for moved, rate, draws, words in (
    (relu, 0.1, 2, 'does not feed a sign'),
    (view, -0.1, 2, 'flip_rate must be'),
    (view, 0.1, 0, 'draws must be an integer >= 1'),
  ):
    with pytest.raises(types.BadInput, match=words):
      scans.averaged_factorial(moved, key, rate, draws)


def test_corners_are_the_gain_and_the_prediction():
  """As JAX's gradient and `flip_gains` compute them."""
  two_blocks = Network(1, 1300, 9, 6, 5)
  view = two_blocks.view(half_width=2.0)
  found = scans.flip_factorial(view)
  np.testing.assert_allclose(
    found.exact, scans.flip_gains(view, path='sign').gains, atol=1e-7
  )
  gradient = jax.grad(view.loss)(view.kernel)
  changes = scans.moves(view).changes[0]
  np.testing.assert_allclose(found.linear, -gradient * changes, atol=1e-6)
  assert np.abs(gradient).max() > 1e-3


@pytest.mark.slow
def test_moves_up_and_down():
  view = dataclasses.replace(
    Network(4, 20, 5, 4, 3).view(),
    quantizer=quantizers.attach(quantizers.ternary(0.5), quantizers.identity()),
  )
  found = scans.flip_factorial(view)
  gains = scans.flip_gains(view, path='brute_force').gains
  np.testing.assert_allclose(found.exact, gains, atol=1e-6)
  gradient = jax.grad(view.loss)(view.kernel)
  predicted = -gradient[None] * scans.moves(view).changes
  np.testing.assert_allclose(found.linear, predicted, atol=1e-6)
  assert found.true_linear.shape == (2, 5, 4)


def test_views_without_crossings_are_refused():
  view = Network(0, 4, 3, 2, 2).view()
  relu = dataclasses.replace(view, tail=(scans.Activation('relu'),))
  with pytest.raises(types.BadInput, match='does not feed a sign'):
    scans.flip_factorial(relu)
  scaled = dataclasses.replace(
    view, scaling=quantizers.mean_abs(), affine=scans.Affine()
  )
  with pytest.raises(types.BadInput, match=r'use view\.freeze_scale'):
    scans.flip_factorial(scaled)
  empty = dataclasses.replace(
    view, inputs=view.inputs[:0], labels=view.labels[:0]
  )
  with pytest.raises(types.BadInput, match='must not be empty'):
    scans.flip_factorial(empty)
