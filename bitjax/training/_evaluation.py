"""Measures the accuracy or another score of networks, and their layers' gradients and weights.

Networks are evaluated at progress 1: with the quantizers that will be deployed,
however soft they still are in training. A network that diverged, one whose variables
or loss are not finite, has no accuracy: a sign of NaN is still a sign, and the largest
of ten NaN is the first.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitjax import measures
from bitjax import nn as networks
from bitjax import tree
from bitjax import types
from bitjax.training import _seeds
from bitjax.training import _state
from bitjax.training import _task

__all__ = ['STATISTICS', 'Scores', 'evaluator', 'statistician']

STATISTICS = (
  'gradient_mean',
  'gradient_coordinate_variance',
  'gradient_batch_variance',
  'gradient_sparsity',
  'gradient_signal_to_noise',
  'saturated',
)


class Scores(NamedTuple):
  """Mean loss and score over all examples; both are NaN for a network that diverged.

  Attributes:
    loss: the mean loss, [seeds]: cross-entropy in nats, of a classification.
    accuracy: the score, [seeds]: the share of correct guesses, of a classification, and the
      PSNR in decibels, of a `Reconstruction`.
    right: whether each example is guessed correctly, [seeds, batches, examples]; False
      for padding, and for all examples of a network that diverged. Of a `Reconstruction`,
      the mean squared error of each; 0 for padding, NaN where it diverged.
  """

  loss: types.Array
  accuracy: types.Array
  right: types.Array


@functools.lru_cache(maxsize=16)
def evaluator(
  task: _task.Task,
  num_seeds: int,
  mesh: jax.sharding.Mesh | None = None,
  together: str | None = None,
) -> Callable[[types.PyTree, Any], Scores]:
  """Compiles ``evaluate(variables, batches)``, which returns `Scores`.

  Args:
    task: the network, and how images are prepared.
    num_seeds: number of networks side by side.
    mesh: devices; its axis ``'batch'``, if it has one, splits the examples of every
      batch. None for one device.
    together: how seeds run together, as for `fit`.

  Returns:
    A function whose ``batches`` are images, labels and weights, [batches, examples,
    ...], as `bitjax.data.padded_batches` makes them: a weight is 1, or 0 for padding.
  """
  together = _seeds.choose(together, mesh)
  if together == 'stream' and num_seeds > 1:
    return _seeds.streamed(evaluator(task, 1), num_seeds, seeded=(0,))
  axis, parts = _task.batch_split(mesh)

  def total(variables, batches):
    def one(variables):
      def add(sums, batch):
        images, labels, weights = batch
        outputs: Any = task.model.apply(
          variables,
          task.prepare(images),
          **networks.call_options(task.model, train=False, progress=1.0),
          # Random quantizers draw here as well, from a fixed key, so that
          # evaluation is repeatable.
          rngs={'quantizer': jax.random.key(0)},
        )
        losses, values = task.kind.each(outputs, labels)
        zero = jnp.zeros((), values.dtype)
        values = jnp.where(weights > 0, values, zero)
        found = jnp.sum(weights * losses), tree.count(weights > 0)
        return jax.tree.map(jnp.add, sums, found), values

      nothing = jnp.zeros((), jnp.float32), jnp.int32(0)
      (loss, number), each = jax.lax.scan(add, nothing, batches)
      whole = tree.count(each) if each.dtype == bool else jnp.sum(each)
      sums = loss, whole, number
      if axis is None:
        return sums, each
      each = jax.lax.all_gather(each, axis, axis=1, tiled=True)
      return jax.lax.psum(sums, axis), each

    return _seeds.inside(one, num_seeds, together)(variables)

  if axis is not None:
    total = jax.shard_map(
      total,
      mesh=mesh,
      in_specs=(jax.P(), jax.P(None, axis)),
      out_specs=jax.P(),
      axis_names={axis},
      check_vma=False,
    )

  def evaluate(variables, batches):
    size = batches[1].shape[1]
    if axis is not None:
      batches = jax.tree.map(lambda leaf: _even(leaf, parts), batches)
    (loss, *counts), each = total(variables, batches)
    value, number = (count.astype(loss.dtype) for count in counts)
    diverged = ~(jnp.isfinite(loss) & _state.finite(variables))
    each, none = each[..., :size], diverged[:, None, None]
    return Scores(
      types.nan_where(diverged, loss / number),
      types.nan_where(diverged, task.kind.summary(value / number)),
      each & ~none if each.dtype == bool else types.nan_where(none, each),
    )

  return jax.jit(evaluate)


def _even(leaf, parts):
  """Pads batches with examples of zero weight, so that they split into equal parts."""
  rest = -leaf.shape[1] % parts
  return jnp.pad(leaf, [(0, 0), (0, rest)] + [(0, 0)] * (leaf.ndim - 2))


@functools.lru_cache(maxsize=16)
def statistician(
  task: _task.Task,
  num_seeds: int,
  *,
  num_groups: int = 4,
  limit: float = 1.0,
  together: str | None = None,
) -> Callable[..., dict[str, dict[str, Any]]]:
  """Compiles a function that computes statistics of each layer's kernel.

  Args:
    task: the network and its loss; images are not augmented.
    num_seeds: number of networks side by side.
    num_groups: number of equal parts of the batch, which stand for batches in the
      variance over batches.
    limit: magnitude beyond which a latent weight is saturated.
    together: how seeds run together, as for `fit`; in a stream they are in a loop
      here.

  Returns:
    A function of the state, a batch and the teacher's variables (None without one).
    It returns name -> layer -> [seeds], with the names of `STATISTICS`: the
    gradient's mean and variance over the kernel's coordinates, its variance over
    batches, sparsity and signal-to-noise ratio
    (`bitjax.measures.gradient_statistics`), and the share of latent weights with
    ``|w| > limit``.
  """
  types.check_integer('num_groups', num_groups, 2)
  types.check_non_negative('limit', limit)

  def describe(state, batch, teacher_variables):
    groups = jax.tree.map(
      lambda leaf: leaf.reshape(num_groups, -1, *leaf.shape[1:]), batch
    )

    def one(state):
      key = jax.random.fold_in(state.key, state.step)

      def gradient(batch):
        targets = task.kind.targets(batch.labels)
        found = jax.grad(task.objective, has_aux=True)(
          state.params,
          state.collections,
          task.prepare(batch.inputs),
          targets,
          key,
          task.progress_at(state.step),
          teacher_variables,
        )[0]
        return _state.kernels(found)

      found: dict[str, dict[str, Any]] = {name: {} for name in STATISTICS}
      gradients = jax.lax.map(gradient, groups)
      for layer, kernel in _state.kernels(state.params).items():
        each = measures.gradient_statistics(gradients[layer])
        for name, value in each._asdict().items():
          if f'gradient_{name}' in found:
            found[f'gradient_{name}'][layer] = value
        found['saturated'][layer] = tree.share(jnp.abs(kernel) > limit)
      return found

    return _seeds.inside(one, num_seeds, together)(state)

  return jax.jit(describe)
