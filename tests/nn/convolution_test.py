"""Convolutions with gradients of their own on the CPU, against XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import sums
from bitjax import types
from bitjax.nn import _conv
from bitjax.nn import _convolution

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

RNG = np.random.default_rng(0)
LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


def xlas(x, kernel, strides, padding):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    dimension_numbers=LAYOUT,
    precision='highest',
    preferred_element_type=x.dtype,
  )


def brute(x, kernel, z_bar, strides, padding):
  """Value and gradients in float64, one place at a time."""
  x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
  size = kernel.shape[:2]
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(x.shape[1:3], size, strides, padding)
  around = [(0, 0), *(tuple(np.maximum(p, 0)) for p in padding), (0, 0)]
  wide, cut = np.pad(x, around), [tuple(np.minimum(p, 0)) for p in padding]
  (top, bottom), (left, right) = cut
  inner = np.s_[:, -top : wide.shape[1] + bottom, -left : wide.shape[2] + right]
  padded, z = wide[inner], np.zeros(z_bar.shape)
  wide_bar, kernel_bar = np.zeros_like(wide), np.zeros_like(kernel)
  padded_bar = wide_bar[inner]  # A view.
  for p, q in np.ndindex(z.shape[1:3]):
    i, j = p * strides[0], q * strides[1]
    window = np.s_[:, i : i + size[0], j : j + size[1]]
    z[:, p, q] = np.tensordot(padded[window], kernel, 3)
    kernel_bar += np.einsum('nhwi,no->hwio', padded[window], z_bar[:, p, q])
    padded_bar[window] += np.tensordot(z_bar[:, p, q], kernel, (1, 3))
  (low, _), (first, _) = around[1:3]
  rows = np.s_[:, low : low + x.shape[1], first : first + x.shape[2]]
  return z, wide_bar[rows], kernel_bar


# Images, kernel, strides, padding. Channels of 16 and fewer are folded.
CASES = {
  'folded': ((5, 6, 8, 3), (3, 3, 4), (1, 1), 'SAME'),
  'not folded, odd sides': ((3, 7, 5, 3), (3, 3, 4), (1, 1), 'SAME'),
  'many channels, one image': ((1, 4, 6, 18), (3, 3, 5), (1, 1), 'SAME'),
  'two phases': ((5, 8, 6, 18), (3, 3, 4), (2, 2), ((1, 1), (1, 1))),
  'phases of odd sides, to few channels': (
    (7, 7, 9, 3),
    (3, 3, 17),
    (2, 2),
    'SAME',
  ),
  'a projection': ((2, 6, 5, 3), (1, 1, 4), (2, 2), 'VALID'),
  'a matrix': ((3, 4, 4, 3), (1, 1, 4), (1, 1), 'VALID'),
  'strides beyond the kernel': ((3, 9, 8, 2), (2, 1, 3), (3, 2), 'SAME'),
  'unlike axes': ((4, 9, 10, 2), (5, 3, 3), (3, 1), ((2, 0), (0, 3))),
  'even width': ((3, 6, 9, 2), (3, 4, 3), (1, 1), ((0, 1), (1, 1))),
  'cut': ((3, 6, 9, 2), (3, 3, 3), (1, 1), ((-1, 3), (4, -2))),
}


@pytest.fixture(scope='module')
def found():
  """All cases in one program, of two images a group (the last one padded)."""
  data = {}
  for name, (images, size, strides, padding) in CASES.items():
    x, kernel = normal(*images), normal(*size[:2], images[-1], size[2])
    z = jax.eval_shape(
      functools.partial(xlas, strides=strides, padding=padding), x, kernel
    )
    data[name] = (x, kernel, normal(*z.shape))

  def gradients(convolve, x, kernel, z_bar):
    z, pull = jax.vjp(convolve, x, kernel)
    return z, *pull(z_bar)

  def run(data):
    both = {}
    for name, (_, _, strides, padding) in CASES.items():
      product = _conv.Product(
        data[name][1].shape[:2],
        strides,
        padding,
        (1, 1),
        (1, 1),
        1,
        sums.Arithmetic(),
      )
      own = functools.partial(xlas, strides=strides, padding=padding)
      both[name] = [gradients(fn, *data[name]) for fn in (product, own)]
    return both

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(_convolution, '_group_size', lambda *_: 2)
    return data, jax.jit(run)(data)


class TestGradients:
  """Equal to float64 sums, and to XLA's own gradients."""

  @pytest.mark.parametrize('name', CASES)
  def test_equal(self, found, name):
    data, both = found
    want = brute(*data[name], *CASES[name][2:])
    for ours, theirs, oracle in zip(*both[name], want, strict=True):
      np.testing.assert_allclose(ours, oracle, rtol=1e-5, atol=2e-5)
      np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)

  def test_transformed(self):
    """Over kernels and inputs, rematerialised, in bfloat16; and twice."""
    x, kernel = normal(2, 3, 6, 6, 3), normal(2, 3, 3, 3, 4)
    case = {'strides': (2, 2), 'padding': 'SAME'}

    def loss(convolve, x, kernel):
      return jnp.sum(convolve(x, kernel, **case) ** 2)

    def run(convolve, x, kernel):
      wanted = functools.partial(loss, convolve)
      slopes = jax.grad(wanted, (0, 1))
      again = jax.grad(jax.checkpoint(wanted), 1)
      low = [a[0].astype(jnp.bfloat16) for a in (x, kernel)]
      return {
        'both': jax.vmap(slopes)(x, kernel),
        'kernels': jax.vmap(slopes, (None, 0))(x[0], kernel),
        'twice': jax.grad(lambda k: jnp.sum(again(x[0], k) ** 2))(kernel[0]),
      }, slopes(*low)

    ours, low = jax.jit(functools.partial(run, _convolution.convolve))(
      x, kernel
    )
    theirs, low_theirs = jax.jit(functools.partial(run, xlas))(x, kernel)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3),
      ours,
      theirs,
    )
    for got, want in zip(low, low_theirs, strict=True):
      assert got.dtype == jnp.bfloat16
      assert jnp.max(jnp.abs(got - want)) <= 2**-6 * jnp.max(jnp.abs(want))


@pytest.fixture(scope='module')
def traced():
  layer = nn.QuantConv(4, (3, 3))
  x = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32)
  variables = jax.eval_shape(layer.init, jax.random.key(0), x)

  def loss(variables, x):
    return jnp.sum(layer.apply(variables, x) ** 2)

  return jax.jit(jax.grad(loss, (0, 1))).trace(variables, x)


class TestPlatforms:
  """Accelerators keep their own; what is compiled once stays compiled."""

  @pytest.mark.parametrize(
    ('platform', 'grouped'), [('cpu', True), ('cuda', False), ('tpu', False)]
  )
  def test_only_the_cpu_has_groups(self, traced, platform, grouped):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ('stablehlo.while' in text) == grouped
    # The value and the gradients; on the CPU one of these is a product.
    assert text.count('stablehlo.convolution') == (2 if grouped else 3)

  def test_compiles_once(self):
    count = 0

    @jax.jit
    def slope(x, kernel):
      nonlocal count
      count += 1
      return jax.grad(
        lambda k: jnp.sum(_convolution.convolve(x, k, (1, 1), 'SAME') ** 2)
      )(kernel)

    for _ in range(2):
      slope(normal(2, 4, 4, 1), normal(3, 3, 1, 1))
    assert count == 1 and slope._cache_size() == 1

  def test_groups_fit_the_cache(self):
    sizes = [
      _convolution._group_size(128, (side, side), (3, 3, c))
      for side, c in ((32, 16), (16, 32), (8, 64), (224, 64))
    ]
    assert sizes == [4, 8, 16, 1]
    assert _convolution._group_size(5, (8, 8), (3, 3, 64)) == 5

  def test_groups_leave_no_image_over_if_they_need_not(self):
    """Seven images of 24 x 24 x 16 fit the cache, and five of 28 x 28 x 16."""
    size = functools.partial(_convolution._group_size, window=(3, 3, 16))
    sides = (24, 24), (28, 28)
    assert [size(16, side) for side in sides] == [8, 4]
    assert [size(64, side) for side in sides] == [8, 4]
    # An even division that leaves none stays; a prime number has no other.
    assert [size(21, side) for side in sides] == [7, 7]
    assert [size(23, side) for side in sides] == [6, 5]


def test_plain_convolutions():
  """They are XLA's on the CPU too, and have derivatives by forward mode."""
  layer = nn.QuantConv(2, (3, 3), use_bias=False)
  x, kernel = normal(1, 4, 4, 1), normal(3, 3, 1, 2)
  variables = {'params': {'kernel': kernel}}
  with pytest.raises(TypeError, match='forward-mode'):
    jax.jvp(lambda x: layer.apply(variables, x), (x,), (x,))
  with nn.plain_convolutions():
    z, slope = jax.jvp(lambda x: layer.apply(variables, x), (x,), (x,))
  np.testing.assert_allclose(slope, z, rtol=1e-6)
  np.testing.assert_allclose(layer.apply(variables, x), z, rtol=1e-6)


def test_what_it_does_not_have_is_xlas():
  """Integers, and arrays without elements."""
  x, kernel = normal(2, 4, 4, 3), normal(3, 3, 3, 2)
  assert _convolution.applies(x, kernel)
  assert not _convolution.applies(x.astype(np.int32), kernel.astype(np.int32))
  assert not _convolution.applies(x[:0], kernel)
  assert not _convolution.applies(x[0], kernel[0])
  product = _conv.Product(
    (3, 3), (1, 1), 'SAME', (1, 1), (1, 1), 1, sums.Arithmetic()
  )
  assert product(x[:0], kernel).shape == (0, 4, 4, 2)
  with pytest.raises(types.BadInput, match='x must have 3 axes or more'):
    product(x[0, 0], kernel)
