"""The stages that layers and quantizers of known types compute."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, cast

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax import scans
from bitjax import sums
from bitjax import types
from bitjax.nn import _conv
from bitjax.nn import _layers

__all__ = ['LAYERS', 'Unknown', 'quantizer_stage']


class Unknown(Exception):
  """A layer is of a known type, but computes what no stage does; says why."""


def quantizer_stage(quantize: quantizers.Quantize) -> scans.Stage | None:
  """Returns a quantizer as a stage; None if it may not be an elementwise staircase."""
  if quantizers.is_sign(quantize):
    return scans.Activation('sign', quantize)
  if not hasattr(quantizers.staircase(quantize), 'num_levels'):
    return None
  return scans.Pointwise(quantize)


def _dense(layer, variables, aval):
  _check_dtype(layer, aval)
  _check_plain(layer, 'dot_general', 'dot_general_cls', 'promote_dtype')
  params = variables['params']
  affine = scans.Affine(1.0, params.get('bias', 0.0))
  arithmetic = sums.Arithmetic(layer.precision)
  return scans.Dense(params['kernel'], affine=affine, arithmetic=arithmetic)


def _conv_of_linen(layer, variables, aval):
  fields = ('conv_general_dilated', 'conv_general_dilated_cls', 'promote_dtype')
  _check_dtype(layer, aval)
  _check_plain(layer, 'mask', *fields)
  names = (
    'features kernel_size strides padding input_dilation kernel_dilation '
    'feature_group_count use_bias param_dtype precision'
  )
  options = {name: getattr(layer, name) for name in names.split()}
  try:
    stage: Any = _quantized(_conv.QuantConv(**options), variables, aval)
  except types.BadInput as error:  # As for inputs with zeros between them.
    raise Unknown(f'is no convolution that QuantConv makes: {error}') from None
  # XLA's own convolution is what that layer computes.
  product = dataclasses.replace(stage.product, plain=True)
  return scans.Conv(stage.layer, product)


def _quantized(layer, variables, aval, progress=1.0):
  """Returns what follows the input quantizer, which is a step of its own."""
  _check_dtype(layer, aval)
  rest = layer.clone(input_quantizer=None)
  found = rest.apply(
    variables, aval.shape[-1], progress=progress, method='stage'
  )
  return cast(scans.Dense | scans.Conv, found)


def _batch_norm(layer, variables, aval, use_running_average=None, **others):
  running = nn.merge_param(
    'use_running_average', layer.use_running_average, use_running_average
  )
  _check_dtype(layer, aval)
  _check_plain(layer, 'axis', 'axis_index_groups')
  if others or not isinstance(running, bool):
    raise Unknown('takes a mask, or a traced choice of its statistics')
  size = aval.shape[-1:]
  params = variables.get('params', {})
  scale = params.get('scale', jnp.ones(size, aval.dtype))
  bias = params.get('bias', jnp.zeros(size, aval.dtype))
  if not running:
    return scans.BatchNorm(scale, bias, layer.epsilon, layer.axis_name)
  mean, var = (variables['batch_stats'][name] for name in ('mean', 'var'))
  return _layers.normalization(scale, bias, mean, var, layer.epsilon)


def _own_batch_norm(layer, variables, aval, **kwargs):
  return layer.apply(variables, aval.shape[-1], method='stage', **kwargs)


def _check_dtype(layer, aval):
  """Raises `Unknown` for a dtype of a layer's own, unless all is float32."""
  if layer.dtype is None:
    return
  used = {jnp.dtype(d) for d in (layer.dtype, layer.param_dtype, aval.dtype)}
  if used != {jnp.dtype('float32')}:
    raise Unknown(f'computes in {jnp.dtype(layer.dtype)}')


def _check_plain(layer, *names):
  """Raises `Unknown` unless fields of a layer have their defaults."""
  defaults = type(layer).__dataclass_fields__
  for name in names:
    # Some fields have arrays, which are compared entry by entry.
    value, default = getattr(layer, name), defaults[name].default
    if value is not default and not (np.ndim(value) == 0 and value == default):
      raise Unknown(f'has its own {name}')


# By exact type, since a subclass may compute anything. Each returns the stage, given the
# layer, its variables, the shape and dtype of its inputs, and its keywords.
LAYERS: dict[type, Callable[..., Any]] = {
  nn.Dense: _dense,
  nn.Conv: _conv_of_linen,
  nn.BatchNorm: _batch_norm,
  _conv.QuantConv: _quantized,
  _layers.QuantDense: _quantized,
  _layers.BatchNorm: _own_batch_norm,
}
