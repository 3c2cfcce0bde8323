r"""Deploys the weights that quantized models compute with.

A quantized layer keeps *latent* weights as its parameters and always computes with
quantized ones. Nothing is therefore evaluated with latent weights, unless a model
is explicitly made without quantizers. `deploy` returns the weights that a model
computes with, and marks them so that they are not quantized again.
"""

from __future__ import annotations

from typing import Any

from flax import core
from flax import linen as nn
from flax import traverse_util
import jax.numpy as jnp

from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _calls

__all__ = ['deploy']


def deploy(
  model: nn.Module, variables: types.PyTree, *args: Any, **kwargs: Any
) -> types.PyTree:
  """Returns variables whose kernels are the weights that the layers compute with.

  Every kernel of a `QuantDense` or `QuantConv` is replaced by its quantized
  weights, times their scale. The collection ``'deployed'`` marks these kernels: with
  it, the same model quantizes inputs, but no kernel again, and each layer computes the
  same up to rounding: the scale is a factor of each term, not of the sum. A sum that
  is exactly zero need not be any more, so a sign behind it may differ.
  ``variables['params']`` alone fits models of flax's own layers, which compute the
  same if inputs are not quantized.

  Args:
    model: the model.
    variables: trained variables, with latent kernels.
    *args: inputs of the model; only their shapes matter.
    **kwargs: keyword arguments of the model's call.

  Returns:
    The variables, without parameters and state of the kernels' quantizers.

  Raises:
    BadInput: for variables that are deployed already, or a model that calls
      no quantized layer.
  """
  if _binding.DEPLOYED in variables:
    raise types.BadInput(
      'variables must hold latent kernels; these are deployed already.'
    )
  _, seen = model.apply(
    variables,
    *args,
    mutable=[_binding.QUANTIZED],
    **_calls.call_options(model, **kwargs),
  )
  kernels = traverse_util.flatten_dict(
    core.unfreeze(seen).get(_binding.QUANTIZED, {})
  )
  if not kernels:
    raise types.BadInput(
      'The model must call a QuantDense or QuantConv; it has none.'
    )
  flat = traverse_util.flatten_dict(core.unfreeze(variables))
  learned = {(*path[:-1], 'kernel_quantizer') for path in kernels}

  def belongs_to_a_kernel(name, *path):
    own = name in ('params', _binding.STATE)
    return own and any(tuple(path[: len(p)]) == p for p in learned)

  kept = {k: v for k, v in flat.items() if not belongs_to_a_kernel(*k)}
  for path, kernel in kernels.items():
    kept['params', *path] = kernel
    kept[_binding.DEPLOYED, *path] = jnp.asarray(True)
  return traverse_util.unflatten_dict(kept)
