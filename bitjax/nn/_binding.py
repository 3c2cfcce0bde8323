"""Creates the variables of a quantized layer and binds its quantizers to them."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any, TypeAlias

from flax import linen as nn
import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import scans
from bitjax import sums
from bitjax import types

__all__ = [
  'DEPLOYED',
  'QUANTIZED',
  'QUANTIZERS',
  'RNG',
  'SCALINGS',
  'SPREADS',
  'STATE',
  'AnyQuantizer',
  'as_dtype',
  'bind_layer',
  'check_counts',
  'check_fields',
]

SCALINGS = ('none', 'fan_in', 'mean_abs')

# Names of variable collections: the state of quantizers, the running spreads of what
# enters them, the weights that layers compute with and their scales, and what is beside
# kernels that already hold such weights (see `deploy`): their ``scale``, or a mark
# ``kernel`` if they are scaled.
STATE, SPREADS = 'quantizer_state', 'spreads'
QUANTIZED, DEPLOYED = 'quantized', 'deployed'

RNG = 'quantizer'  # Name of the random keys in flax's `rngs`.

_OPTIONAL = ('strides', 'input_dilation', 'kernel_dilation')
# Fields of layers and networks: a positive integer, a tuple of them, and either.
_COUNTS = ('features', 'num_classes', 'feature_group_count')
_TUPLES = ('hidden', 'widths')
_SIZES = ('kernel_size', *_OPTIONAL)
# Quantizers of a layer, which are also the names of their parameters.
QUANTIZERS = ('kernel_quantizer', 'input_quantizer')

AnyQuantizer: TypeAlias = quantizers.Quantize | quantizers.Quantizer | None


def bind_layer(
  module: Any,
  shape: tuple[int, ...],
  x: types.Array | None,
  input_scale: types.Scalar,
  progress: types.Scalar,
) -> tuple[Any, scans.Dense]:
  """Creates a layer's variables and binds them; call it in a compact method.

  Args:
    module: a layer with the attributes of `QuantDense`.
    shape: shape of the kernel, [..., features].
    x: the layer's inputs, which are quantized; None if only the stage is needed.
    input_scale: value of one unit of the input, a factor of the layer's scale.
    progress: progress of training, in [0, 1].

  Returns:
    The quantized inputs, and the rest of the layer, whose kernel has ``shape``.
  """
  if isinstance(module.scaling, str):
    types.check_choice('scaling', module.scaling, SCALINGS)
  elif not hasattr(module.scaling, 'coupling'):
    raise types.BadInput(
      f'scaling must be one of {", ".join(SCALINGS)}, or a Scaling such as '
      f'quantizers.mean_abs(); got {module.scaling!r}.'
    )
  arithmetic = sums.Arithmetic(module.precision, module.dtype)
  kernel = module.param('kernel', module.kernel_init, shape, module.param_dtype)
  stored = kernel.dtype
  shift = 0.0
  if module.use_bias:
    shift = module.param(
      'bias', module.bias_init, shape[-1:], module.param_dtype
    )
    shift = as_dtype(shift, arithmetic.total)
  quantizer, scale, scaling = None, 1.0, None
  if not module.has_variable(DEPLOYED, 'kernel'):
    scale, scaling = _scales(module.scaling, shape)
    if not module.has_variable(DEPLOYED, 'scale'):
      quantizer = _bind(module, 'kernel_quantizer', kernel, progress)
    elif scaling is not None:
      scaling = _Constant(module.get_variable(DEPLOYED, 'scale'))
  if x is not None:
    quantize = _bind(module, 'input_quantizer', x, progress)
    x = as_dtype(x if quantize is None else quantize(x), module.dtype)
  affine = scans.Affine(scale, 0.0)
  layer = scans.Dense(kernel, quantizer, scaling, affine)
  if module.is_mutable_collection(QUANTIZED) and not module.is_initializing():
    weights = layer.quantized
    seen = {
      'kernel': weights.astype(stored),
      'scale': jnp.ones(()) if scaling is None else scaling(kernel),
      'scaled_kernel': layer.rescale(weights).astype(stored),
    }
    for name, value in seen.items():
      module.sow(QUANTIZED, name, value, reduce_fn=lambda _, new: new)
  affine = scans.Affine(scale * input_scale, shift)
  return x, scans.Dense(kernel, quantizer, scaling, affine, arithmetic)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Constant:
  """A scaling that was computed before, from latent weights that are gone."""

  value: types.Array

  @property
  def coupling(self) -> str:
    """No weight changes it."""
    return 'none'

  def __call__(self, kernel: types.Array) -> types.Array:
    """Returns the scale, whatever the weights are."""
    del kernel
    return self.value


def _scales(scaling, shape):
  if isinstance(scaling, str):
    scale = math.prod(shape[:-1]) ** -0.5 if scaling == 'fan_in' else 1.0
    return scale, quantizers.mean_abs() if scaling == 'mean_abs' else None
  return 1.0, scaling


def _bind(module, name, x, progress):
  """Returns the quantizer in field ``name`` as a function of one array, or None."""
  quantizer = getattr(module, name)
  if quantizer is None:
    return None
  if isinstance(quantizer, quantizers.Quantizer):
    qparams = module.param(name, lambda key: quantizer.init(key, x))
    quantizer = quantizers.bind(quantizer, qparams)
  momentum = quantizers.spread_momentum(quantizer)
  if momentum is not None:
    spread = module.variable(
      SPREADS, name, lambda: quantizers.initial_spread(x)
    )
    # As seen before this batch, so that views that change nothing see the same.
    quantizer = quantizers.with_spread(quantizer, spread.value)
    if module.is_mutable_collection(SPREADS) and not module.is_initializing():
      spread.value = quantizers.next_spread(spread.value, x, momentum)
  state = None
  if quantizers.initial_state(quantizer, x) is not None:
    memory = module.variable(
      STATE, name, lambda: quantizers.initial_state(quantizer, x)
    )
    state = memory.value
    if module.is_mutable_collection(STATE):
      memory.value = quantizers.at_progress(quantizer, progress, state=state)(x)
  # Random quantizers draw in evaluation too, so they need a key there as well.
  key = module.make_rng(RNG) if quantizers.is_random(quantizer) else None
  return quantizers.at_progress(quantizer, progress, key=key, state=state)


def check_fields(module: nn.Module) -> None:
  """Raises `BadInput` for a field of a layer or a network that no layer could use.

  It is called when a module is made, by its ``__post_init__``.
  """
  fields = {name: getattr(module, name) for name in module.__dataclass_fields__}
  for name in fields.keys() & _COUNTS:
    types.check_integer(name, fields[name], 1)
  for name in fields.keys() & _TUPLES:
    check_counts(name, fields[name])
  for name in fields.keys() & _SIZES:
    value = fields[name]
    if isinstance(value, (tuple, list)):
      check_counts(name, value)
    elif value is not None or name not in _OPTIONAL:
      types.check_integer(name, value, 1)
  for name in fields.keys() & {*QUANTIZERS, 'activation_quantizer'}:
    _check_quantizer(name, fields[name])
  if 'precision' in fields:
    sums.Arithmetic(fields['precision'], fields['dtype'])
  if 'momentum' in fields:
    types.check_range('momentum', fields['momentum'], 0.0, 1.0)
  if 'epsilon' in fields:
    types.check_positive('epsilon', fields['epsilon'], finite=True)
  if 'pad_values' in fields:
    types.check_finite('pad_values', fields['pad_values'])
  if 'input_scale' in fields:
    types.check_positive('input_scale', fields['input_scale'], finite=True)


def check_counts(name: str, value: Any) -> None:
  """Raises `BadInput` unless ``value`` is a tuple or list of positive integers."""
  if not isinstance(value, (tuple, list)):
    raise types.BadInput(
      f'{name} must be a tuple of positive integers, such as (2, 2); got '
      f'{types.shown(value)}.'
    )
  for number in value:
    types.check_integer(name, number, 1)


def _check_quantizer(name, quantizer):
  if quantizer is None or isinstance(quantizer, quantizers.Quantizer):
    return
  if not _takes_one_argument(quantizer):
    raise types.BadInput(
      f'{name} must be a function such as quantizers.attach(...), a learned '
      f'Quantizer, or None; got {quantizer!r}.'
    )
  try:
    quantizers.at_progress(quantizer, 1.0)
  except types.BadInput as error:  # A staircase alone, for example.
    raise types.BadInput(f'{name} must be a quantizer: {error}') from None


def _takes_one_argument(quantizer):
  """Returns whether a quantizer can be called with one array, unlike an estimator."""
  try:
    inspect.signature(quantizer).bind(None)
  except TypeError:  # Raised for objects that are not callable, too.
    return False
  except ValueError:  # Some builtins have no signature to inspect.
    return True
  return True


def as_dtype(x: types.Array, dtype: Any) -> types.Array:
  """Returns ``x`` in this dtype; unchanged if the dtype is None."""
  return x if dtype is None else jnp.asarray(x, dtype)
