"""Gradients of many estimators, for the parts of two batches.

They differ behind the loss only. So the forward pass is that of all, and variants
that differ in the estimator of the weights alone share the backward pass too: what
arrives at the quantized weights depends on the estimator of the activations, and
the weights' own then acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import lanes
from bitjax import nn
from bitjax import quantizers
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.toy import dispatch

__all__ = ['Gradients', 'by_part']

# By layer, [parts, fan_in, units].
Gradients = dict[str, types.Array]


def by_part(
  make_model: Callable[..., nn.MLP],
  trial: toy.Trial,
  batch_size: int,
  estimators: Sequence[toy.Estimators],
  *,
  num_parts: int,
  layers: Sequence[str],
) -> Callable[[types.Array | int], tuple[Gradients, Gradients]]:
  """Differentiates the mean loss of every part of a batch, with every estimator.

  It holds the gradients of all distinct estimators of the activations at once.

  Args:
    make_model: ``activation_estimator=`` -> the binary network.
    trial: of one seed.
    batch_size: which of its batches.
    estimators: of each variant.
    num_parts: equal parts of a batch.
    layers: names of the layers, in order.

  Returns:
    A function: number of a variant -> its gradients for the parts of A, of all
    layers; and for those of B, of the first layer.
  """
  activations, rows = dispatch.distinct(
    [(each.activation, each.progress) for each in estimators]
  )
  params = trial.variables['params']
  kernels = {layer: params[layer]['kernel'] for layer in layers}

  def of_part(inputs, labels, moved):
    def gradient(choice):
      activation, progress = choice
      model = make_model(activation_estimator=activation)

      def loss(moved):
        params = {k: {'kernel': w} for k, w in (kernels | moved).items()}
        logits: Any = model.apply({'params': params}, inputs, progress=progress)
        return toy.cross_entropy(logits, labels)

      return jax.grad(loss)({layer: kernels[layer] for layer in moved})

    return dispatch.vectorised(gradient, activations)

  def of_parts(batch, moved):
    parts = jax.tree.map(
      lambda leaf: leaf.reshape(num_parts, -1, *leaf.shape[1:]), batch
    )
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
