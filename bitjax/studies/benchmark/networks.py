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
from bitjax.studies.benchmark import peaks
from bitjax.studies.benchmark import race

__all__ = ['resnet', 'resnet_step', 'sign', 'steps']

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
    convolutions, on a CPU (in programs of a single step, as those are much slower in
    loops);
    and the time of a step with binary weights and activations, with Bi-Real's
    shortcuts, over that of full precision.
  """
  images = jax.random.normal(
    jax.random.key(0), (num_images, 32, 32, 3), jnp.float32
  )

  full = resnet(stages)
  binary = resnet(
    stages,
    variant='bireal',
    kernel_quantizer=sign(quantizers.identity()),
    input_quantizer=sign(quantizers.window()),
    scaling='mean_abs',
  )
  contestants = {
    'peak': peaks.product(gemm),
    'full': _training(full, images, _CHUNK),
    'binary': _training(binary, images, _CHUNK),
  }
  if jax.default_backend() == 'cpu':  # Elsewhere convolutions are XLA's own.
    contestants['one'] = _training(full, images, 1)
    with nn.plain_convolutions():
      contestants['plain'] = _training(full, images, 1)
  seconds = race.race(contestants, turns)
  macs = nn.summary(full, images).total.macs
  flops = 3 * 2 * num_images * sum(macs.values()) * _CHUNK
  peak = 2 * gemm**3 / seconds['peak']
  found = {
    'ResNet step': flops / seconds['full'] / peak,
    'ResNet step, W1A1 over full precision': seconds['binary']
    / seconds['full'],
  }
  if 'plain' in seconds:
    found["ResNet step, over XLA's own"] = seconds['one'] / seconds['plain']
  return found


def resnet(stages: tuple[int, ...], **options: Any) -> nn.ResNet:
  """Builds a ResNet with stages of 16, 32, 64, ... channels."""
  widths = tuple(16 * 2**stage for stage in range(len(stages)))
  return nn.ResNet(stages=stages, widths=widths, **options)


def sign(
  estimator: quantizers.Estimator | None = None,
) -> quantizers.Quantize:
  """Builds a sign; its gradient passes through the identity unless told otherwise."""
  return quantizers.attach(
    quantizers.sign(), estimator or quantizers.identity()
  )


def steps(
  model: nn.ResNet, num_steps: int
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns (key, images) -> state, and (state, images) -> state after some steps."""
  tx = optax.sgd(0.1, momentum=0.9)

  def start(key, images):
    variables = model.init(key, images)
    return variables, tx.init(variables['params'])

  def step(state, images):
    labels = jnp.arange(images.shape[0]) % 10
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

  def run(state, images):
    if num_steps == 1:
      return step(state, images)
    return jax.lax.fori_loop(
      0, num_steps, lambda _, state: step(state, images), state
    )

  return start, run


def _training(
  model: nn.ResNet, images: jax.Array, num_steps: int
) -> Callable[[], Any]:
  """Compiles training steps and returns a function that runs them from one start."""
  start, run = steps(model, num_steps)
  arguments = jax.jit(start)(jax.random.key(1), images), images
  compiled = jax.jit(run).lower(*arguments).compile()
  return lambda: compiled(*arguments)
