r"""The toy problem: one layer of an MLP, seen on two disjoint batches.

One seed is one *trial*: a fresh initialisation, a fresh search batch A and a
disjoint held-out batch B. Either a single layer moves, or all layers move as if they
were one.
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
    holdout: the same layer's view on batch B.
    noise_key: the key from which this seed's perturbations are drawn.
  """

  search: scans.LayerView
  holdout: scans.LayerView
  noise_key: types.Array

  @property
  def kernel(self) -> types.Array:
    """The original latent kernel."""
    return self.search.kernel

  def losses(self, kernel: types.Array) -> dict[str, types.Array]:
    """Returns the losses of a kernel on A (``search``) and on B (``holdout``).

    They are NaN for a kernel that is not finite: its signs would still have a loss.
    """
    sound = jnp.isfinite(kernel).all()
    return {
      'search': types.nan_where(~sound, self.search.loss(kernel)),
      'holdout': types.nan_where(~sound, self.holdout.loss(kernel)),
    }


class Trial(NamedTuple):
  """All that is random about a seed, drawn once for all arms.

  Attributes:
    variables: initial variables of the network. They do not depend on which parts
      are binary, so all networks of a seed start from the same latent weights.
    batches: batch size -> batches A and B.
    noise: raw data of the key of the seed's perturbations, uint32.
  """

  variables: types.PyTree
  batches: Mapping[int, tuple[data.Batch, data.Batch]]
  noise: types.Array


def cross_entropy(logits: types.Array, labels: types.Array) -> types.Array:
  """Returns the mean cross-entropy, in nats, of logits [examples, classes]."""
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  )


def seed_keys(seed: types.Array | int) -> types.Array:
  """Returns a seed's keys for initialisation, batches and noise, in this order, [3]."""
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
    model: any network of `toy.NETWORKS`: their parameters are initialised alike.
    seeds: integers, [seeds].
    images: the data set, uint8 [N, H, W, C].
    labels: the classes of the images, [N].
    batch_sizes: the sizes for which to draw A and B, which have as many examples each.
    augment: see `data.search_and_holdout`.

  Returns:
    A `Trial` whose leaves have a leading axis of seeds.
  """

  def start(seed, images):
    key, _, noise_key = seed_keys(seed)
    variables, _ = nn.init_quietly(model, key, images[:1])
    return variables, jax.random.key_data(noise_key)

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
  """Returns the problem of one layer of a network, or of all, in one seed's trial.

  Args:
    model: the network.
    trial: what one seed has drawn.
    batch_size: the size of A and B, a key of ``trial.batches``.
    layer: name of the layer that moves; None for all layers at once.
  """

  def view(batch):
    arguments = model, trial.variables, batch.inputs, batch.labels
    if layer is None:
      return nn.network_view(*arguments)
    return nn.layer_view(*arguments, layer)

  search, holdout = map(view, trial.batches[batch_size])
  return Problem(search, holdout, jax.random.wrap_key_data(trial.noise))
