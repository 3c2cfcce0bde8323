"""One training step of ResNet-20 is PyTorch's.

`resnet20_step.json` was computed in float64 with a PyTorch implementation, of
weights and images drawn as below: the loss, the norm of the last running mean, and
of each leaf's gradient the norm and the inner product with a random vector. The seed
is one with which no input of a sign is within 6e-5 of zero.
"""

import json
import pathlib
import zlib

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import nn
from bitjax import quantizers

GOLDEN = pathlib.Path(__file__).with_name('resnet20_step.json')
SEED = 9
MODES = {
  'fp': nn.resnet20(),
  'w1a1': nn.resnet20(
    variant='bireal',
    kernel_quantizer=quantizers.attach(
      quantizers.sign(), quantizers.identity()
    ),
    input_quantizer=quantizers.attach(quantizers.sign(), quantizers.window()),
    scaling='mean_abs',
  ),
}


def draw(what, path, shape):
  rng = np.random.default_rng([SEED, zlib.crc32(f'{what}/{path}'.encode())])
  return rng.normal(size=shape)


def leaf(path, shape):
  value = draw('leaf', path, shape)
  if path.endswith('kernel'):
    value = value * np.sqrt(2 / np.prod(shape[:-1]))
  else:
    value = value * 0.1 + path.endswith('scale')
  return value.astype(np.float32)


@pytest.mark.parametrize(
  'mode', [pytest.param('fp', marks=pytest.mark.slow), 'w1a1']
)
def test_step_equals_pytorch(mode):
  golden = json.loads(GOLDEN.read_text())[mode]
  rng = np.random.default_rng(SEED)
  images = rng.normal(size=(4, 16, 16, 3)).astype(np.float32)
  labels = rng.integers(0, 10, 4)
  model = MODES[mode]
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  flat = traverse_util.flatten_dict(shapes['params'], sep='/')
  assert set(flat) == set(golden['leaves'])
  flat = {path: leaf(path, x.shape) for path, x in flat.items()}
  params = traverse_util.unflatten_dict(flat, sep='/')
  # Not zero, so that the running mean tells its momentum.
  stats = jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), shapes['batch_stats']
  )

  @jax.jit
  def step(params, stats, images, labels):
    def loss(params):
      variables = {'params': params, 'batch_stats': stats}
      logits, new = model.apply(
        variables, images, train=True, mutable=['batch_stats']
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return jnp.mean(losses), new['batch_stats']

    return jax.value_and_grad(loss, has_aux=True)(params)

  (loss, new), grads = step(params, stats, images, labels)
  np.testing.assert_allclose(loss, golden['loss'], rtol=1e-5)
  mean = new['Block_8']['BatchNorm_1']['mean']
  np.testing.assert_allclose(
    np.linalg.norm(mean), golden['running_mean'], rtol=1e-4
  )
  for path, grad in traverse_util.flatten_dict(grads, sep='/').items():
    norm, product = golden['leaves'][path]
    grad = np.float64(grad)
    np.testing.assert_allclose(
      np.linalg.norm(grad), norm, rtol=1e-4, err_msg=path
    )
    np.testing.assert_allclose(
      np.sum(grad * draw('probe', path, grad.shape)),
      product,
      atol=1e-4 * norm,
      rtol=0,
      err_msg=path,
    )
