"""What a training step of a convolutional network costs: its update included.

Images a second of `training.fit`, with each batch on one device or on two:

  python -m bitjax.studies.network_benchmark batch:1 128 3,3,3
  python -m bitjax.studies.network_benchmark batch:2 128 3,3,3
"""

from __future__ import annotations

from collections.abc import Callable
import os
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import data
from bitjax import nn
from bitjax import quantizers
from bitjax import training
from bitjax.studies import benchmarks
from bitjax.studies import meshes

__all__ = ['over_cores', 'resnet_step', 'training_rate']

_CHUNK = 5  # Steps of one program, as trainings have them.
_CHUNKS = 12  # Of a training whose rate is measured; the first compiles.


def resnet_step(
  num_images: int, stages: tuple[int, ...], gemm: int, turns: int
) -> dict[str, float]:
  """Times steps of a ResNet for CIFAR, float32, momentum SGD.

  Args:
    num_images: of a batch, 32 x 32 x 3.
    stages: blocks of each stage, of 16, 32, 64, ... channels.
    gemm: size of the square matrix product that stands for the peak.
    turns: of each contestant.

  Returns:
    Its FLOP/s (three times those of a forward pass) over those of the matrix
    product; its time over that of XLA's own convolutions (programs of a single
    step: those are much slower in loops); and the time of one with binary weights
    and activations, with Bi-Real's shortcuts, over that of full precision.
  """
  widths = tuple(16 * 2**stage for stage in range(len(stages)))
  images = jax.random.normal(jax.random.key(0), (num_images, 32, 32, 3))

  def resnet(**kwargs):
    return nn.ResNet(stages=stages, widths=widths, **kwargs)

  def sign(estimator):
    return quantizers.attach(quantizers.sign(), estimator)

  full = resnet()
  binary = resnet(
    variant='bireal',
    kernel_quantizer=sign(quantizers.identity()),
    input_quantizer=sign(quantizers.window()),
    scaling='mean_abs',
  )
  square = jnp.ones((gemm, gemm))
  multiply = jax.jit(jnp.matmul)
  one = _training(full, images, 1)
  with nn.plain_convolutions():
    plain = _training(full, images, 1)
  seconds = benchmarks.race(
    {
      'peak': lambda: multiply(square, square),
      'full': _training(full, images, _CHUNK),
      'binary': _training(binary, images, _CHUNK),
      'one': one,
      'plain': plain,
    },
    turns,
  )
  macs = nn.summary(full, images).total.macs
  flops = 3 * 2 * num_images * sum(macs.values()) * _CHUNK
  peak = 2 * gemm**3 / seconds['peak']
  return {
    'ResNet step': flops / seconds['full'] / peak,
    "ResNet step, over XLA's own": seconds['one'] / seconds['plain'],
    'ResNet step, W1A1 over full precision': seconds['binary']
    / seconds['full'],
  }


def over_cores(num_images: int, stages: tuple[int, ...]) -> dict[str, float]:
  """How much faster a training is with its batch over all cores of a CPU.

  Args:
    num_images: of a batch, divisible by the number of cores.
    stages: blocks of each stage.

  Returns:
    Its rate over that of one device, which uses all cores as well as XLA can. Each
    is measured in a process of its own, as that has the devices it started with.
  """

  def rate(devices):
    arguments = f'batch:{devices}', str(num_images), ','.join(map(str, stages))
    command = [sys.executable, '-m', __name__, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)

  return {'ResNet training, over the cores': rate(os.cpu_count()) / rate(1)}


def training_rate(
  mesh: jax.sharding.Mesh | None, num_images: int, stages: tuple[int, ...]
) -> float:
  """Images a second of a training in full precision, crops and flips included.

  Args:
    mesh: devices; None for one.
    num_images: of a batch, random ones, 32 x 32 x 3.
    stages: blocks of each stage, of 16, 32, 64, ... channels.

  Returns:
    The median over chunks of updates, compilation apart.
  """
  draw = np.random.default_rng(0)
  size = num_images * _CHUNK * _CHUNKS
  images = draw.integers(0, 256, (size, 32, 32, 3)).astype(np.uint8)
  labels = draw.integers(0, 10, size).astype(np.int32)
  part = data.Dataset('random', 'train', images, labels, 10, 1 / 255)
  widths = tuple(16 * 2**stage for stage in range(len(stages)))
  recipe = training.Recipe(epochs=1.0, batch_size=num_images, learning_rate=0.1)
  clock = _Clock()
  training.fit(
    recipe.phases(nn.ResNet(stages=stages, widths=widths), part),
    [data.device_feed(part, num_images, 0)],
    (0,),
    chunk=_CHUNK,
    mesh=mesh,
    report=clock,
  )
  seconds = np.diff(clock.times)[1:]
  return num_images * _CHUNK / float(np.median(seconds))


class _Clock:
  """A reporter that notes when chunks end."""

  def __init__(self):
    self.times = []

  def begin(self, total, done):
    """Trainings begin with compiling."""

  def advance(self, images, label):
    self.times.append(time.perf_counter())


def _training(
  model: nn.ResNet, images: jax.Array, num_steps: int
) -> Callable[[], Any]:
  """Some steps from the same start, compiled."""
  labels = jnp.arange(images.shape[0]) % 10
  tx = optax.sgd(0.1, momentum=0.9)

  @jax.jit
  def start(images):
    variables = model.init(jax.random.key(1), images)
    return variables, tx.init(variables['params'])

  def step(state, images, labels):
    variables, opt_state = state
    rest = {'batch_stats': variables['batch_stats']}

    def loss(params):
      logits, moved = model.apply(
        {'params': params, **rest}, images, train=True, mutable=list(rest)
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return jnp.mean(losses), moved

    gradient, moved = jax.grad(loss, has_aux=True)(variables['params'])
    updates, opt_state = tx.update(gradient, opt_state)
    params = optax.apply_updates(variables['params'], updates)
    return {'params': params, **moved}, opt_state

  @jax.jit
  def run(state, images, labels):
    if num_steps == 1:
      return step(state, images, labels)
    return jax.lax.fori_loop(
      0, num_steps, lambda _, state: step(state, images, labels), state
    )

  arguments = (start(images), images, labels)
  compiled = run.lower(*arguments).compile()
  return lambda: compiled(*arguments)


if __name__ == '__main__':
  spec, size, depths = sys.argv[1:]
  meshes.reserve(spec)
  blocks = tuple(map(int, depths.split(',')))
  print(f'{training_rate(meshes.make(spec), int(size), blocks):.1f}')
