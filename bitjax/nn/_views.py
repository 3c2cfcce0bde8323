"""Views of a model's layers: transparent if what follows is a chain of known stages.

A model with a method ``stages`` (`bitjax.types.Staged`), such as an `MLP`, is viewed
stage by stage. In any other linen model the layer is intercepted, and its inputs become
the view's inputs. If it belongs to the chain of known layers with which the model ends
(`_chains`), their stages are the view's tail. Otherwise the tail is the rest of the model,
with the layer's output replaced. XLA drops the computations that precede the layer,
since nothing depends on them any more. A `QuantDense` or `QuantConv` in such a model
provides the view's quantizer and scales.

The model may update variables in its call, as a BatchNorm with ``train=True`` does:
updates are made and forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import inspect
from typing import Any, cast

from flax import errors
from flax import linen as nn
import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _calls
from bitjax.nn import _chains
from bitjax.nn import _conv
from bitjax.nn import _layers
from bitjax.nn import _mlp

__all__ = ['layer_view', 'network_view']

# A layer's inputs leave the model through a collection, as they may be traced inside
# it (`nn.remat`, `nn.jit`).
_SEEN = 'layer_view'
_OURS = (_layers.QuantDense, _conv.QuantConv)


def layer_view(
  model: nn.Module,
  variables: types.PyTree,
  inputs: types.Array,
  labels: types.Array,
  layer: str,
  *,
  quantizer: quantizers.Quantize | None = None,
  **kwargs: Any,
) -> scans.LayerView:
  """Returns a model as one of its layers sees it.

  Args:
    model: any linen model that maps inputs to logits. If it has a method ``stages``
      (see `types.Staged`), as an `MLP` has, its stages are applied to the inputs,
      flattened to [examples, fan_in].
    variables: the model's variables, as from ``model.init``.
    inputs: a batch, [examples, ...].
    labels: the batch's classes, [examples], integers.
    layer: the layer's name, with slashes between the names of nested modules;
      '' for a model that is a layer itself.
    quantizer: for layers of other libraries, the quantizer that the view applies to
      the kernel before the layer does; None for none. Stages, `QuantDense` and
      `QuantConv` have their own.
    **kwargs: passed to the model's call or its ``stages``, such as ``progress`` or
      ``train``, which models without these go without.

  Returns:
    A `scans.LayerView`. Its tail is opaque unless the model offers its stages, or the
    layer is a ``flax.linen.Dense`` or `QuantDense` that is followed only by these, by
    ``flax.linen.BatchNorm`` or `BatchNorm`, by ``jax.nn.relu``, and by the sign from
    `quantizers.attach`. These stages compute what the model does up to rounding.

  Raises:
    BadInput: if the model has no layer of that name with a kernel, calls it more than
      once, or inside ``nn.scan`` or ``nn.vmap``; if it draws random numbers; if labels are
      not one class for each example.
  """
  labels = _checked_labels(inputs, labels)
  if _is_staged(model):
    if quantizer is not None:
      raise types.BadInput(
        f"The stages of {type(model).__name__} bring the kernel's quantizer; "
        'pass none.'
      )
    return _transparent(model, variables, inputs, labels, layer, kwargs)
  kwargs = _calls.call_options(model, **kwargs)
  return _looked_into(
    model, variables, inputs, labels, layer, quantizer, kwargs
  )


def network_view(
  model: nn.Module,
  variables: types.PyTree,
  inputs: types.Array,
  labels: types.Array,
  *,
  layers: str | Sequence[str] = 'all',
  **kwargs: Any,
) -> scans.LayerView:
  """Returns a network viewed as one layer, so that the weights of many can move.

  Args:
    model: an `MLP`, another model that offers its stages (`types.Staged`), or a model
      of the layers that `layer_view` looks into, such as a `ResNet`.
    variables: the model's variables, as from ``model.init``.
    inputs: a batch, [examples, ...].
    labels: the batch's classes, [examples], integers.
    layers: which layers move: ``'all'`` that have a kernel; ``'quantized'``, those
      with a quantizer of the kernel, since first and last layers mostly have none; or
      their names, as for `layer_view`. The others are constants.
    **kwargs: passed to the model's call or its ``stages``, such as ``progress`` or
      ``train``, which models without these go without.

  Returns:
    A `scans.LayerView` whose kernel, [weights], joins the kernels of these layers in
    the order of their calls; ``view.product.split`` splits such a vector into kernels.

  Raises:
    BadInput: for a model that cannot be looked into, or does not call each of these
      layers once; for other ``layers``, or none; if labels are not one class for
      each example; or if `scans.network_view` raises it.
  """
  labels = _checked_labels(inputs, labels)
  if _is_staged(model):
    named = _stages(model, variables, inputs, kwargs)
    x, stages = _mlp.flatten(inputs), list(named.values())
    kinds = scans.Dense | scans.Conv
    names = [name for name, s in named.items() if isinstance(s, kinds)]
    wanted = names
  else:
    kwargs = _calls.call_options(model, **kwargs)
    found = _whole(model, variables, inputs, kwargs)
    x, stages = found.inputs, [found.layer, *found.stages]
    names = ['/'.join(path) for path in found.paths]
    wanted = _kernel_paths(variables)
  numbers = _numbers(model, layers, names, wanted)
  return scans.network_view(x, labels, stages, numbers)


def _whole(model, variables, inputs, kwargs):
  """Returns the first layer of a model that has a kernel, and all behind it."""
  paths = [_calls.path(layer) for layer in _kernel_paths(variables)]
  try:
    return _find(model, variables, inputs, kwargs, paths)
  except _chains.Unknown as why:
    raise types.BadInput(
      f'network_view cannot look into {type(model).__name__}: {why}. Look at its '
      'layers one by one (layer_view).'
    ) from None


def _numbers(model, layers, names, wanted):
  """Returns what `scans.network_view` calls those among layers of these names."""
  if isinstance(layers, str):
    types.check_choice('layers', layers, ('all', 'quantized'))
  else:
    for layer in (wanted := list(layers)):
      _check_layer(layer, names)
  for layer in wanted:
    if (count := names.count(layer)) != 1:
      raise types.BadInput(
        'network_view needs layers that the model calls once, behind its first one; '
        f'{type(model).__name__} calls {layer!r} {count} times behind {names[0]!r}. '
        'Look at its layers one by one (layer_view).'
      )
  if isinstance(layers, str):
    return layers
  return [names.index(layer) for layer in layers]


def _is_staged(model):
  # A field may be called stages as well, as that of a `ResNet` is.
  stages = getattr(type(model), 'stages', None)
  return inspect.isfunction(stages) and 'stages' not in vars(model)


def _checked_labels(inputs, labels):
  types.check_labels('labels', labels, inputs.shape[0])
  return jnp.asarray(labels)


def _apply(module, variables, *args, seen=None, **kwargs):
  """Calls a module and forgets its updates; returns collection ``seen`` too, if any."""
  mutable = _calls.mutable_but('params', 'intermediates', _binding.QUANTIZED)
  with _no_random_numbers():
    output, updates = module.apply(variables, *args, mutable=mutable, **kwargs)
  return output if seen is None else (output, updates.get(seen, {}))


@contextlib.contextmanager
def _no_random_numbers():
  try:
    yield
  except errors.InvalidRngError as error:
    raise types.BadInput(
      'A view needs a model that draws no random numbers in its call; switch them '
      f'off, as by deterministic=True or train=False ({error}).'
    ) from None


def _stages(model, variables, inputs, kwargs) -> dict[str, scans.Stage]:
  kwargs = _calls.call_options(model, 'stages', **kwargs)
  stages = _apply(model, variables, inputs, method='stages', **kwargs)
  return cast(dict[str, scans.Stage], stages)


def _transparent(model, variables, inputs, labels, layer, kwargs):
  stages = _stages(model, variables, inputs, kwargs)
  names = list(stages)
  _check_layer(layer, [n for n in names if isinstance(stages[n], scans.Dense)])
  index = names.index(layer)
  x = _mlp.flatten(inputs)
  for name in names[:index]:
    x = stages[name](x)
  dense = cast(scans.Dense, stages[layer])
  tail = tuple(_frozen(stages[name]) for name in names[index + 1 :])
  return _view(x, dense, labels, tail)


def _looked_into(model, variables, inputs, labels, layer, quantizer, kwargs):
  """Returns the view of a layer of any linen model."""
  _check_layer(layer, _kernel_paths(variables))
  path = _calls.path(layer)
  try:
    found = _find(model, variables, inputs, kwargs, [path])
  except _chains.Unknown as why:
    return _intercepted(
      model, variables, inputs, labels, layer, quantizer, kwargs, str(why)
    )
  if quantizer is not None and issubclass(found.kind, _OURS):
    raise _brings_its_own(layer)
  conv = isinstance(found.layer, scans.Conv)
  return _view(
    found.inputs,
    found.layer.layer if conv else found.layer,
    labels,
    tuple(map(_frozen, found.stages)),
    quantizer,
    product=found.layer.product if conv else None,
    input_quantizer=found.input_quantizer,
  )


def _find(model, variables, inputs, kwargs, paths):
  with _no_random_numbers():
    return _chains.find(model, variables, inputs, kwargs, paths)


def _intercepted(
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
    _, seen = _apply(model, variables, inputs, seen=_SEEN, **kwargs)
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
    raise _brings_its_own(layer)
  own = _calls.below(variables, path)
  behind = _Rest(model, path, tuple(kwargs.items()), variables, inputs)
  tail = (scans.Opaque(behind, reason),)
  if not ours:
    dense = scans.Dense(own['params']['kernel'])
    product = _Product(module, own)
    return _view(layer_inputs, dense, labels, tail, quantizer, product=product)
  parts = module.apply(own, layer_inputs, method='parts', **call_kwargs)
  x, dense, product = cast(Any, parts)
  cast_first = scans.Opaque(_Cast(module.dtype), reason)
  return _view(
    x,
    dense,
    labels,
    (cast_first, *tail),
    product=product,
    input_quantizer=_plain_quantizer(module, **call_kwargs),
  )


def _plain_quantizer(layer, progress=1.0):
  """Returns a layer's input quantizer, if it is neither learned nor has a memory."""
  quantize = layer.input_quantizer
  if quantize is None or isinstance(quantize, quantizers.Quantizer):
    return None
  if quantizers.is_random(quantize) or quantizers.is_stateful(quantize):
    return None
  return quantizers.at_progress(quantize, progress)


def _view(inputs, dense, labels, tail, quantizer=None, **others):
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


def _brings_its_own(layer):
  return types.BadInput(f'Layer {layer!r} brings its own quantizer; pass none.')


def _frozen(stage):
  layers = scans.Dense | scans.Conv | scans.Residual
  return stage.freeze() if isinstance(stage, layers) else stage


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
    return cast(types.Array, _apply(self.module, variables, inputs))


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
      output = _apply(
        self.model, self.variables, self.inputs, **dict(self.kwargs)
      )
    if not replaced:
      raise types.BadInput(
        f'Layer {"/".join(self.path)!r} must be called by the model each time; it '
        'was called when it was viewed, and is not now.'
      )
    return cast(types.Array, output)


def _check_layer(layer, layers):
  if layer not in layers:
    raise types.BadInput(
      f'The model has no layer {layer!r} with a kernel; it has '
      f'{", ".join(map(repr, sorted(layers)))}.'
    )


def _kernel_paths(variables):
  paths = jax.tree.leaves_with_path(variables['params'])
  keys = [[str(getattr(k, 'key', k)) for k in path] for path, _ in paths]
  return ['/'.join(key[:-1]) for key in keys if key[-1] == 'kernel']
