"""The networks of the study: of 1-bit weights and activations, with any sign before a layer."""

from __future__ import annotations

from typing import Any

from bitjax import nn
from bitjax.studies import recipes

__all__ = ['MLPS', 'NETWORKS', 'SIGNS', 'binary', 'build']

_WEIGHTS = recipes.WEIGHTS['sign']
_MLP, SIGNS = MLPS = ('mlp', 'mlp_of_signs')
NETWORKS = (*MLPS, *recipes.NETWORKS)


def build(
  network: str,
  sign: Any,
  num_classes: int,
  hidden: tuple[int, ...],
  arithmetic: dict[str, Any],
) -> Any:
  """Returns a network.

  Args:
    network: one of `NETWORKS`; residual ones have Bi-Real's shortcuts, and their first
      and last layer in full precision. `SIGNS` has no parameters but binary kernels.
    sign: quantizer of the inputs of quantized layers.
    num_classes: outputs.
    hidden: units of the hidden layers of an MLP.
    arithmetic: ``precision`` and ``dtype``.
  """
  if network == SIGNS:
    return nn.binary_mlp(hidden=hidden, num_classes=num_classes, **arithmetic)
  options: dict[str, Any] = arithmetic | {
    'num_classes': num_classes,
    'kernel_quantizer': _WEIGHTS.quantizer,
    'scaling': _WEIGHTS.scaling,
    'input_quantizer': sign,
    'init_name': 'kaiming_normal',
  }
  if network == _MLP:
    return nn.QuantMLP(hidden, **options)
  if network != 'vgg_small':
    options['variant'] = 'bireal'
  return recipes.NETWORKS[network].make(**options)


def binary(network: str) -> str:
  """Returns a regular expression for the paths of quantized layers."""
  return r'Dense_\d+' if network in MLPS else recipes.NETWORKS[network].binary
