"""The networks and quantizers that the flags of a training name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bitjax import nn
from bitjax import quantizers
from bitjax import types

__all__ = [
  'ACTIVATIONS',
  'NETWORKS',
  'PACT',
  'WEIGHTS',
  'Network',
  'Weights',
  'build',
  'weights_of',
]


class Network(NamedTuple):
  """How to make a network, and which of its layers are quantized."""

  make: Callable[..., Any]
  binary: str  # A regular expression for the paths of quantized layers.


class Weights(NamedTuple):
  """A quantizer of kernels and its scaling; Bop and clipping need ``bits`` of 1."""

  quantizer: Any
  scaling: Any = 'none'
  bits: int | None = None


_RESIDUAL = r'Block_\d+/Conv_\d'


def _vgg_small(variant: str = 'plain', **options: Any) -> nn.VGG:
  if variant != 'plain':
    raise types.BadInput(f'vgg_small has no variant but plain; got {variant}.')
  return nn.vgg_small(**options)


NETWORKS = {
  'resnet20': Network(nn.resnet20, _RESIDUAL),
  'resnet32': Network(nn.resnet32, _RESIDUAL),
  'resnet18': Network(nn.resnet18, _RESIDUAL),
  'vgg_small': Network(_vgg_small, r'Conv_[1-9]'),
  'resnet8': Network(
    lambda **kw: nn.resnet20(**kw | {'stages': (1, 1, 1)}), _RESIDUAL
  ),
  'resnet8_narrow': Network(
    lambda **kw: nn.resnet20(
      **kw | {'stages': (1, 1, 1), 'widths': (8, 16, 32)}
    ),
    _RESIDUAL,
  ),
  # Small enough for many seeds in little time, and for smoke tests.
  'resnet4': Network(
    lambda **kw: nn.resnet20(**kw | {'stages': (1,), 'widths': (8,)}), _RESIDUAL
  ),
}


def _sign(estimator: quantizers.Estimator) -> quantizers.Quantize:
  return quantizers.attach(quantizers.sign(), estimator)


def _irnet(t_min: float) -> quantizers.Quantize:
  """Returns IR-Net's quantizer of weights.

  Standardised weights pass through a sign with EDE, and are scaled by a power of two
  (a bit shift).
  """
  sign = _sign(quantizers.error_decay(t_min))
  scaled = quantizers.scaled(sign, quantizers.power_of_two())
  return quantizers.standardized(scaled)


_MEAN = quantizers.mean_abs()

WEIGHTS = {
  'none': Weights(None),
  'sign': Weights(_sign(quantizers.identity()), _MEAN, 1),
  'window': Weights(_sign(quantizers.window(1.0)), _MEAN, 1),
  'dsq': Weights(_sign(quantizers.dsq(0.2)), _MEAN, 1),
  'irnet': Weights(_irnet(0.1), bits=1),
  'irnet_slow': Weights(_irnet(1e-3), bits=1),
  'rbnn': Weights(_sign(quantizers.rbnn()), _MEAN, 1),
  'reste': Weights(
    _sign(quantizers.reste()),
    quantizers.mean_abs('tensor', detached=False),
    1,
  ),
  'learned_dsq1': Weights(quantizers.learned_dsq(1), bits=1),
  'learned_dsq2': Weights(quantizers.learned_dsq(2)),
  'dorefa1': Weights(quantizers.dorefa_weights(1), bits=1),
  'dorefa2': Weights(quantizers.dorefa_weights(2)),
  'dorefa4': Weights(quantizers.dorefa_weights(4)),
  'ternary': Weights(
    quantizers.attach(quantizers.ternary(scaled=True), quantizers.identity())
  ),
  'lsq2': Weights(quantizers.lsq(2)),
  'lsq3': Weights(quantizers.lsq(3)),
  'lsq4': Weights(quantizers.lsq(4)),
  'lsq8': Weights(quantizers.lsq(8)),
}

PACT = {'pact2': quantizers.pact(2), 'pact4': quantizers.pact(4)}

ACTIVATIONS = {
  'none': None,
  'sign': _sign(quantizers.window(1.0)),
  'bireal': _sign(quantizers.polynomial()),
  'swish': _sign(quantizers.swish_sign()),
  'dsq': _sign(quantizers.dsq(0.2)),
  'ede': _sign(quantizers.error_decay(0.1)),
  'ede_slow': _sign(quantizers.error_decay(1e-3)),
  'rbnn': _sign(quantizers.rbnn(activations=True)),
  'reste': _sign(quantizers.reste()),
  'dorefa2': quantizers.dorefa_activations(2),
  'dorefa4': quantizers.dorefa_activations(4),
  **PACT,
  'lsq2': quantizers.lsq(2, signed=False),
  'lsq3': quantizers.lsq(3, signed=False),
  'lsq4': quantizers.lsq(4, signed=False),
  'lsq8': quantizers.lsq(8, signed=False),
}


def weights_of(name: str) -> Weights:
  """Returns the weights of a name in `WEIGHTS`, or those of somebody's own estimator.

  Weights of one's own are signs times their mean magnitude.

  Args:
    name: a name in `WEIGHTS`, or one for `quantizers.named`.
  """
  if name in WEIGHTS:
    return WEIGHTS[name]
  return Weights(_sign(quantizers.named(name)), _MEAN, 1)


def _activations_of(name):
  if not isinstance(name, str):
    return name
  if name in ACTIVATIONS:
    return ACTIVATIONS[name]
  return _sign(quantizers.named(name))


def build(
  network: str,
  variant: str,
  weights: str,
  activations: Any,
  *,
  num_classes: int,
  init_name: str,
  last_init_name: str | None = None,
  half_width: float = 1.0,
  **fields: Any,
) -> Any:
  """Builds a network from the names of its parts.

  Args:
    network: a name in `NETWORKS`.
    variant: one of `nn.RESNET_VARIANTS`; VGG has the plain one only.
    weights: a name in `WEIGHTS`, or one for `quantizers.named`.
    activations: a name in `ACTIVATIONS`, one for `quantizers.named`, or a quantizer.
    num_classes: outputs of the classifier.
    init_name: initialisation of the kernels, as for `bitjax.nn.ResNet`.
    last_init_name: initialisation of the classifier's kernel; None for the same.
    half_width: of the window of ``'sign'`` activations; others ignore it.
    **fields: further fields of the network, such as ``precision`` and ``dtype``.

  Raises:
    BadInput: for an unknown name, or a variant that the network does not have.
  """
  for name, value, known in (
    ('network', network, NETWORKS),
    ('variant', variant, nn.RESNET_VARIANTS),
    ('weights', weights, WEIGHTS),
    ('activations', activations, ACTIVATIONS),
  ):
    if not isinstance(value, str):
      continue
    if ':' not in value or name in ('network', 'variant'):
      types.check_choice(name, value, tuple(known))
  chosen = weights_of(weights)
  options: dict[str, Any] = {
    'kernel_quantizer': chosen.quantizer,
    'scaling': chosen.scaling,
    'input_quantizer': _activations_of(activations),
    'num_classes': num_classes,
    'init_name': init_name,
    'last_init_name': last_init_name,
    'variant': variant,
    **fields,
  }
  if activations == 'sign' and half_width != 1.0:
    options['input_quantizer'] = _sign(quantizers.window(half_width))
  return NETWORKS[network].make(**options)
