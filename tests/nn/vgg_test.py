"""VGG, against a NumPy implementation of a tiny one."""

from flax import traverse_util
import jax
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types

KEY = jax.random.key(0, impl='rbg')
IMAGES = np.random.default_rng(0).normal(size=(3, 6, 4, 2)).astype(np.float32)
TINY = {'stages': ((3, 4), (5,)), 'num_classes': 2}
SIGN = quantizers.attach(quantizers.sign(), quantizers.window())
BINARY = {
  'kernel_quantizer': SIGN,
  'input_quantizer': SIGN,
  'scaling': 'mean_abs',
}
# Two poolings leave 1 x 1 places of 5 channels.
SHAPES = {
  'Conv_0/kernel': (3, 3, 2, 3),
  'Conv_1/kernel': (3, 3, 3, 4),
  'Conv_2/kernel': (3, 3, 4, 5),
  'BatchNorm_0/scale': (3,),
  'BatchNorm_1/scale': (4,),
  'BatchNorm_2/scale': (5,),
  'BatchNorm_0/bias': (3,),
  'BatchNorm_1/bias': (4,),
  'BatchNorm_2/bias': (5,),
  'Dense_0/kernel': (5, 2),
  'Dense_0/bias': (2,),
}


def signs(x):
  return np.where(x >= 0, 1.0, -1.0)


def convolve(x, kernel):
  height, width = x.shape[1:3]
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return sum(
    padded[:, i : i + height, j : j + width] @ kernel[i, j]
    for i in range(3)
    for j in range(3)
  )


def pool(x):
  n, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
  return x.max(axis=(2, 4))


@pytest.mark.parametrize('binary', [False, True])
def test_equals_numpy(binary):
  model = nn.VGG(**TINY, **(BINARY if binary else {}))
  shapes = jax.eval_shape(model.init, KEY, IMAGES)
  flat = traverse_util.flatten_dict(shapes['params'], sep='/')
  assert {name: x.shape for name, x in flat.items()} == SHAPES
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda x: (
      np.exp(rng.normal(size=x.shape)).astype(np.float32)
      if x.ndim == 1
      else rng.normal(size=x.shape).astype(np.float32)
    ),
    shapes,
  )
  got = jax.jit(model.apply)(variables, IMAGES)
  params, stats = variables['params'], variables['batch_stats']
  x = np.float64(IMAGES)
  for place in range(3):
    kernel = np.float64(params[f'Conv_{place}']['kernel'])
    if binary and place:
      x = convolve(signs(x), signs(kernel)) * np.abs(kernel).mean((0, 1, 2))
    else:
      x = convolve(x, kernel)
    x = pool(x) if place else x
    norm, moments = (tree[f'BatchNorm_{place}'] for tree in (params, stats))
    x = (x - moments['mean']) / np.sqrt(moments['var'] + 1e-5)
    x = x * norm['scale'] + norm['bias']
    x = np.clip(x, -1, 1) if binary else np.maximum(x, 0)
  assert x.shape == (3, 1, 1, 5)
  want = x[:, 0, 0] @ params['Dense_0']['kernel'] + params['Dense_0']['bias']
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_vgg_small():
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
  got = nn.summary(nn.vgg_small(**BINARY), images)
  kernels = 9 * 128 * 128 * (1 + 2 + 4 + 8 + 16)
  others = 27 * 128 + 4 * (128 + 256 + 512) + 4 * 4 * 512 * 10 + 10
  assert got.total.parameters == {1: kernels, 32: others}
  assert kernels + others == 4_660_106
  shapes = [row.output_shape for row in got.layers if row.kind == 'BatchNorm']
  assert shapes == [
    (32, 32, 128),
    (16, 16, 128),
    (16, 16, 256),
    (8, 8, 256),
    (8, 8, 512),
    (4, 4, 512),
  ]


@pytest.mark.parametrize(
  ('bad', 'images', 'message'),
  [
    ({'stages': ()}, IMAGES, 'stages must be tuples of positive numbers'),
    ({'stages': ((4,), ())}, IMAGES, 'stages must be tuples'),
    ({'stages': (4, 4)}, IMAGES, 'stages must be tuples'),
    ({'stages': 4}, IMAGES, 'stages must be tuples'),
    ({'stages': ((0,),)}, IMAGES, 'stages must be an integer >= 1; got 0'),
    ({'activation': 'gelu'}, IMAGES, 'activation must be one of'),
    ({}, IMAGES[:, :3], 'sides of at least 4'),
    ({}, IMAGES[0], 'images must be floating'),
    ({}, np.uint8(IMAGES), 'images must be floating'),
  ],
)
def test_bad_input(bad, images, message):
  with pytest.raises(types.BadInput, match=message):
    model = nn.VGG(**(TINY | bad))
    jax.eval_shape(model.init, KEY, images)
