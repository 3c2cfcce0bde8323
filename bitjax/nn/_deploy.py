r"""Deploys the weights that quantized models compute with.

A quantized layer keeps *latent* weights as its parameters and always computes with
quantized ones. Nothing is therefore evaluated with latent weights, unless a model
is explicitly made without quantizers. `deploy` returns the weights that a model
computes with, and keeps their scales beside them, so that they are not quantized
again. A scale is a factor of a sum, not of its terms: a sum of ±1 values that is zero
stays zero, whatever the scale is, and the sign behind it what it was.
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
  model: nn.Module,
  variables: types.PyTree,
  *args: Any,
  fold_scale: bool = False,
  **kwargs: Any,
) -> types.PyTree:
  """Returns variables whose kernels are the weights that the layers compute with.

  Every kernel of a `QuantDense` or `QuantConv` is replaced by its quantized weights,
  and the collection ``'deployed'`` holds what the layer's ``scaling`` computed of the
  latent ones. With it, the same model quantizes inputs, but no kernel again, and each
  layer applies the same operations to the same numbers: what the model computes is the
  same to the bit.

  Args:
    model: the model.
    variables: trained variables, with latent kernels.
    *args: inputs of the model; only their shapes matter.
    fold_scale: True multiplies the scales into the kernels. Then
      ``variables['params']`` alone fits models of flax's own layers. They, and this
      model, compute the same up to rounding only: a sum that is exactly zero need
      not be any more, so a sign behind it may differ, and all that follows.
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
  found = traverse_util.flatten_dict(
    core.unfreeze(seen).get(_binding.QUANTIZED, {})
  )
  layers = [path[:-1] for path in found if path[-1] == 'kernel']
  if not layers:
    raise types.BadInput(
      'The model must call a QuantDense or QuantConv; it has none.'
    )
  flat = traverse_util.flatten_dict(core.unfreeze(variables))
  learned = {(*layer, 'kernel_quantizer') for layer in layers}

  def belongs_to_a_kernel(name, *path):
    own = name in ('params', _binding.STATE)
    return own and any(tuple(path[: len(p)]) == p for p in learned)

  kept = {k: v for k, v in flat.items() if not belongs_to_a_kernel(*k)}
  for layer in layers:
    name = 'scaled_kernel' if fold_scale else 'kernel'
    kept['params', *layer, 'kernel'] = found[*layer, name]
    if fold_scale:
      kept[_binding.DEPLOYED, *layer, 'kernel'] = jnp.asarray(True)
    else:
      kept[_binding.DEPLOYED, *layer, 'scale'] = found[*layer, 'scale']
  return traverse_util.unflatten_dict(kept)
