"""Computes the gradients of many estimators, for the parts of two batches.

Estimators change the backward pass only, so all variants share the forward pass.
Variants that differ in the estimator of the weights alone share the backward pass too:
the cotangent of the quantized weights depends on the estimator of the activations, and
the weights' own estimator is applied to it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools

import jax
import jax.numpy as jnp

from bitjax import data
from bitjax import lanes
from bitjax import nn
from bitjax import quantizers
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.toy import dispatch
from bitjax.studies.variant_ste import layerwise

__all__ = ['Gradients', 'by_part', 'split']

# Layer -> its kernel's gradient for each part of a batch, [parts, fan_in, units].
Gradients = dict[str, types.Array]


def by_part(
  model: nn.MLP,
  trial: toy.Trial,
  batch_size: int,
  variants: Sequence[toy.Variant],
  spreads: types.Array,
  *,
  num_parts: int,
  layers: Sequence[str],
) -> Callable[[types.Array | int], tuple[Gradients, Gradients]]:
  """Differentiates the mean loss of every part of two batches, with every estimator.

  The gradients for all distinct estimators of the activations are in memory at once.

  Args:
    model: the binary network; only its forward pass matters.
    trial: what one seed has drawn.
    batch_size: the size of A and B.
    variants: the variants.
    spreads: the unit of relative windows, [hidden layers].
    num_parts: number of equal parts of a batch.
    layers: names of the layers, in order.

  Returns:
    A function that maps a variant's number to two `Gradients`: of all layers on the
    parts of A, and of the first layer on the parts of B.
  """
  estimators = [variant.estimators for variant in variants]
  activations, rows = dispatch.distinct(
    [
      (variant.windows or each.activation, each.progress)
      for variant, each in zip(variants, estimators, strict=True)
    ]
  )
  params = trial.variables['params']
  kernels = {layer: params[layer]['kernel'] for layer in layers}

  def of_part(inputs, labels, moved):
    def gradient(choice):
      activation, progress = choice
      estimators = layerwise.estimators(activation, spreads)

      def loss(moved):
        logits = layerwise.logits(
          model, kernels | moved, inputs, estimators, progress=progress
        )
        return toy.cross_entropy(logits, labels)

      return jax.grad(loss)({layer: kernels[layer] for layer in moved})

    return dispatch.vectorised(gradient, activations)

  def of_parts(batch, moved):
    parts = split(batch, num_parts)
    return lanes.each(functools.partial(of_part, moved=moved), parts._asdict())

  search, holdout = trial.batches[batch_size]
  found = of_parts(search, layers), of_parts(holdout, layers[:1])

  def through(number, estimators):
    quantize = quantizers.attach(quantizers.sign(), estimators.kernel)
    row = jnp.asarray(rows)[number]

    def pull(layer, gradients):
      _, back = jax.vjp(
        functools.partial(quantize, progress=estimators.progress),
        kernels[layer],
      )
      return jax.vmap(lambda gradient: back(gradient)[0])(gradients[:, row])

    return tuple(
      {layer: pull(layer, gradients) for layer, gradients in batch.items()}
      for batch in found
    )

  return lambda number: dispatch.switch(
    functools.partial(through, number), estimators
  )(number)


def split(batch: data.Batch, num_parts: int) -> data.Batch:
  """Returns a batch as equal parts: its leaves get a leading axis of parts."""
  return jax.tree.map(
    lambda leaf: leaf.reshape(num_parts, -1, *leaf.shape[1:]), batch
  )
