"""The loss along a line equals a Python loop in float64.

Kernels, directions and rates are small multiples of powers of two, so that
``W - eta * d`` is exact in either precision, ties at zero included.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

CLASSES = 3
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
# Unsorted, signed, with zeros and duplicates.
RATES = np.float32(
  [0.5, -0.25, 0, 2, 0.25, 0.5, -0.0, -1, 1, 0, 4, 0.125, 8, -2, 0.75, 3, 0.25]
)


def signs(x):
  return np.where(x >= 0, 1.0, -1.0)


@dataclasses.dataclass(frozen=True)
class Network:
  """One hidden layer; ``view`` for the scan, ``loss`` in NumPy as oracle."""

  binary_weights: bool
  binary_activations: bool
  shift: float = 0.0
  batch_norm: bool = False
  fan_in: int = 7
  units: int = 5
  examples: int = 6

  def arrays(self, seed=0):
    rng = np.random.default_rng(seed)
    shape = (self.fan_in, self.units)
    kernel = rng.integers(-8, 9, shape) / 8
    kernel[0] = np.resize([0.0, -0.0], self.units)
    return {
      'inputs': rng.choice([-1, 1], (self.examples, self.fan_in)),
      'kernel': kernel,
      'last': rng.normal(size=(self.units, CLASSES)),
      'labels': rng.integers(0, CLASSES, self.examples),
    }

  def view(self, seed=0):
    arrays = self.arrays(seed)
    labels = arrays.pop('labels')
    arrays = jax.tree.map(np.float32, arrays)
    quantizer = quantizers.attach(quantizers.sign(), quantizers.window())
    activation = (
      scans.Activation('sign', quantizer)
      if self.binary_activations
      else scans.Activation('relu')
    )
    norm = scans.BatchNorm(np.ones(self.units), np.zeros(self.units))
    return scans.LayerView(
      inputs=arrays['inputs'],
      kernel=arrays['kernel'],
      labels=labels,
      tail=(
        *([norm] if self.batch_norm else []),
        activation,
        scans.Dense(arrays['last']),
      ),
      quantizer=quantizer if self.binary_weights else None,
      affine=scans.Affine(0.5, self.shift),
    )

  def loss(self, kernel, seed=0):
    arrays = self.arrays(seed)
    weights = signs(kernel) if self.binary_weights else kernel
    z = 0.5 * (arrays['inputs'] @ weights) + self.shift
    if self.batch_norm:
      z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
    a = signs(z) if self.binary_activations else np.maximum(z, 0)
    logits = a @ arrays['last']
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return np.mean(total - logits[np.arange(len(z)), arrays['labels']])


def direction_of(network, seed=7):
  rng = np.random.default_rng(seed)
  direction = rng.integers(-4, 5, (network.fan_in, network.units)) / 4
  direction[1:2] = 0.0
  return np.float32(direction)


def loop(network, direction, rates, constrain=lambda kernel: kernel, seed=0):
  kernel = network.arrays(seed)['kernel']
  return [
    network.loss(constrain(kernel - np.float64(rate) * direction), seed)
    for rate in rates
  ]


NETWORKS = {
  'binary': Network(True, True),
  'binary, shifted': Network(True, True, shift=-1.0),
  'binary weights': Network(True, False),
  'full precision': Network(False, False),
  'full precision, sign activation': Network(False, True, shift=0.3),
  'batch norm': Network(True, False, batch_norm=True),
  'one example': Network(True, True, examples=1),
  'odd sizes': Network(True, True, fan_in=13, units=1, examples=11),
  'one weight': Network(True, False, fan_in=1, units=1, examples=3),
}
BINARY = NETWORKS['binary']


@pytest.mark.parametrize(
  ('name', 'path'),
  [
    *((name, 'brute_force') for name in NETWORKS),
    # The fast paths have suites of their own; they compile slowly.
    *((name, 'auto') for name in ('binary', 'odd sizes', 'full precision')),
  ],
)
def test_equals_a_loop(name, path):
  network = NETWORKS[name]
  direction = direction_of(network)
  view = network.view()
  scan = jax.jit(functools.partial(scans.line_scan, path=path))
  result = scan(view, direction, RATES)
  want = loop(network, direction, RATES)
  close(result.losses, want)
  np.testing.assert_array_equal(result.learning_rates, RATES)
  assert len(np.unique(np.round(want, 9))) > 1
  index, rate, lowest = result.best()
  assert np.isclose(want[index], min(want), rtol=1e-5)
  assert rate == RATES[index]
  assert lowest == result.losses[index]


@pytest.mark.parametrize('width', [1, 3, len(RATES), 1000])
def test_any_width_equals_a_loop(width):
  direction = direction_of(BINARY)
  result = jax.jit(
    functools.partial(scans.line_scan, width=width, path='brute_force')
  )(BINARY.view(), direction, RATES)
  close(result.losses, loop(BINARY, direction, RATES))


@pytest.mark.parametrize('rates', [[0.25], [0.0], [-1.0, 3.0]])
def test_few_rates(rates):
  direction = direction_of(BINARY)
  result = scans.line_scan(BINARY.view(), direction, rates)
  close(result.losses, loop(BINARY, direction, rates))


def test_zero_direction_is_the_network_itself():
  direction = np.zeros((7, 5), np.float32)
  result = jax.jit(scans.line_scan)(BINARY.view(), direction, RATES)
  want = BINARY.loss(BINARY.arrays()['kernel'])
  close(result.losses, np.full(len(RATES), want))


def test_zero_weights_are_positive():
  """A positive weight flips after its breakpoint, a negative one at it."""
  network = NETWORKS['binary weights']
  view = network.view()
  kernel = np.full_like(view.kernel, 0.5)
  kernel[1] = -0.5
  view = dataclasses.replace(view, kernel=kernel)
  direction = np.sign(kernel)
  rates = np.float32([0.5, np.nextafter(np.float32(0.5), np.float32(1))])
  losses = jax.jit(scans.line_scan)(view, direction, rates).losses
  before = np.ones_like(kernel)  # Row 1 flips at 0.5; the others do not yet.
  after = np.where(kernel > 0, -1.0, 1.0)
  close(losses, [network.loss(before), network.loss(after)])


@pytest.mark.parametrize('path', ['auto', 'brute_force'])
def test_constrain_acts_on_every_candidate(path):
  direction = direction_of(BINARY)
  kernel = BINARY.arrays()['kernel']

  def constrain(candidate):
    return candidate.clip(kernel - 0.25, kernel + 0.25)

  scan = functools.partial(scans.line_scan, constrain=constrain, path=path)
  kernel = np.float32(kernel)
  result = jax.jit(scan)(BINARY.view(), direction, RATES)
  want = loop(BINARY, direction, RATES, constrain)
  close(result.losses, want)
  free = loop(BINARY, direction, RATES)
  assert np.max(np.abs(np.subtract(free, want))) > 1e-3


@pytest.mark.slow
def test_vmap_over_views_directions_and_rates():
  views = [BINARY.view(seed) for seed in range(3)]
  stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *views)
  directions = np.stack([direction_of(BINARY, seed) for seed in range(3)])
  rates = np.stack([RATES, RATES[::-1], 0.5 * RATES])
  result = jax.jit(jax.vmap(scans.line_scan))(stacked, directions, rates)
  with jax.checking_leaks():  # Of the path that calls other people's functions.
    scan = functools.partial(scans.line_scan, path='brute_force')
    again = jax.jit(jax.vmap(scan))(stacked, directions, rates)
  for seed in range(3):
    want = loop(BINARY, directions[seed], rates[seed], seed=seed)
    close(result.losses[seed], want)
    close(again.losses[seed], want)


def _counting(traces, x):
  traces.append(None)
  return x


def test_network_is_traced_once_for_all_rates_and_views():
  traces = []
  count = functools.partial(_counting, traces)
  tail = scans.Opaque(jax.tree_util.Partial(count))
  scan = jax.jit(scans.line_scan)
  for seed in range(2):
    view = BINARY.view(seed)
    view = dataclasses.replace(view, tail=(tail, *view.tail))
    direction = direction_of(BINARY, seed)
    result = scan(view, direction, RATES * (1 + seed))
    assert result.path == 'distinct'
    want = loop(BINARY, direction, RATES * (1 + seed), seed=seed)
    close(result.losses, want)
  assert len(traces) == 1


def test_infinite_candidates_do_not_disturb_the_others():
  """Rates beyond float32 overflow to NaN losses; these never win."""
  network = NETWORKS['full precision']
  direction = direction_of(network)
  rates = np.float32([3e38, 0.5, -3e38, 0.25])
  result = jax.jit(scans.line_scan)(network.view(), 4 * direction, rates)
  assert np.isnan(result.losses[::2]).all()
  close(result.losses[1::2], loop(network, 4 * direction, rates[1::2]))
  assert int(result.best()[0]) in (1, 3)


@functools.cache
def any_scan():
  return scans.line_scan(BINARY.view(), direction_of(BINARY), [0.5])


def with_losses(rates, losses):
  rates, losses = jnp.float32(rates), jnp.float32(losses)
  return dataclasses.replace(any_scan(), learning_rates=rates, losses=losses)


@pytest.mark.parametrize(
  ('losses', 'index'),
  [
    ([np.nan, 2, 1, np.nan], 2),
    ([np.nan, np.inf], 1),
    ([np.inf, np.nan], 0),
    ([3, -np.inf, np.nan], 1),
    ([1, 1], 0),
  ],
)
def test_best_is_never_nan(losses, index):
  rates = np.arange(len(losses), dtype=np.float32) / 2
  best = with_losses(rates, losses).best()
  assert (int(best[0]), float(best[1])) == (index, index / 2)
  np.testing.assert_array_equal(best[2], losses[index])


def test_best_of_nothing_but_nan_is_nan():
  assert np.isnan(with_losses([0, 1], [np.nan, np.nan]).best()[2])


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'learning_rates': []}, r'non-empty vector; got shape \(0,\)'),
    ({'learning_rates': 0.1}, r'non-empty vector; got shape \(\)'),
    ({'learning_rates': [[0.1]]}, r'non-empty vector; got shape \(1, 1\)'),
    ({'learning_rates': [0.1, np.inf]}, 'learning_rates must be finite'),
    ({'learning_rates': [np.nan]}, 'learning_rates must be finite'),
    ({'direction': np.zeros((5, 7))}, r'the kernel, \(7, 5\); got'),
    ({'path': 'fast'}, r'path must be one of auto, .*brute_force; got'),
    ({'width': 0}, 'must be an integer >= 1'),
  ],
)
def test_errors(changes, message):
  arguments = {
    'direction': direction_of(BINARY),
    'learning_rates': [0.5],
    'path': 'brute_force',
    **changes,
  }
  with pytest.raises(types.BadInput, match=message):
    scans.line_scan(BINARY.view(), **arguments)
