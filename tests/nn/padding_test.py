"""Padding of quantized convolutions: modes and values of other libraries."""

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types
from bitjax.nn import _conv

KEY = jax.random.key(0, impl='rbg')
IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
SIGN = quantizers.attach(quantizers.sign(), quantizers.window(1.0))
PADDED = [
  ('same_lower', 2, 0.0),
  pytest.param('SAME', 2, 1.0, marks=pytest.mark.slow),
  pytest.param('Same_Lower', (2, 1), 1.0, marks=pytest.mark.slow),
  pytest.param(1, 1, 1.0, marks=pytest.mark.slow),
  (((2, 0), (0, 1)), 1, -1.0),
  pytest.param('valid', 1, 1.0, marks=pytest.mark.slow),
]


class TestPadding:
  """Modes and values of other libraries, in the layer, its view and deployed."""

  @pytest.mark.parametrize(('padding', 'strides', 'value'), PADDED)
  def test_pads_as_numpy_does(self, padding, strides, value):
    x = np.sign(IMAGES) + 0.0
    kernel = np.sign(np.random.default_rng(2).normal(size=(4, 3, 3, 2)))
    layer = nn.QuantConv(
      2,
      (4, 3),
      strides=strides,
      padding=padding,
      pad_values=value,
      kernel_quantizer=SIGN,
      input_quantizer=SIGN,
      use_bias=False,
    )
    variables = {'params': {'kernel': np.float32(kernel)}}
    want = convolved(x, kernel, strides, padding, value)
    np.testing.assert_array_equal(layer.apply(variables, x), want)
    deployed = nn.deploy(layer, variables, x)
    np.testing.assert_array_equal(layer.apply(deployed, x), want)
    stage = layer.apply(variables, 3, method='stage')
    np.testing.assert_array_equal(stage(x), want)
    model = linen.Sequential([layer, lambda y: y.mean((1, 2))])
    inside = {'params': {'layers_0': variables['params']}}
    view = nn.layer_view(model, inside, x, np.zeros(2, int), 'layers_0')
    np.testing.assert_array_equal(view.pre_activations(view.kernel), want)
    grad = jax.grad(lambda x: jnp.sum(layer.apply(variables, x) * want))(x)
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0

  def test_binary_inputs_stay_binary(self):
    layer = nn.QuantConv(
      1, (3, 3), pad_values=1, kernel_quantizer=SIGN, input_quantizer=SIGN
    )
    params = {'kernel': jnp.ones((3, 3, 3, 1)), 'bias': jnp.zeros(1)}
    z = np.asarray(layer.apply({'params': params}, IMAGES))
    assert (z % 2 == 1).all()  # 27 terms of +-1, at the borders too.

  @pytest.mark.parametrize('name', [*_conv.PADDINGS, 'circular', 'Reflect'])
  def test_names_are_those_of_flax_in_any_case(self, name):
    size = 3 if name == 'CAUSAL' else (3, 2)
    x = IMAGES[0] if name == 'CAUSAL' else IMAGES
    ours = nn.QuantConv(2, size, padding=name, strides=2)
    theirs = linen.Conv(
      2, size if isinstance(size, tuple) else (size,), padding=name.upper(),
      strides=2,
    )  # fmt: skip
    shapes = jax.eval_shape(ours.init, KEY, x)
    draw = np.random.default_rng(3)
    variables = jax.tree.map(
      lambda a: draw.normal(size=a.shape).astype(np.float32), shapes
    )
    np.testing.assert_allclose(
      ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5
    )

  @pytest.mark.parametrize(
    ('options', 'message'),
    [
      ({'padding': 'replicate'}, "padding must be one of SAME.*'replicate'"),
      ({'padding': 1.5}, 'padding must be one of SAME.* got 1.5'),
      ({'padding': None}, 'padding must be one of SAME.* got None'),
      ({'padding': ((1, 0, 0), 1)}, 'padding must be one of SAME'),
      ({'padding': 'causal'}, "padding must not be 'CAUSAL' in 2 dimensions"),
      ({'input_dilation': 2}, "must be an amount .* got 'SAME' with input_dil"),
      (
        {'padding': 'circular', 'pad_values': 1.0},
        "pad_values must be 0 .* 'CIRCULAR'",
      ),
      (
        {'padding': 1, 'input_dilation': 2, 'pad_values': 1.0},
        'pad_values must be 0 where inputs are dilated',
      ),
      ({'pad_values': np.nan}, 'pad_values must be finite'),
    ],
  )
  def test_bad_input(self, options, message):
    with pytest.raises(types.BadInput, match=message):
      layer = nn.QuantConv(2, (3, 3), **options)
      jax.eval_shape(layer.init, KEY, IMAGES)


def convolved(x, kernel, strides, padding, value):
  """A convolution by loops over what `numpy.pad` returns."""
  strides = (strides, strides) if isinstance(strides, int) else strides
  sizes = kernel.shape[:2]
  if isinstance(padding, str):
    around = []
    for n, k, s in zip(x.shape[1:3], sizes, strides, strict=True):
      total = max((-(-n // s) - 1) * s + k - n, 0)
      half = total // 2
      around.append(
        {'same': (half, total - half), 'same_lower': (total - half, half)}.get(
          padding.lower(), (0, 0)
        )
      )
  else:
    pairs = (padding, padding) if isinstance(padding, int) else padding
    around = [(p, p) if isinstance(p, int) else p for p in pairs]
  x = np.pad(x, [(0, 0), *around, (0, 0)], constant_values=value)
  rows, columns = (
    range(0, n - k + 1, s)
    for n, k, s in zip(x.shape[1:3], sizes, strides, strict=True)
  )
  return np.stack(
    [
      np.stack(
        [
          np.einsum(
            'nijc,ijcf->nf',
            x[:, i : i + sizes[0], j : j + sizes[1]],
            kernel,
          )
          for j in columns
        ],
        1,
      )
      for i in rows
    ],
    1,
  )


PATCHED = [
  # Size of the kernel, options of the layer, and how numpy pads each dimension.
  ((2, 3), {'padding': 'VALID', 'strides': (2, 1)}, [(0, 0), (0, 0)]),
  ((3, 2), {'padding': 'SAME', 'pad_values': -1.0}, [(1, 1), (0, 1)]),
  ((3, 2), {'padding': 'SAME_LOWER', 'strides': 2}, [(1, 0), (0, 0)]),
  ((3, 1), {'padding': 'CIRCULAR'}, [(1, 1), (0, 0)]),
  ((2, 2), {'padding': 'REFLECT', 'kernel_dilation': 2}, [(1, 1), (1, 1)]),
  ((3,), {'padding': 'CAUSAL', 'kernel_dilation': 2}, [(4, 0)]),
  ((2, 2), {'padding': 2, 'feature_group_count': 3}, [(2, 2), (2, 2)]),
  ((2, 2), {'padding': ((1, 0), 1), 'input_dilation': 2}, [(1, 0), (1, 1)]),
]


@pytest.mark.parametrize(('size', 'options', 'around'), PATCHED)
def test_patches_are_what_a_kernel_meets(size, options, around):
  """In loops over positions and places; the convolution is a product with them."""
  x = IMAGES[0] if len(size) == 1 else IMAGES
  layer = nn.QuantConv(6, size, use_bias=False, **options)
  groups = options.get('feature_group_count', 1)
  kernel = np.random.default_rng(4).normal(size=(*size, 3 // groups, 6))
  variables = {'params': {'kernel': np.float32(kernel)}}
  _, _, product = layer.apply(variables, x, method='parts')
  found = np.asarray(product.patches(x))
  padded = spread(x, options.get('input_dilation', 1))
  how = {'CIRCULAR': {'mode': 'wrap'}, 'REFLECT': {'mode': 'reflect'}}.get(
    options['padding'], {'constant_values': options.get('pad_values', 0.0)}
  )
  padded = np.pad(padded, [(0, 0), *around, (0, 0)], **how)
  strides = np.broadcast_to(options.get('strides', 1), len(size))
  dilation = options.get('kernel_dilation', 1)
  for at in np.ndindex(*found.shape[1:-2]):
    for place, offset in enumerate(np.ndindex(*size)):
      where = tuple(np.multiply(at, strides) + np.multiply(offset, dilation))
      np.testing.assert_array_equal(
        found[(slice(None), *at, place)], padded[(slice(None), *where)]
      )
  last = [
    (n - (k - 1) * dilation - 1) // s + 1
    for n, k, s in zip(padded.shape[1:-1], size, strides, strict=True)
  ]
  assert found.shape == (len(x), *last, np.prod(size), 3)
  parts = found.reshape(*found.shape[:-1], groups, -1)
  weights = kernel.reshape(np.prod(size), -1, groups, 6 // groups)
  want = np.einsum('...pgc,pcgf->...gf', np.float64(parts), weights)
  np.testing.assert_allclose(
    layer.apply(variables, x), want.reshape(*want.shape[:-2], 6), atol=1e-5
  )


def spread(x, dilation):
  """Images with zeros between their positions."""
  if dilation == 1:
    return x
  sides = (dilation * (n - 1) + 1 for n in x.shape[1:-1])
  wide = np.zeros((x.shape[0], *sides, x.shape[-1]), x.dtype)
  wide[:, ::dilation, ::dilation] = x
  return wide


def test_patches_keep_integers():
  """Nothing is rounded, whatever the arithmetic of the product is."""
  layer = nn.QuantConv(2, (2, 2), dtype=jnp.bfloat16, padding='VALID')
  x = np.arange(2 * 36 * 3, dtype=np.float32).reshape(2, 6, 6, 3) + 1000
  shapes = jax.eval_shape(layer.init, KEY, x)
  variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, 'f4'), shapes)
  _, _, product = layer.apply(variables, x, method='parts')
  found = product.patches(x)
  np.testing.assert_array_equal(found[:, 2, 3, 2], x[:, 3, 3])
