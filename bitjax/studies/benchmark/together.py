"""Measures how several networks should run on one device: the three ways of `training`.

Vectorised kernels turn a convolution into a grouped one, for which many devices have no
fast program. So the seeds of a training may also run one after another, in a loop of
one program or as launches of the program of one. The same question arises for the
flips of a convolution that are evaluated by brute force. There only one layer's kernel
differs, so its convolution becomes a wider one and those behind it get more images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import nn
from bitjax import scans
from bitjax import sizes
from bitjax.studies.benchmark import networks
from bitjax.studies.benchmark import race

__all__ = ['compared', 'flips', 'measure', 'seeds']

_STEPS = 2  # Updates of each seed in a turn.
_FLIPS = 8  # That are evaluated in a turn.
_CASES = {
  'seeds': 'seeds together',
  'flips': 'flips of a convolution together',
}


def measure(
  num_images: int, stages: tuple[int, ...], number: int, turns: int
) -> dict[str, dict[str, float]]:
  """Returns what `seeds` and `flips` do, for one size.

  Args:
    num_images: images in a batch.
    stages: blocks of each stage of the ResNet that is trained.
    number: number of networks that are trained.
    turns: timed turns of each way.
  """
  return {
    'seeds': seeds(num_images, stages, number, turns),
    'flips': flips(num_images, _FLIPS, turns),
  }


def compared(ways: dict[str, dict[str, float]]) -> dict[str, float]:
  """Returns, by case, the time of the device's way over that of the fastest.

  Args:
    ways: what `measure` returns.
  """
  return {
    _CASES[name]: times['default'] / min(times.values())
    for name, times in ways.items()
  }


def seeds(
  num_images: int, stages: tuple[int, ...], num_seeds: int, turns: int
) -> dict[str, float]:
  """Returns the time of training steps, over that of one seed times their number.

  Args:
    num_images: images in a batch of each seed.
    stages: blocks of each stage of the ResNet, of 16, 32, ... channels.
    num_seeds: number of networks.
    turns: timed turns of each way.

  Returns:
    Way -> ratio; and, as ``'default'``, that of the way that suits the device by
    `bitjax.sizes`.
  """
  model = networks.resnet(stages)
  images = jax.random.normal(
    jax.random.key(0), (num_seeds, num_images, 32, 32, 3), jnp.float32
  )
  start, run = networks.steps(model, _STEPS)
  begun = jax.jit(start)(jax.random.key(1), images[0, :1])
  # All start from one network: only shapes matter here.
  states = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_seeds), begun)
  first, *_ = singles = [
    jax.tree.map(lambda leaf, seed=seed: leaf[seed], (states, images))
    for seed in range(num_seeds)
  ]
  one = jax.jit(run).lower(*first).compile()
  contestants: dict[str, Callable[[], Any]] = {
    'one': lambda: one(*first),
    'vmap': _compiled(jax.vmap(run), states, images),
    'map': _compiled(
      lambda *a: jax.lax.map(lambda x: run(*x), a), states, images
    ),
    'stream': lambda: [one(*single) for single in singles],
  }
  found = _over_one(race.race(contestants, turns), num_seeds)
  return found | {'default': found[sizes.here().seeds]}


def flips(
  num_images: int, num_flips: int, turns: int, *, width: int = 16
) -> dict[str, float]:
  """Returns the time of flips of a convolution, over that of one times their number.

  The network has a convolution with binary weights, two residual blocks behind it, and
  batch statistics that are frozen.

  Args:
    num_images: images in the batch, each 32 x 32 x 3.
    num_flips: number of flips.
    turns: timed turns of each way.
    width: channels.

  Returns:
    Way -> ratio; and, as ``'default'``, that of the way that `scans` chooses.
  """
  model = nn.ResNet(
    stages=(2,),
    widths=(width,),
    kernel_quantizer=networks.sign(),
    input_quantizer=networks.sign(),
  )
  images = jax.random.normal(
    jax.random.key(0), (num_images, 32, 32, 3), jnp.float32
  )
  labels = jnp.arange(num_images) % 10
  variables = jax.jit(model.init)(jax.random.key(1), images)
  view = nn.layer_view(
    model, variables, images, labels, 'Block_0/Conv_0', train=False
  )
  places = jnp.arange(num_flips) * (view.kernel.size // num_flips)

  def gains(view, places, chunk):
    return scans.flip_gains(
      view, coordinates=places, path='brute_force', chunk=chunk
    ).gains

  def program(chunk):
    return _compiled(
      lambda view, places: gains(view, places, chunk), view, places
    )

  one = jax.jit(lambda view, places: gains(view, places, 1))
  one = one.lower(view, places[:1]).compile()
  contestants = {
    'one': lambda: one(view, places[:1]),
    'vmap': program(num_flips),
    'map': program(1),
    'stream': lambda: [one(view, place[None]) for place in places],
    'default': program(None),
  }
  return _over_one(race.race(contestants, turns), num_flips)


def _compiled(fn, *arguments):
  program = jax.jit(fn).lower(*arguments).compile()
  return lambda: program(*arguments)


def _over_one(seconds, number):
  alone = number * seconds.pop('one')
  return {way: spent / alone for way, spent in seconds.items()}
