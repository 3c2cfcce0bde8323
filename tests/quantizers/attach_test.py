"""Only `attach` replaces a gradient; it passes keys, states and progress on."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bitjax
from bitjax import quantizers
from bitjax import types

OVERRIDES = {'custom_vjp', 'custom_jvp', 'custom_gradient', 'stop_gradient'}


def overrides(source):
  """Yields the names of the derivative overrides that a source mentions."""
  for node in ast.walk(ast.parse(source)):
    name = getattr(node, 'attr', getattr(node, 'id', None))
    if isinstance(node, ast.ImportFrom):
      yield from (a.name for a in node.names if a.name in OVERRIDES)
    elif name in OVERRIDES:
      yield name


def test_one_custom_vjp_changes_gradients():
  """Those of convolutions and of 16-bit products compute true gradients, faster."""
  root = pathlib.Path(bitjax.__file__).parent
  overridden = {
    (str(path.relative_to(root)), name)
    for path in root.rglob('*.py')
    for name in overrides(path.read_text())
    if name != 'stop_gradient'
  }
  assert overridden == {
    ('quantizers/_attach.py', 'custom_vjp'),
    ('nn/_convolution.py', 'custom_vjp'),
    ('sums.py', 'custom_vjp'),
  }
  source = (root / 'quantizers/_attach.py').read_text()
  assert list(overrides(source)) == ['custom_vjp']


def test_planted_overrides_are_found():
  for source in (
    'import jax\n@jax.custom_vjp\ndef f(x): pass',
    'from jax import custom_vjp as c',
    'import jax\ng = jax.custom_derivatives.custom_jvp(f)',
    'def f(x):\n  return custom_gradient(x)',
  ):
    assert len(list(overrides(source))) == 1, source


def test_quantizer_is_a_pytree_of_its_parts():
  quantize = quantizers.attach(quantizers.sign(), quantizers.window(0.5, 2.0))
  assert jax.tree.leaves(quantize) == [0.5, 2.0]


class TestFunctions:
  """Plain functions are staircases and estimators too."""

  def test_of_python(self):
    quantize = quantizers.attach(
      jnp.round, lambda g, x, x_q, progress: progress * g
    )
    x = np.float32([0.4, 0.6, -1.2])

    @jax.jit
    def run(quantize, progress):
      def total(x):
        x_q = quantize(x, progress=progress)
        return jnp.sum(x_q), x_q

      return jax.grad(total, has_aux=True)(x)

    for progress in (0.5, 1.0):
      x_bar, x_q = run(quantize, progress)
      np.testing.assert_array_equal(x_q, [0, 1, -1])
      np.testing.assert_array_equal(x_bar, 3 * [progress])
    assert run._cache_size() == 1

  def test_in_annealed_and_learned_ones(self):
    x = np.float32([0.5, -2.0])
    soft = quantizers.Annealed(lambda x, *, progress: progress * x)
    quantize = quantizers.attach(soft, quantizers.identity())
    clipping = quantizers.Quantizer(
      init=lambda key, x: {'limit': jnp.max(x)},
      apply=lambda q, x, **_: jnp.clip(x, -q['limit'], q['limit']),
      bits=None,
    )
    bound = quantizers.bind(clipping, clipping.init(None, x))
    run = jax.jit(lambda *given: [q(x, progress=0.5) for q in given])
    half, clipped = run(quantize, bound)
    np.testing.assert_array_equal(half, x / 2)
    np.testing.assert_array_equal(clipped, [0.5, -0.5])
    with pytest.raises(
      types.BadInput, match=r'must be a Quantizer\(init, apply'
    ):
      quantizers.bind(quantize, {})

  def test_in_compositions(self):
    x = np.float32([[3.0, 0.5], [-1.0, 2.0]])
    scaling = lambda kernel: jnp.max(jnp.abs(kernel))
    quantize = quantizers.scaled(jnp.sign, scaling)
    got = jax.jit(lambda quantize: quantize(x, progress=0.5))(quantize)
    np.testing.assert_array_equal(got, 3 * np.sign(x))
    filled = quantizers.at_progress(lambda x, *, progress: progress * x, 0.25)
    np.testing.assert_array_equal(filled(x), x / 4)

  @pytest.mark.parametrize(
    ('make', 'message'),
    [
      (
        lambda: quantizers.attach('sign', quantizers.identity()),
        r"staircase must be a function \(x\); got 'sign'",
      ),
      (
        lambda: quantizers.attach(quantizers.sign, quantizers.identity()),
        'staircase must be .* a factory that has yet to be called',
      ),
      (
        lambda: quantizers.attach(quantizers.sign(), quantizers.window),
        r'estimator must be a function \(g, x, x_q, progress\); got .*factory',
      ),
      (
        lambda: quantizers.attach(quantizers.lsq(2), quantizers.identity()),
        'staircase must be .* got a learned Quantizer.* bind',
      ),
      (
        lambda: quantizers.scaled(None, quantizers.mean_abs()),
        r'quantize must be a function \(x\); got None',
      ),
      (
        lambda: quantizers.scaled(jnp.sign, 'mean_abs'),
        r"scaling must be a function \(kernel\); got 'mean_abs'",
      ),
      (
        lambda: quantizers.standardized(quantizers.ttq()),
        'quantize must be .* got a learned Quantizer',
      ),
      (
        lambda: quantizers.at_progress(jnp.sign, 2.0),
        r'progress must be in \[0.0, 1.0\]; got 2.0',
      ),
      (
        lambda: quantizers.proximal(quantizers.stochastic_sign()),
        'staircase must be a function of x alone; got one of key too',
      ),
      (
        lambda: quantizers.attach(quantizers.sign(), quantizers.identity())(
          jnp.ones(2), state=jnp.ones(2)
        ),
        'state must be None for a staircase without memory',
      ),
    ],
  )
  def test_what_cannot_be_called_so_is_refused(self, make, message):
    with pytest.raises(types.BadInput, match=message):
      make()


DRAWING = quantizers.attach(quantizers.stochastic_sign(), quantizers.identity())
REMEMBERING = quantizers.attach(
  quantizers.hysteretic_sign(0.5), quantizers.identity()
)


class TestKeywords:
  """Compositions ask for the keys and states that their quantizers need."""

  x = np.float32([[0.2, -2.0], [-0.1, 0.5], [0.3, 0.2]])

  def test_keys_are_passed_on(self):
    scaled = quantizers.scaled(DRAWING, quantizers.mean_abs())
    for quantize in (scaled, quantizers.standardized(scaled)):
      assert quantizers.is_random(quantize)
      assert not quantizers.is_stateful(quantize)
      filled = quantizers.at_progress(quantize, 1.0, key=jax.random.key(0))
      assert not quantizers.is_random(filled)
      assert filled(self.x).shape == self.x.shape
      with pytest.raises(types.BadInput, match='key must be a random key'):
        quantize(self.x)
    x_q = scaled(self.x, key=jax.random.key(1))
    want = np.tile(np.abs(self.x).mean(axis=0), (3, 1))
    np.testing.assert_allclose(np.abs(x_q), want, rtol=1e-6)

  def test_a_key_is_ignored_by_what_does_not_draw(self):
    plain = quantizers.attach(quantizers.sign(), quantizers.identity())
    x_q = plain(self.x, key=jax.random.key(0))
    np.testing.assert_array_equal(x_q, plain(self.x))

  def test_standardized_weights_are_remembered(self):
    quantize = quantizers.standardized(REMEMBERING)
    assert quantizers.is_stateful(quantize)
    state = quantizers.initial_state(quantize, self.x)
    hat = (self.x - self.x.mean(axis=0)) / self.x.std(axis=0, ddof=1)
    np.testing.assert_array_equal(state, np.where(hat >= 0, 1, -1))
    got = quantize(self.x, state=-state)
    want = np.where(np.abs(hat) >= 0.5, np.sign(hat), -state)
    np.testing.assert_array_equal(got, want)

  def test_scaled_memory_is_refused(self):
    with pytest.raises(
      types.BadInput, match=r'quantize must not remember.*scaling='
    ):
      quantizers.scaled(REMEMBERING, quantizers.mean_abs())
