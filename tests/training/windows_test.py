"""Fitted widths: the scores against NumPy, and what theory says of the batch size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import training
from bitjax import types

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())
WIDTHS = np.float32([0.25, 1.0, 4.0])
SILENT = scans.Dense(jnp.zeros((3, 3)))
HOSTILE = (1, 2)  # Halves of which neither predicts the other.


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


class Layer:
  """x -> sign(x q(W) / 2 + 1/4) -> V -> logits, for one half of a batch."""

  def __init__(self, half, examples=13, fan_in=5, units=3):
    rng = np.random.default_rng(0)
    self.kernel = np.round(rng.normal(size=(fan_in, units)) * 4) / 4
    self.matrix = np.round(rng.normal(size=(units, 3)) * 8) / 8
    rng = np.random.default_rng(half)
    self.x = rng.integers(-2, 3, size=(examples, fan_in)).astype(float)
    self.labels = rng.integers(0, 3, examples)

  @property
  def view(self):
    return scans.LayerView(
      inputs=jnp.asarray(self.x, jnp.float32),
      kernel=jnp.asarray(self.kernel, jnp.float32),
      labels=jnp.asarray(self.labels),
      tail=(
        scans.Activation('sign', BINARY),
        scans.Dense(jnp.asarray(self.matrix, jnp.float32)),
      ),
      quantizer=BINARY,
      affine=scans.Affine(0.5, 0.25),
    )

  def loss(self, weights):
    logits = sign(self.x @ weights / 2 + 0.25) @ self.matrix
    total = np.log(np.exp(logits).sum(1))
    return (total - logits[np.arange(len(self.x)), self.labels]).mean()

  def gains(self):
    weights, found = sign(self.kernel), np.zeros(self.kernel.shape)
    for place in np.ndindex(*found.shape):
      moved = weights.copy()
      moved[place] *= -1
      found[place] = self.loss(weights) - self.loss(moved)
    return found.ravel()

  def predictions(self, sigma):
    weights = sign(self.kernel)
    z = self.x @ weights / 2 + 0.25
    exp = np.exp(sign(z) @ self.matrix)
    error = exp / exp.sum(1, keepdims=True) - np.eye(3)[self.labels]
    slope = np.exp(-((z / sigma) ** 2) / 2) * 2 / sigma / np.sqrt(2 * np.pi)
    gradient = self.x.T @ (slope * (error @ self.matrix.T)) / 2 / len(self.x)
    return (2 * weights * gradient).ravel()


def test_scores_equal_the_oracle():
  halves = Layer(1), Layer(2)
  found = training.fit_width(
    *(half.view for half in halves), quantizers.gaussian, WIDTHS
  )
  one, two = halves
  wanted = [
    np.corrcoef(one.predictions(s), two.gains())[0, 1] / 2
    + np.corrcoef(two.predictions(s), one.gains())[0, 1] / 2
    for s in WIDTHS
  ]
  np.testing.assert_allclose(found.scores, wanted, rtol=1e-4, atol=1e-6)
  assert found.width == WIDTHS[np.argmax(wanted)]
  np.testing.assert_allclose(found.score, np.max(wanted), rtol=1e-4)


def test_a_width_that_passes_nothing_never_wins():
  """Though its score, 0, is the best where all others predict badly."""
  halves = [Layer(half).view for half in HOSTILE]
  widths = np.float32([0.1, 0.2, 4.0])
  found = training.fit_width(*halves, quantizers.window, widths)
  # What enters the sign is an odd multiple of 1/4.
  assert found.scores[0] == found.scores[1] == 0 > found.scores[2]
  assert (found.width, found.score) == (4.0, found.scores[2])

  def broken(width):
    return lambda g, x, x_q, progress: g * jnp.where(width > 1, 1.0, jnp.nan)

  both = [broken, quantizers.window]
  found = training.fit_width(*halves, both, widths[1:])
  assert np.isnan(found.scores[0, 0]) and found.width == 4.0
  assert found.score == np.max(found.scores[:, 1])


def test_where_nothing_can_be_judged_there_is_no_score():
  halves = [Layer(half).view for half in HOSTILE]
  for views, widths in (
    (halves, [0.1, 0.2]),
    # The logits are 0 whatever flips, so all gains are.
    ([dataclasses.replace(v, tail=(v.tail[0], SILENT)) for v in halves], [4.0]),
  ):
    found = training.fit_width(*views, quantizers.window, np.float32(widths))
    assert found.score == -np.inf and found.width == np.float32(widths[0])


def test_what_cannot_be_fitted_is_refused():
  view = Layer(1).view
  plain = dataclasses.replace(view, quantizer=None)
  silent = dataclasses.replace(view, tail=view.tail[1:])
  wider = Layer(1, units=4).view
  make = quantizers.gaussian
  for args, text in (
    ((plain, view, make, WIDTHS), 'quantised kernel'),
    ((view, silent, make, WIDTHS), 'No sign follows'),
    ((view, wider, make, WIDTHS), 'same layer'),
    ((view, view, 0.5, WIDTHS), 'function of a width'),
    ((view, view, make, []), 'widths'),
    ((view, view, make, [0.5, 0.0]), 'widths'),
    ((view, view, [], WIDTHS), 'at least one family'),
    ((view, view, [make, 0.5], WIDTHS), 'function of a width'),
  ):
    with pytest.raises(types.BadInput, match=text):
      training.fit_width(*args)


@pytest.mark.slow
def test_convolutions_are_fitted_by_a_sample():
  binary = quantizers.attach(quantizers.sign(), quantizers.window())
  model = nn.ResNet(
    stages=(1, 1),
    widths=(4, 4),
    variant='bireal',
    kernel_quantizer=binary,
    input_quantizer=binary,
  )
  images = np.random.default_rng(0).normal(size=(12, 8, 8, 3))
  images, labels = images.astype(np.float32), np.arange(12) % 10
  variables = jax.jit(model.init)(jax.random.key(0), images)
  views = [
    nn.layer_view(
      model,
      variables,
      images[part],
      labels[part],
      'Block_0/Conv_0',
      train=False,
    )
    for part in (slice(6), slice(6, 12))
  ]
  whole = training.fit_width(*views, quantizers.gaussian, WIDTHS)
  every = jnp.arange(views[0].kernel.size)
  found = training.fit_width(
    *views, quantizers.gaussian, WIDTHS, coordinates=every
  )
  np.testing.assert_allclose(found.scores, whole.scores, atol=1e-5)
  assert np.ptp(whole.scores) > 0  # The window that follows is a fitted one.
  sample = scans.draw_sample(views[0], 40, jax.random.key(1))
  fewer = training.fit_width(
    *views, quantizers.gaussian, WIDTHS, coordinates=sample.coordinates
  )
  assert np.isfinite(fewer.score) and fewer.width in WIDTHS


@pytest.mark.slow
def test_the_best_width_shrinks_with_the_batch():
  images, labels = (lambda d: (d.images, d.labels))(data.load('mnist5k'))
  model = nn.binary_mlp(hidden=(64, 64))
  widths = 2.0 ** np.arange(-6, 3, 0.5, dtype=np.float32)

  def relative(width):
    return quantizers.relative(quantizers.gaussian(width))

  def fitted(seed, batch):
    drawn = np.random.default_rng(seed).permutation(len(labels))[:batch]
    variables = model.init(jax.random.key(seed), images[:1])
    halves = [
      nn.layer_view(model, variables, images[part], labels[part], 'Dense_0')
      for part in np.split(drawn, 2)
    ]
    return training.fit_width(*halves, relative, widths).scores

  # With 64 examples six seeds would not settle it.
  best = [
    widths[np.argmax(np.mean([fitted(seed, batch) for seed in range(6)], 0))]
    for batch in (256, 1024, 4096)
  ]
  assert best[0] > best[1] > best[2]
  # As B^(-1/5), by which 16 times the batch is a factor of 1.7.
  assert 1.3 < best[0] / best[2] < 3


def test_the_best_of_several_families():
  halves = [Layer(half).view for half in (1, 2)]
  families = [quantizers.window, quantizers.gaussian, quantizers.polynomial]
  found = training.fit_width(*halves, families, WIDTHS)
  each = [training.fit_width(*halves, make, WIDTHS) for make in families]
  np.testing.assert_array_equal(found.scores, [one.scores for one in each])
  best = int(np.argmax([one.score for one in each]))
  assert (found.family, found.width) == (best, each[best].width)
  assert found.score == each[best].score and each[best].family == 0
  # Of equals the first.
  again = training.fit_width(*halves, [families[best]] * 2, WIDTHS)
  assert again.family == 0 and again.width == found.width


@pytest.mark.parametrize('name', training.FAMILIES)
def test_a_width_of_a_family_is_where_its_slope_ends(name):
  x = jnp.linspace(-4.0, 4.0, 801)
  spread = jnp.sqrt(jnp.mean(x**2))
  rule = training.FAMILIES[name](0.5)
  slope = rule(jnp.ones_like(x), x, jnp.sign(x), 1.0)
  inside = jnp.abs(x) < 0.49 * spread
  assert (slope[inside] > 0).all()
  if name != 'Gaussian':
    beyond = jnp.abs(x) > 0.51 * spread
    assert (slope[beyond] <= 0).all()
  # A unit of the inputs is none of the rule: it keeps the mass.
  scaled = rule(jnp.ones_like(x), 3 * x, jnp.sign(x), 1.0)
  np.testing.assert_allclose(3 * scaled, slope, rtol=1e-4, atol=1e-6)
