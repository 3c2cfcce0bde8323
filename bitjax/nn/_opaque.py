"""Views of layers of models that cannot be looked into: all behind them is opaque.

The layer is intercepted, and its inputs become the view's inputs. The tail is the rest of
the model, with the layer's output replaced. XLA drops the computations that precede the
layer, since nothing depends on them any more. A `QuantDense` or `QuantConv` provides the
view's quantizer and scales.

The model may update variables in its call, as a BatchNorm with ``train=True`` does:
updates are made and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
from typing import Any, cast

from flax import errors
from flax import linen as nn
import jax

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _calls
from bitjax.nn import _conv
from bitjax.nn import _layers
from bitjax.nn import _logits

__all__ = [
  'apply',
  'brings_its_own',
  'intercepted',
  'sound_calls',
  'view_of',
]

# A layer's inputs leave the model through a collection, as they may be traced inside
# it (`nn.remat`, `nn.jit`).
_SEEN = 'layer_view'
_OURS = (_layers.QuantDense, _conv.QuantConv)


def intercepted(
  model, variables, inputs, labels, layer, quantizer, kwargs, reason
):
  """Returns the view of a layer, with the rest of the model as an opaque stage."""
  path = _calls.path(layer)
  calls = []

  def record(next_fun, args, call_kwargs, context):
    module = context.module
    if module.path == path and context.method_name == '__call__':
      layer_inputs, *rest = args
      module.sow(_SEEN, 'inputs', layer_inputs)
      alone = module.clone(parent=None, name=None)
      calls.append((alone, rest, call_kwargs))
    return next_fun(*args, **call_kwargs)

  with nn.intercept_methods(record):
    output, seen = apply(model, variables, inputs, seen=_SEEN, **kwargs)
  classes = _logits.check(jax.tree.leaves(output), inputs.shape[0])
  _logits.check_classes(labels, classes)
  seen = _calls.descend(seen, path)
  if calls and seen is None:
    raise types.BadInput(
      f'Layer {layer!r} is called inside nn.scan, nn.vmap or the like, where it '
      'stands for many layers; a view needs a layer of its own.'
    )
  if len(calls) != 1:
    raise types.BadInput(
      f'Layer {layer!r} must be called once by the model; it was called '
      f'{len(calls)} times.'
    )
  ((module, rest, call_kwargs),) = calls
  (layer_inputs,) = seen['inputs']
  ours = isinstance(module, _OURS)
  if rest or (call_kwargs and not ours):
    raise types.BadInput(f'Layer {layer!r} must take its inputs only.')
  if ours and quantizer is not None:
    raise brings_its_own(layer)
  own = _calls.below(variables, path)
  behind = _Rest(model, path, tuple(kwargs.items()), variables, inputs)
  tail = (scans.Opaque(behind, reason),)
  if not ours:
    dense = scans.Dense(own['params']['kernel'])
    product = _Product(module, own)
    return view_of(
      layer_inputs, dense, labels, tail, quantizer, product=product
    )
  parts = module.apply(own, layer_inputs, method='parts', **call_kwargs)
  x, dense, product = cast(Any, parts)
  cast_first = scans.Opaque(_Cast(module.dtype), reason)
  return view_of(
    x,
    dense,
    labels,
    (cast_first, *tail),
    product=product,
    input_quantizer=_plain_quantizer(module, **call_kwargs),
  )


def _plain_quantizer(layer, progress=1.0):
  """Returns a layer's input quantizer, if it is an elementwise staircase."""
  quantize = layer.input_quantizer
  if quantize is None or isinstance(quantize, quantizers.Quantizer):
    return None
  if quantizers.is_random(quantize) or quantizers.is_stateful(quantize):
    return None
  bound = quantizers.at_progress(quantize, progress)
  return bound if hasattr(quantizers.staircase(bound), 'num_levels') else None


def apply(module, variables, *args, seen=None, **kwargs):
  """Calls a module and forgets its updates; returns collection ``seen`` too, if any."""
  mutable = _calls.mutable_but('params', 'intermediates', _binding.QUANTIZED)
  with sound_calls():
    output, updates = module.apply(variables, *args, mutable=mutable, **kwargs)
  return output if seen is None else (output, updates.get(seen, {}))


@contextlib.contextmanager
def sound_calls() -> Iterator[None]:
  """Says what to do, if a model draws random numbers inside, or lacks its variables."""
  try:
    yield
  except (errors.ScopeParamShapeError, errors.ScopeParamNotFoundError) as error:
    told = str(error).partition(' (https://')[0]
    raise types.BadInput(
      f'variables are those of another architecture; take those of this model. {told}'
    ) from None
  except errors.InvalidRngError as error:
    raise types.BadInput(
      'A view needs a model that draws no random numbers in its call; switch them '
      f'off, as by deterministic=True or train=False ({error}).'
    ) from None


def view_of(inputs, dense, labels, tail, quantizer=None, **others):
  """Returns the view of a layer that is a `scans.Dense` but for its product."""
  return scans.LayerView(
    inputs=inputs,
    kernel=dense.kernel,
    labels=labels,
    tail=tail,
    quantizer=dense.quantizer if quantizer is None else quantizer,
    scaling=dense.scaling,
    affine=dense.affine,
    arithmetic=dense.arithmetic,
    **others,
  )


def brings_its_own(layer):
  return types.BadInput(f'Layer {layer!r} brings its own quantizer; pass none.')


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Cast:
  dtype: Any

  def __call__(self, z):
    return _binding.as_dtype(z, self.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Product:
  """A product of inputs and a kernel: the layer itself, applied with that kernel."""

  module: nn.Module = dataclasses.field(metadata={'static': True})
  variables: types.PyTree

  def __call__(self, inputs: types.Array, kernel: types.Array) -> types.Array:
    params = {**self.variables['params'], 'kernel': kernel}
    variables = {**self.variables, 'params': params}
    return cast(types.Array, apply(self.module, variables, inputs))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Rest:
  """The model, with the output of one of its layers replaced."""

  model: nn.Module = dataclasses.field(metadata={'static': True})
  path: tuple[str, ...] = dataclasses.field(metadata={'static': True})
  kwargs: tuple[tuple[str, Any], ...] = dataclasses.field(
    metadata={'static': True}
  )
  variables: types.PyTree
  inputs: types.Array

  def __call__(self, z: types.Array) -> types.Array:
    replaced = False

    def replace(next_fun, args, kwargs, context):
      nonlocal replaced
      if context.module.path == self.path and context.method_name == '__call__':
        replaced = True
        return z
      return next_fun(*args, **kwargs)

    with nn.intercept_methods(replace):
      output = apply(
        self.model, self.variables, self.inputs, **dict(self.kwargs)
      )
    if not replaced:
      raise types.BadInput(
        f'Layer {"/".join(self.path)!r} must be called by the model each time; it '
        'was called when it was viewed, and is not now.'
      )
    return cast(types.Array, output)
