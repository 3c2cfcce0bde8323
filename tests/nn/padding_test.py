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
    view = nn.layer_view(layer, variables, x, np.zeros(2, int), '')
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
