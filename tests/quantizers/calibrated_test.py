"""Steps from the weights: other libraries' formulas, exact scans, and no silence."""

import functools
import pathlib
import re

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'quantizers.md'
RNG = np.random.default_rng(0)
W = np.float32(RNG.normal(size=(40, 5)) / 6)
G = np.float32(RNG.normal(size=W.shape))
UNIT = {
  bits: quantizers.attach(
    quantizers.uniform(bits, narrow=True, step='unit'), quantizers.identity()
  )
  for bits in (2, 3, 4)
}


def rows():
  """Maps a peer of the page's table to its quantizer, a function of the bits."""
  table = PAGE.read_text().split('## Integers by peer')[1].split('\n## ')[0]
  found = re.findall(r'^\| (.*?) \| `((?:calibrated|lsq).*?)` \|', table, re.M)
  return {
    peer: eval(f'lambda b: {code}', vars(quantizers)) for peer, code in found
  }


ROWS = rows()


def largest(w, axis=0):
  return np.abs(w).max(axis=axis, keepdims=True)


def on_grid(w, step, low, high):
  """The level of each weight, and how far it is from a tie, in steps."""
  v = w / step
  codes = np.clip(np.rint(v), low, high)
  return step * codes, np.abs(np.abs(v - np.floor(v)) - 0.5)


def levels_of(w, step):
  """The levels of a narrow grid of 3 bits, where no weight is near a tie."""
  levels, from_tie = on_grid(w, step, -3, 3)
  assert from_tie.min() > 1e-4
  return levels


def power_up(x):
  return 2.0 ** np.ceil(np.log2(x))


# What each library computes, from its source, in float64: its step and its codes.
PEERS = {
  'AQT': lambda w, b, q: (largest(w) / (q + 0.5), -q, q),
  'qwix': lambda w, b, q: (largest(w) / (q + 0.5), -q - 1, q),
  'PerTensorFloat': lambda w, b, q: (largest(w, None) / q, -q, q),
  'PerChannelFloat': lambda w, b, q: (largest(w) / q, -q, q),
  'FixedPoint': lambda w, b, q: (
    power_up(largest(w, None)) / 2 ** (b - 1), -q, q,
  ),
  'HGQ2': lambda w, b, q: (
    power_up(largest(w, None) / (1 - 2.0 ** (1 - b))) / 2 ** (b - 1), -q, q,
  ),
}  # fmt: skip


def vjp(quantize, x, g):
  y, pull_back = jax.vjp(quantize, x)
  return y, *pull_back(g)


@functools.cache
def computed():
  """Outputs and gradients by peer and bits, from one program."""
  made = {
    (peer, bits): make(bits)
    for peer in PEERS
    for name, make in ROWS.items()
    if peer in name
    for bits in (2, 4)
  }

  @jax.jit
  def run(quantizers):
    return [vjp(quantize, W, G) for quantize in quantizers]

  return dict(zip(made, run(list(made.values())), strict=True))


class TestPeers:
  """The rows of the documentation's table are what the libraries compute."""

  def test_every_row_is_tested(self):
    assert len(ROWS) == 7
    for peer, make in ROWS.items():
      learned = isinstance(make(2), quantizers.Quantizer)
      assert learned or any(p in peer for p in PEERS), peer

  @pytest.mark.parametrize('bits', [2, 4])
  @pytest.mark.parametrize('peer', PEERS)
  def test_levels_and_gradients(self, peer, bits):
    y, x_bar = computed()[peer, bits]
    w, q = np.float64(W), 2 ** (bits - 1) - 1
    step, low, high = PEERS[peer](w, bits, q)
    want, from_tie = on_grid(w, step, low, high)
    far = from_tie > 1e-4
    assert far.mean() > 0.9
    np.testing.assert_allclose(y[far], want[far], rtol=1e-6, atol=1e-7)
    if 'Float' not in peer:
      np.testing.assert_allclose(x_bar, G, rtol=5e-7)
      return
    # brevitas differentiates the step, which the largest weight sets.
    axis = None if 'Tensor' in peer else 0
    moved = np.sum(np.float64(G) * (want - w) / (q * step), axis, keepdims=True)
    at = np.abs(w) == largest(w, axis)
    np.testing.assert_allclose(x_bar, G + at * np.sign(w) * moved, rtol=2e-5)

  def test_the_most_negative_weight_of_qwix_is_one_level_further(self):
    w = np.float32([[-1.5], [0.25], [1.0]])  # The step is exactly 1.
    (make,) = (make for name, make in ROWS.items() if 'qwix' in name)
    np.testing.assert_array_equal(make(2)(w), [[-2], [0], [1]])


LECUN = linen.initializers.lecun_normal()


class TestNotSilent:
  """Layers of few bits have an output and a gradient, whatever the fan-in is."""

  @pytest.mark.parametrize(
    'fan_in',
    [
      pytest.param(16, marks=pytest.mark.slow),
      pytest.param(256, marks=pytest.mark.slow),
      4096,
    ],
  )
  @pytest.mark.parametrize(
    'all_bits', [(2,), pytest.param((3, 4), marks=pytest.mark.slow)]
  )
  def test_by_every_row_of_the_table(self, fan_in, all_bits):
    x = np.float32(np.random.default_rng(2).normal(size=(3, fan_in)))
    kernel = LECUN(jax.random.key(0, impl='rbg'), (fan_in, 4))
    layers = {
      (peer, bits): nn.QuantDense(4, kernel_quantizer=make(bits))
      for peer, make in ROWS.items()
      for bits in all_bits
    }

    @jax.jit
    def run(kernel, x):
      def one(layer):
        def total(kernel):
          params = {'kernel': kernel, 'bias': jnp.zeros(4)}
          if isinstance(layer.kernel_quantizer, quantizers.Quantizer):
            params['kernel_quantizer'] = layer.kernel_quantizer.init(
              None, kernel
            )
          z = layer.apply({'params': params}, x)
          return jnp.sum(z**2), z

        return jax.grad(total, has_aux=True)(kernel)

      return {key: one(layer) for key, layer in layers.items()}

    for key, (grad, z) in run(kernel, x).items():
      assert np.std(z, axis=0).max() > 0.01, key
      assert np.abs(grad).max() > 1e-4, key

  @pytest.mark.parametrize(('bits', 'fan_in'), [(2, 21), (3, 187), (4, 1014)])
  def test_a_grid_on_the_unit_interval_is_silent(self, bits, fan_in):
    """The fault that the table is about, and the fan-ins that the page names."""
    kernel = LECUN(jax.random.key(0, impl='rbg'), (fan_in, 4))
    assert np.all(np.asarray(UNIT[bits](kernel)) == 0)
    end = (
      2 / 0.87962566 / np.sqrt(fan_in - 1)
    )  # Normals are cut at two deviations.
    assert np.any(np.asarray(UNIT[bits](np.float32([end]))) != 0)
    y = quantizers.calibrated(UNIT[bits], quantizers.max_abs())(kernel)
    assert np.all(np.any(np.asarray(y) != 0, axis=0))


class TestRules:
  """Scales of zeros, extremes and halves; what is refused."""

  def test_zeros_stay_zeros_and_pass_their_gradient(self):
    quantize = quantizers.calibrated(UNIT[3], quantizers.max_abs())
    w = np.float32([[0, 1], [0, -0.4]])
    y, x_bar = vjp(quantize, w, np.ones_like(w))
    np.testing.assert_allclose(y, [[0, 1], [0, -1 / 3]], rtol=1e-6)
    np.testing.assert_array_equal(x_bar, 1)

  @pytest.mark.parametrize('size', [1e-37, 1e-20, 1e20, 3e38])
  def test_weights_of_any_size(self, size):
    quantize = quantizers.calibrated(UNIT[3], quantizers.max_abs())
    got = jax.jit(quantize)(np.float32(size) * W / np.abs(W).max(axis=0))
    want = levels_of(np.float64(W) / largest(np.float64(W)), 1 / 3)
    np.testing.assert_allclose(np.float64(got) / size, want, rtol=1e-5)

  def test_infinite_and_nan_reach_all_that_share_the_scale(self):
    quantize = quantizers.calibrated(UNIT[2], quantizers.max_abs())
    for bad in (np.inf, -np.inf, np.nan):
      y = np.asarray(quantize(np.float32([[bad, 1], [1, 1]])))
      assert np.isnan(y[:, 0]).all() and (y[:, 1] == 1).all()

  def test_power_of_two_is_the_next_one_up(self):
    scaling = quantizers.max_abs(power_of_two=True, factor=0.5)
    kernel = np.float32([[2, 2.1, -1.9, 0, 6e-39, np.inf]])
    want = np.float32([1, 2, 1, 0, 2.0**-127, np.inf])
    np.testing.assert_allclose(scaling(kernel), want, atol=2e-38)

  @pytest.mark.parametrize(
    ('call', 'message'),
    [
      (lambda: quantizers.max_abs('row'), 'coupling must be one of'),
      (lambda: quantizers.max_abs(factor=0.0), 'factor must be > 0'),
      (lambda: quantizers.max_abs(factor=np.inf), 'factor must be .* finite'),
      (
        lambda: quantizers.max_abs(power_of_two=True, detached=False),
        'detached must be True for a power of two',
      ),
      (
        lambda: quantizers.calibrated(
          quantizers.attach(
            quantizers.hysteretic_sign(0.1), quantizers.identity()
          ),
          quantizers.max_abs(),
        ),
        'quantize must not remember',
      ),
      (
        lambda: quantizers.calibrated(quantizers.sign(), quantizers.max_abs()),
        'A staircase alone passes no gradient',
      ),
    ],
  )
  def test_bad_input(self, call, message):
    with pytest.raises(types.BadInput, match=message):
      call()


SIGN = quantizers.attach(quantizers.sign(), quantizers.identity())
NESTED = {
  'scaled(calibrated)': quantizers.scaled(
    quantizers.calibrated(UNIT[3], quantizers.max_abs()),
    quantizers.mean_abs('tensor'),
  ),
  'calibrated(scaled)': quantizers.calibrated(
    quantizers.scaled(UNIT[2], quantizers.mean_abs()),
    quantizers.max_abs('tensor'),
  ),
  'standardized(scaled)': quantizers.standardized(
    quantizers.scaled(SIGN, quantizers.power_of_two())
  ),
}


class TestFrozen:
  """Constant scales: the same values, elementwise, in every dtype and nesting."""

  @pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
  @pytest.mark.parametrize(
    'compose', [quantizers.scaled, quantizers.calibrated]
  )
  def test_the_staircase_is_what_is_computed(self, compose, dtype):
    w = jnp.asarray(W, dtype)
    with jax.numpy_dtype_promotion('strict'):
      quantize = compose(UNIT[3], quantizers.max_abs())
      frozen = quantizers.freeze_scale(quantize, w)
      staircase = quantizers.staircase(frozen)
      want = quantize(w)
      assert quantizers.staircase(quantize) is None
      assert want.dtype == w.dtype
      for found in (frozen(w), staircase(w)):
        assert found.dtype == w.dtype
        np.testing.assert_array_equal(found, want)
      for there in staircase.neighbours(w):
        assert there.dtype == w.dtype

  @pytest.mark.parametrize('name', NESTED)
  def test_scales_inside_are_constants_too(self, name):
    quantize = NESTED[name]
    frozen = quantizers.freeze_scale(quantize, W)
    np.testing.assert_array_equal(frozen(W), quantize(W))
    # Only the largest weight moves: its value may change, the others' may not.
    index = np.unravel_index(np.abs(W).argmax(), W.shape)
    moved = W.copy()
    moved[index] *= 4
    others = np.ones(W.shape, bool)
    others[index] = False
    if name == 'standardized(scaled)':  # Standardised weights all move.
      scales = np.abs(frozen(W)), np.abs(frozen(moved))
      np.testing.assert_array_equal(*scales)
      return
    assert np.any(quantize(moved)[others] != quantize(W)[others])
    np.testing.assert_array_equal(frozen(moved)[others], frozen(W)[others])
    staircase = quantizers.staircase(frozen)
    np.testing.assert_array_equal(staircase(W), quantize(W))
    assert len(staircase.neighbours(W)) == 2

  def test_the_progress_that_is_filled_in_stays(self):
    quantize = NESTED['scaled(calibrated)']
    filled = quantizers.at_progress(quantize, 0.5)
    staircase = quantizers.staircase(quantizers.freeze_scale(filled, W))
    np.testing.assert_array_equal(staircase(W), quantize(W))
    plain = quantizers.at_progress(SIGN, 0.5)
    assert quantizers.freeze_scale(plain, W) is plain


INPUTS = np.float32(RNG.normal(size=(6, 7)))
KERNEL = np.float32(RNG.normal(size=(7, 4)) / 3)
LABELS = np.arange(6) % 4


def view_of(scaling, quantize=UNIT[3], compose=quantizers.calibrated):
  return scans.LayerView(
    inputs=INPUTS,
    kernel=jnp.asarray(KERNEL),
    labels=LABELS,
    tail=(),
    quantizer=compose(quantize, scaling),
  )


def loss(weights):
  """The mean cross-entropy of quantized weights, in float64."""
  z = np.float64(INPUTS) @ weights
  return np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(6), LABELS])


@pytest.mark.optimised
class TestScans:
  """With its scale held constant, each weight moves by itself, exactly."""

  @pytest.mark.parametrize(
    'coupling', ['column', pytest.param('tensor', marks=pytest.mark.slow)]
  )
  def test_gains_of_all_moves(self, coupling):
    view = view_of(quantizers.max_abs(coupling)).freeze_scale()
    np.testing.assert_array_equal(
      view.quantizer(view.kernel),
      view_of(quantizers.max_abs(coupling)).quantizer(view.kernel),
    )
    step = largest(np.float64(KERNEL), 0 if coupling == 'column' else None) / 3
    step = np.broadcast_to(step, KERNEL.shape)
    levels = levels_of(np.float64(KERNEL), step)
    want = np.zeros((2, *KERNEL.shape))
    for index in np.ndindex(KERNEL.shape):
      for move, sign in enumerate((1, -1)):
        moved = levels.copy()
        moved[index] += sign * step[index]
        exists = abs(moved[index]) < 3.5 * step[index]
        want[(move, *index)] = exists * (loss(levels) - loss(moved))
    got = scans.flip_gains(view).gains
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=3e-6)
    np.testing.assert_array_equal(got == 0, want == 0)

  def test_moves_of_a_scaled_sign(self):
    view = view_of(quantizers.mean_abs(), SIGN, quantizers.scaled)
    scale = np.abs(np.float64(KERNEL)).mean(axis=0)
    levels = scale * np.where(KERNEL >= 0, 1, -1)
    want = np.zeros(KERNEL.shape)
    for index in np.ndindex(KERNEL.shape):
      moved = levels.copy()
      moved[index] *= -1
      want[index] = loss(levels) - loss(moved)
    got = scans.flip_gains(view.freeze_scale()).gains
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=3e-6)

  def test_a_line_moves_the_scale_too(self):
    view = view_of(quantizers.max_abs())
    rng = np.random.default_rng(3)
    direction = np.float32(rng.normal(size=KERNEL.shape))
    rates = np.float32(np.linspace(0, 1, 9))
    got = scans.line_scan(view, direction, rates).losses
    want = []
    for rate in rates:
      w = np.float64(KERNEL - rate * direction)
      want.append(loss(levels_of(w, largest(w) / 3)))
    np.testing.assert_allclose(got, want, rtol=1e-5)

  def test_what_is_not_frozen_is_refused_with_the_fix(self):
    with pytest.raises(types.BadInput, match=r'view.freeze_scale\(\) holds'):
      scans.flip_gains(view_of(quantizers.max_abs()))

  def test_layers_are_viewed_and_deployed(self):
    layer = nn.QuantDense(
      4,
      kernel_quantizer=quantizers.calibrated(UNIT[3], quantizers.max_abs()),
      use_bias=False,
    )
    variables = {'params': {'kernel': KERNEL}}
    levels = levels_of(np.float64(KERNEL), largest(np.float64(KERNEL)) / 3)
    labels = LABELS.tolist()  # A list serves as well as an array.
    view = nn.layer_view(layer, variables, INPUTS, labels, '').freeze_scale()
    np.testing.assert_allclose(view.loss(view.kernel), loss(levels), rtol=1e-5)
    assert scans.flip_gains(view).gains.shape == (2, 7, 4)
    deployed = nn.deploy(layer, variables, INPUTS)
    np.testing.assert_allclose(deployed['params']['kernel'], levels, rtol=1e-6)
    np.testing.assert_array_equal(
      layer.apply(deployed, INPUTS), layer.apply(variables, INPUTS)
    )
