r"""The binary network with estimators and thresholds of each hidden layer's own.

What enters the activations has another spread :math:`\sigma_l` in each layer, so one
half-width for all layers is another window in each. A window may be given in units of
that spread, and so may the threshold of the quantizer, which is the sign of the
pre-activation minus the threshold.

A window of height a multiplies the gradient that passes it, so it multiplies the
gradients of all kernels up to its own layer by a, and no others. A step of one layer,
whose length the learning rate sets, does not see that; a step of all layers does.
A window of half-width c and height 1/c is what remains of the normal STE if the
*input* of the sign is divided by c, which leaves the forward pass as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax.numpy as jnp

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.studies import toy

__all__ = ['estimators', 'heights', 'logits', 'spreads']


def estimators(
  activation: quantizers.Estimator | toy.Windows, spreads: types.Array
) -> list[quantizers.Estimator]:
  """Returns the estimators of the activations, one for each hidden layer.

  Args:
    activation: the same for all layers, or windows of each layer's own.
    spreads: the unit of relative windows, [hidden layers].
  """
  if not isinstance(activation, toy.Windows):
    return [activation] * len(spreads)
  return [quantizers.window(c) for c in activation.half_widths(spreads)]


def heights(windows: toy.Windows | None, spreads: types.Array) -> types.Array:
  """Returns factors on each kernel's gradient that keep the mass of all windows.

  The mass is half-width times height. The normal STE's is 1, so the height has to be
  one over the half-width.

  Args:
    windows: the windows that have height 1; None for windows that stay as they are.
    spreads: the unit of relative windows, [hidden layers].

  Returns:
    Factors, [hidden layers + 1]: for the kernel of layer l, the product of the heights
    of the windows that its gradient passes, which are those of layers l and beyond.
  """
  if windows is None:
    return jnp.ones(len(spreads) + 1)
  own = 1 / jnp.stack([*windows.half_widths(spreads), jnp.float32(1)])
  return jnp.cumprod(own[::-1])[::-1]


def logits(
  model: nn.MLP,
  kernels: dict[str, types.Array],
  inputs: types.Array,
  activations: Sequence[quantizers.Estimator],
  *,
  progress: types.Scalar = 1.0,
  thresholds: Sequence[types.Scalar] | types.Array | None = None,
) -> types.Array:
  """Returns the logits, [examples, classes].

  Args:
    model: the binary network, for everything but its activations.
    kernels: layer -> kernel.
    inputs: a batch, [examples, ...].
    activations: the estimator of each hidden layer. It sees the pre-activation minus
      the threshold, so its window moves with the threshold.
    progress: of training, for estimators that anneal.
    thresholds: of the sign of each hidden layer; None for 0.
  """
  shifts = [None] * len(activations) if thresholds is None else thresholds
  rest = zip(activations, shifts, strict=True)
  x = types.widened(inputs.reshape((inputs.shape[0], -1)))
  for stage in _stages(model, kernels, inputs, progress):
    if isinstance(stage, scans.Activation):
      estimator, shift = next(rest)
      quantize = quantizers.attach(quantizers.sign(), estimator)
      x = quantize(x if shift is None else x - shift, progress=progress)
    else:
      x = stage(x)
  return x


def spreads(
  model: nn.MLP, kernels: dict[str, types.Array], inputs: types.Array
) -> types.Array:
  """Returns the root mean square of what enters each layer's activations, [layers].

  The last entry is that of the logits.

  Args:
    model: the binary network.
    kernels: layer -> kernel.
    inputs: a batch as the model takes it: if it holds integers, they have a scale.
  """
  x, found = types.widened(inputs.reshape((inputs.shape[0], -1))), []
  for stage in _stages(model, kernels, inputs, 1.0):
    x = stage(x)
    if isinstance(stage, scans.Dense):
      found.append(jnp.sqrt(jnp.mean(jnp.square(x))))
  return jnp.stack(found)


def _stages(model, kernels, inputs, progress) -> Iterator[scans.Stage]:
  params = {layer: {'kernel': kernel} for layer, kernel in kernels.items()}
  return iter(
    model.apply(
      {'params': params}, inputs, progress=progress, method='stages'
    ).values()
  )
