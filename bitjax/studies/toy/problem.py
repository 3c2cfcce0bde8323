r"""The toy problem: one layer of an MLP, seen on two disjoint batches.

One seed is one *trial*: a fresh initialisation, a fresh search batch A and a
disjoint held-out batch B. Only one layer moves, or all of them as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import data
from bitjax import lanes
from bitjax import nn
from bitjax import scans
from bitjax import types

__all__ = [
  'Problem',
  'Trial',
  'cross_entropy',
  'draw_trials',
  'pose_problem',
  'seed_keys',
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
  """One layer of one network, seen on two disjoint batches.

  Attributes:
    search: the layer's view on batch A.
    holdout: the same layer on batch B.
    noise_key: source of this seed's perturbations.
  """

  search: scans.LayerView
  holdout: scans.LayerView
  noise_key: types.Array

  @property
  def kernel(self) -> types.Array:
    """The original latent kernel."""
    return self.search.kernel

  def losses(self, kernel: types.Array) -> dict[str, types.Array]:
    """The losses on A and on B."""
    return {
      'search': self.search.loss(kernel),
      'holdout': self.holdout.loss(kernel),
    }


class Trial(NamedTuple):
  """What is random about a seed, drawn once for all arms.

  Attributes:
    variables: initial variables of the network. They do not depend on what is
      binary, so all networks of a seed start from the same latent weights.
    batches: batch size -> batches A and B.
    noise: raw key of the seed's perturbations, uint32.
  """

  variables: types.PyTree
  batches: Mapping[int, tuple[data.Batch, data.Batch]]
  noise: types.Array


def cross_entropy(logits: types.Array, labels: types.Array) -> types.Array:
  """Mean loss in nats, of logits [examples, classes]."""
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  )


def seed_keys(seed: types.Array | int) -> types.Array:
  """A seed's keys: of the initialisation, the batches, and the noise, [3]."""
  return jax.random.split(jax.random.key(seed), 3)


def draw_trials(
  model: nn.MLP,
  seeds: types.Array,
  images: types.Array,
  labels: types.Array,
  batch_sizes: Sequence[int],
  *,
  augment: data.Augment = 'none',
) -> Trial:
  """Draws every seed's initialisation, batches and source of noise.

  Args:
    model: a network of the family; only its parameters' shapes matter.
    seeds: integers, [seeds].
    images: the data set, uint8 [N, H, W, C].
    labels: its classes, [N].
    batch_sizes: examples in A, and in B.
    augment: see `data.search_and_holdout`.

  Returns:
    A `Trial` whose leaves have a leading axis of seeds.
  """

  def start(seed, images):
    key, _, noise_key = seed_keys(seed)
    return model.init(key, images[:1]), jax.random.key_data(noise_key)

  def batches(size, seed, images, labels):
    _, key, _ = seed_keys(seed)
    return data.search_and_holdout(key, images, labels, size, augment=augment)

  def each(fn: Callable[..., Any], **shared: types.Array) -> Any:
    return jax.jit(
      lambda seeds, shared: lanes.each(fn, {'seed': seeds}, shared=shared)
    )(seeds, shared)

  variables, noise_keys = each(start, images=images)
  drawn = {
    size: each(functools.partial(batches, size), images=images, labels=labels)
    for size in batch_sizes
  }
  return Trial(variables, drawn, noise_keys)


def pose_problem(
  model: nn.MLP,
  trial: Trial,
  batch_size: int,
  *,
  layer: str | None = 'Dense_0',
) -> Problem:
  """Looks at one layer of a network, or all of them, in one seed's trial.

  Args:
    model: the network.
    trial: of one seed.
    batch_size: which of its batches.
    layer: the layer that moves; None for all at once.
  """

  def look(batch):
    arguments = model, trial.variables, batch.inputs, batch.labels
    if layer is None:
      return nn.network_view(*arguments)
    return nn.layer_view(*arguments, layer)

  search, holdout = map(look, trial.batches[batch_size])
  return Problem(search, holdout, jax.random.wrap_key_data(trial.noise))
