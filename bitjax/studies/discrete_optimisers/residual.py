"""A binary ResNet-8 as a network of the study: the signs of all its quantized layers move.

It is trained on A by STE with the statistics of its batches. From there on the methods search
one function of the signs: normalisations use the running statistics, and what is
not quantized, the scales of the layers included, stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import math
import re
from typing import TYPE_CHECKING, Any

import jax
from jax import flatten_util
import jax.numpy as jnp
import optax

from bitjax import data
from bitjax import nn
from bitjax import types
from bitjax.studies import recipes
from bitjax.studies import toy

if TYPE_CHECKING:
  from bitjax.studies.discrete_optimisers import study

__all__ = ['RATE', 'Residual', 'num_signs', 'resnet']

RATE = 1e-3  # Of Adam, for the checkpoint.


def resnet(config: study.Config, num_classes: int) -> Any:
  """Returns the network: Bi-Real, with signs of weights and of activations."""
  return recipes.build(
    config.network,
    'bireal',
    'sign',
    'bireal',
    num_classes=num_classes,
    init_name='kaiming_normal',
    precision=config.precision,
    dtype=config.dtype,
  )


def num_signs(config: study.Config, dataset: data.Dataset) -> int:
  """Returns the number of signs of the network's quantized layers."""
  images = jnp.zeros((1, *dataset.images.shape[1:]), jnp.float32)
  model = resnet(config, dataset.num_classes)
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), images
  )
  quantized = recipes.NETWORKS[config.network].binary
  kernels = jax.tree.leaves_with_path(shapes['params'])
  return sum(
    math.prod(leaf.shape)
    for path, leaf in kernels
    if re.fullmatch(
      f'{quantized}/kernel',
      jax.tree_util.keystr(path, simple=True, separator='/'),
    )
  )


@dataclasses.dataclass(frozen=True)
class Residual:
  """A ResNet with the checkpoints of all seeds; it serves as a `networks.Networks`.

  Attributes:
    network: its number of signs.
    config: the configuration of the study.
    dataset: the data.
  """

  network: Any
  config: study.Config
  dataset: data.Dataset

  starts = ('checkpoint',)
  exact = False  # The gains of all flips would take longer than all methods.

  @property
  def examples(self) -> int:
    """Examples in A, and in B."""
    return max(self.config.batch_size)

  @functools.cached_property
  def model(self) -> Any:
    """The network."""
    return resnet(self.config, self.dataset.num_classes)

  @functools.cached_property
  def arrays(self) -> dict[str, Any]:
    """The seeds, and the data that each draws A and B from."""
    return {
      'seeds': jnp.asarray(self.config.all_seeds),
      'images': jnp.asarray(self.dataset.images),
      'labels': jnp.asarray(self.dataset.labels),
    }

  def checkpoint(
    self, seed: types.Array, arrays: Mapping[str, Any]
  ) -> types.Array:
    """Trains a seed's network on A by STE; returns its variables, flat."""
    variables, (batch, _), key = self._drawn(seed, arrays)
    size, tx = min(self.examples, 128), optax.adam(RATE)

    def loss(params, others, inputs, labels):
      found: Any = self.model.apply(
        {'params': params, **others}, inputs, train=True, mutable=[*others]
      )
      logits, moved = found
      return toy.cross_entropy(logits, labels), moved

    def step(carry, key):
      params, others, state = carry
      rows = jax.random.randint(key, (size,), 0, self.examples, jnp.int32)
      gradient, others = jax.grad(loss, has_aux=True)(
        params, others, self._seen(batch.inputs[rows]), batch.labels[rows]
      )
      with types.as_optax():
        updates, state = tx.update(gradient, state, params)
      return (optax.apply_updates(params, updates), others, state), None

    params = variables['params']
    others = {k: v for k, v in variables.items() if k != 'params'}
    keys = jax.random.split(key, self.config.train_steps)
    start = params, others, tx.init(params)
    (params, others, _), _ = jax.lax.scan(step, start, keys)
    return flatten_util.ravel_pytree({'params': params, **others})[0]

  def pose(
    self,
    start: types.Array,
    seed: types.Array,
    weights: types.Array,
    arrays: Mapping[str, Any],
  ) -> tuple[toy.Problem, types.Array]:
    """Returns the network of a seed at its checkpoint, and a key for what methods draw.

    Args:
      start: ignored: there is one start.
      seed: one of all seeds; may be traced.
      weights: the variables of the seed's checkpoint, flat.
      arrays: the attribute of that name.
    """
    del start
    variables, batches, key = self._drawn(seed, arrays)
    _, restored = flatten_util.ravel_pytree(variables)
    search, holdout = (
      nn.network_view(
        self.model,
        restored(weights),
        self._seen(batch.inputs),
        batch.labels,
        layers='quantized',
        freeze_scale=True,
        train=False,
      )
      for batch in batches
    )
    return toy.Problem(search, holdout, key), jax.random.fold_in(key, 1)

  def _seen(self, inputs):
    """Returns images as the network sees them, of mean about 0 and size about 1."""
    return 4 * (inputs.astype(jnp.float32) * self.dataset.scale - 0.5)

  def _drawn(self, seed, arrays):
    init_key, batch_key, key = toy.seed_keys(seed)
    batches = data.search_and_holdout(
      batch_key, arrays['images'], arrays['labels'], self.examples
    )
    variables, _ = nn.init_quietly(
      self.model, init_key, self._seen(batches[0].inputs[:1]), train=False
    )
    return variables, batches, key
