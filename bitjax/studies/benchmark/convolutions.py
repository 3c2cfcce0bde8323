"""Measures exact flip gains of a ResNet's convolutions, against brute force.

The network is a ResNet with binary weights and activations, freshly initialised, on
random images of CIFAR's size. Brute force begins at the moved convolution too: what
precedes it is computed once, in the view.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import nn
from bitjax import scans
from bitjax.studies.benchmark import networks
from bitjax.studies.benchmark import race

__all__ = ['flip_gains']

_MANY, _FEW = 64, 16  # Flips that are timed, on a fast path and by brute force.


def flip_gains(
  num_images: int, stages: tuple[int, ...], turns: int
) -> dict[str, float]:
  """Returns what flips of convolutions cost.

  Args:
    num_images: images in the batch, each 32 x 32 x 3.
    stages: blocks of each stage of the ResNet, of 16, 32, 64, ... channels.
    turns: timed turns of each contestant.

  Returns:
    The forward passes of the network that all flips of its last convolution cost; those
    that all flips of a convolution before a sign cost (the last but one, without Bi-Real's
    shortcuts); and how many times faster than by brute force a flip of the first, the
    middle and the last but one convolution is, the least of the three.
  """
  last = sum(stages) - 1
  whole = _Network('bireal', num_images, stages)
  plain = _Network('plain', num_images, stages)
  middle = sum(stages) // 2
  others = {
    name: whole.view(name)
    for name in (
      'Block_0/Conv_0',
      f'Block_{middle}/Conv_0',
      f'Block_{last}/Conv_0',
    )
  }
  seconds = race.race(
    {
      'forward': whole.forward,
      'forward, plain': plain.forward,
      'last': _gains(whole.view(f'Block_{last}/Conv_1')),
      'before a sign': _gains(plain.view(f'Block_{last}/Conv_0')),
      **{name: _gains(view, 'tail', _MANY) for name, view in others.items()},
      **{
        f'{name}, slowly': _gains(view, 'brute_force', _FEW)
        for name, view in others.items()
      },
    },
    turns,
  )
  times = [
    seconds[f'{name}, slowly'] / _FEW / (seconds[name] / _MANY)
    for name in others
  ]
  return {
    'flip gains, last convolution': seconds['last'] / seconds['forward'],
    'flip gains, convolution before a sign': (
      seconds['before a sign'] / seconds['forward, plain']
    ),
    'flip gains, any convolution': min(times),
  }


class _Network:
  """A freshly initialised network, on random images."""

  def __init__(self, variant: str, num_images: int, stages: tuple[int, ...]):
    self._model = networks.resnet(
      stages,
      variant=variant,
      kernel_quantizer=networks.sign(),
      input_quantizer=networks.sign(),
    )
    self._images = jax.random.normal(
      jax.random.key(0), (num_images, 32, 32, 3), jnp.float32
    )
    self._labels = jnp.arange(num_images) % self._model.num_classes
    init = jax.jit(self._model.init)
    self._variables = init(jax.random.key(1), self._images[:1])
    self._apply = jax.jit(functools.partial(self._model.apply, train=False))

  def forward(self) -> Any:
    """Returns the logits."""
    return self._apply(self._variables, self._images)

  def view(self, layer: str) -> scans.LayerView:
    """Returns the view of a layer."""
    return nn.layer_view(
      self._model,
      self._variables,
      self._images,
      self._labels,
      layer,
      train=False,
    )


def _gains(view, path='auto', number=None):
  """Returns a function that computes all gains, or those of some random weights."""
  places = None
  if number is not None:
    places = jax.random.permutation(jax.random.key(2), view.kernel.size)[
      :number
    ]
  chunk = 1 if path == 'brute_force' else None
  compute = jax.jit(
    lambda view, places: (
      scans.flip_gains(view, coordinates=places, path=path, chunk=chunk).gains
    )
  )
  return lambda: compute(view, places)
