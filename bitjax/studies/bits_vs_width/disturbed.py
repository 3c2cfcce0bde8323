"""What a trained network is disturbed by: noise on its images, and flips of its weights."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import re
from typing import Any

import jax
import numpy as np

from bitjax import data

__all__ = ['flipped', 'noisy']

_SEED = 0  # All networks see the same noisy images.


def noisy(dataset: data.Dataset, noise: float) -> data.Dataset:
  """Returns images with normal noise, rounded and clipped to the range of pixels.

  Args:
    dataset: the images.
    noise: standard deviation, where black is 0 and white is 1.
  """
  draw = np.random.default_rng(_SEED)
  white = round(1 / dataset.scale)
  images = dataset.images.astype(np.float32)
  images += (
    white * np.float32(noise) * draw.standard_normal(images.shape, np.float32)
  )
  images = np.clip(np.rint(images), 0, white).astype(np.uint8)
  return dataclasses.replace(dataset, images=images)


def flipped(
  variables: Any, seeds: Sequence[int], share: float, quantized: str
) -> Any:
  """Returns variables of which some weights of quantized layers changed their sign.

  Each weight does with the same probability, independently.

  Args:
    variables: of networks, with a leading axis of seeds.
    seeds: seeds of the draws, one for each network.
    share: the probability.
    quantized: a regular expression for the paths of the layers.
  """
  draws = [np.random.default_rng([int(seed), _SEED]) for seed in seeds]

  def flip(path, leaf):
    names = [jax.tree_util.keystr((k,), simple=True) for k in path]
    layer = '/'.join(names[1:-1])
    ours = names[0] == 'params' and names[-1] == 'kernel'
    if not ours or not re.search(quantized, layer):
      return leaf
    kernels = np.asarray(leaf)
    moved = np.stack([draw.random(kernels.shape[1:]) < share for draw in draws])
    return np.where(moved, -kernels, kernels)

  return jax.tree_util.tree_map_with_path(flip, variables)
