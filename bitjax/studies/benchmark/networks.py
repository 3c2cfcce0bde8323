"""Measures a training step of a convolutional network, its update included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitjax import nn
from bitjax import quantizers
from bitjax import types
from bitjax.studies.benchmark import race

__all__ = ['resnet_step']

_CHUNK = 5  # Steps in one program; training, too, runs several in each.


def resnet_step(
  num_images: int, stages: tuple[int, ...], gemm: int, turns: int
) -> dict[str, float]:
  """Times training steps of a ResNet for CIFAR, in float32 with momentum SGD.

  Args:
    num_images: images in a batch, each 32 x 32 x 3.
    stages: blocks of each stage, of 16, 32, 64, ... channels.
    gemm: size of the square matrix product that stands for the peak.
    turns: timed turns of each contestant.

  Returns:
    Three ratios: the FLOP/s of a full-precision step, counted as three forward
    passes, over those of the matrix product; its time over that with XLA's own
    convolutions (in programs of a single step, as those are much slower in loops);
    and the time of a step with binary weights and activations, with Bi-Real's
    shortcuts, over that of full precision.
  """
  widths = tuple(16 * 2**stage for stage in range(len(stages)))
  images = jax.random.normal(
    jax.random.key(0), (num_images, 32, 32, 3), jnp.float32
  )

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
  seconds = race.race(
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


def _training(
  model: nn.ResNet, images: jax.Array, num_steps: int
) -> Callable[[], Any]:
  """Compiles training steps and returns a function that runs them from one start."""
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
    with types.as_optax():
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
