"""Computes the gradients of many estimators, for the parts of two batches.

Estimators change the backward pass only, so all variants share the forward pass.
Variants that differ in the estimator of the weights alone share the backward pass too:
the cotangent of the quantized weights depends on the estimator of the activations, and
the weights' own estimator is applied to it afterwards.
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

# Layer -> its kernel's gradient for each part of a batch, [parts, fan_in, units].
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
  """Differentiates the mean loss of every part of two batches, with every estimator.

  The gradients for all distinct estimators of the activations are in memory at once.

  Args:
    make_model: ``activation_estimator=`` -> the binary network.
    trial: what one seed has drawn.
    batch_size: the size of A and B.
    estimators: the estimators of each variant.
    num_parts: number of equal parts of a batch.
    layers: names of the layers, in order.

  Returns:
    A function that maps a variant's number to two `Gradients`: of all layers on the
    parts of A, and of the first layer on the parts of B.
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
