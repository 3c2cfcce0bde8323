"""Trains the toy network a little, for studies that start where STE has led to.

Each seed trains its own network, from its own initialisation, on the examples that
are neither in its batch A nor in its batch B. Both batches are then as new to the
trained network as to the initial one.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitjax import data
from bitjax import lanes
from bitjax import nn
from bitjax import types
from bitjax.studies.toy import problem as problem_lib
from bitjax.studies.toy.config import Config
from bitjax.studies.toy.config import Problems

__all__ = ['check_trainable', 'train', 'trained']


def train(
  model: nn.MLP,
  variables: types.PyTree,
  batch: data.Batch,
  rows: types.Array,
  key: types.Array,
  *,
  num_steps: int,
  batch_size: int = 128,
  learning_rate: types.Scalar | optax.Schedule = 1e-3,
  anneal: bool = False,
) -> types.PyTree:
  """Trains by Adam on the mean cross-entropy, with the model's own estimators.

  Args:
    model: the network.
    variables: the variables to start from.
    batch: the whole data set.
    rows: indices of the examples to train on, [rows]; updates draw from them with
      replacement.
    key: a random key.
    num_steps: number of updates.
    batch_size: examples of an update.
    learning_rate: of Adam, or a function of the number of updates made.
    anneal: whether the estimators' progress goes from 0 to 1; it stays 1 otherwise.

  Returns:
    The trained variables.
  """
  tx = optax.adam(learning_rate)

  def loss(variables, inputs, labels, progress):
    logits: Any = model.apply(variables, inputs, progress=progress)
    return problem_lib.cross_entropy(logits, labels)

  def step(carry, now):
    (variables, state), (key, progress) = carry, now
    drawn = jax.random.randint(key, (batch_size,), 0, rows.size, jnp.int32)
    inputs, labels = (x[rows[drawn]] for x in batch)
    gradient = jax.grad(loss)(variables, inputs, labels, progress)
    with types.as_optax():
      updates, state = tx.update(gradient, state, variables)
    return (optax.apply_updates(variables, updates), state), None

  start = (variables, tx.init(variables))
  keys = jax.random.split(key, num_steps)
  begin = 0.0 if anneal else 1.0
  progress = jnp.linspace(begin, 1.0, num_steps, dtype=jnp.float32)
  return jax.lax.scan(step, start, (keys, progress))[0][0]


def check_trainable(config: Config, dataset: data.Dataset) -> None:
  """Raises `BadInput` if two batches leave nothing over, or were augmented."""
  if config.augment != 'none':
    raise types.BadInput(
      'A network can only be trained on what two batches leave over; with '
      f'--augment={config.augment} they may take everything.'
    )
  size = max(config.batch_size)
  jax.eval_shape(
    lambda: data.remainder(jax.random.key(0), len(dataset.labels), size)
  )


def trained(
  problems: Problems, network: str, num_steps: int, **options: Any
) -> types.PyTree:
  """Trains every seed's network on the examples that its batches A and B leave over.

  Args:
    problems: the toy problems of all seeds; A and B are those of the largest size.
    network: a name in `toy.NETWORKS`; it is trained with its normal estimators.
    num_steps: number of updates; 0 for the initial variables.
    **options: further arguments of `train`.

  Returns:
    Variables with a leading axis of seeds.

  Raises:
    BadInput: if the batches leave nothing over, or were augmented.
  """
  variables = problems.arrays['trials'].variables
  if num_steps == 0:
    return variables
  check_trainable(problems.config, problems.dataset)
  size = max(problems.config.batch_size)
  num_examples = len(problems.dataset.labels)
  fit = functools.partial(
    train, problems.model(network), num_steps=num_steps, **options
  )

  def lane(seed, variables, batch):
    _, key, noise = problem_lib.seed_keys(seed)
    rows = data.remainder(key, num_examples, size)
    # Folding in a constant makes a new key and leaves all other streams as they are.
    return fit(variables, batch, rows, jax.random.fold_in(noise, 1 << 20))

  @jax.jit
  def run(seeds, variables, batch):
    return lanes.each(
      lambda index, **shared: lane(
        seeds[index],
        jax.tree.map(lambda leaf: leaf[index], variables),
        **shared,
      ),
      {'index': jnp.arange(seeds.size)},
      shared={'batch': batch},
    )

  batch = data.Batch(
    jnp.asarray(problems.dataset.images), jnp.asarray(problems.dataset.labels)
  )
  return run(problems.arrays['seeds'], variables, batch)
