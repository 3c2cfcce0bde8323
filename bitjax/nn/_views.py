"""Views of a model's layers: transparent if what follows is known step by step.

A model with a method ``stages`` (`bitjax.types.Staged`), such as an `MLP`, is viewed
stage by stage. Any other linen model is traced and followed back from its logits to the
layer (`_chains`). If all steps are known, they are the view's tail; if not, the tail is
the rest of the model as one opaque stage, which says why (`_opaque`).
"""

from __future__ import annotations

from collections.abc import Sequence
import inspect
from typing import Any, cast

from flax import linen as nn
import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.nn import _calls
from bitjax.nn import _chains
from bitjax.nn import _logits
from bitjax.nn import _mlp
from bitjax.nn import _opaque

__all__ = ['layer_view', 'network_view']


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
    A `scans.LayerView`. If the model offers no stages, its tail is found in the traced
    model: ``Dense``, ``Conv`` and ``BatchNorm`` of ``flax.linen``, those of this package,
    quantizers from `quantizers.attach`, sums of two branches, means over positions,
    and whatever treats each entry or each example by itself (activations, pooling,
    padding, reshaping). These stages compute what the model does up to rounding. The
    tail is one opaque stage, with its ``reason``, if anything else follows, such as
    16-bit arithmetic, or a product of two values that depend on the layer.

  Raises:
    BadInput: if the model has no layer of that name with a kernel, calls it more than
      once, or inside ``nn.scan`` or ``nn.vmap``, or uses its kernel elsewhere too; if it
      draws random numbers, or returns anything but logits, [examples, classes]; if the
      variables are those of another architecture; if inputs are no array, or labels not
      one class for each example (traced labels that are no classes of the logits make
      the loss NaN).
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
  freeze_scale: bool = False,
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
    freeze_scale: whether scales that layers compute from their weights (``scaling=
      'mean_abs'``) are held constant; without, layers with such a scale are refused.
    **kwargs: passed to the model's call or its ``stages``, such as ``progress`` or
      ``train``, which models without these go without.

  Returns:
    A `scans.LayerView` whose kernel, [weights], joins the kernels of these layers in
    the order of their calls; ``view.product.split`` splits such a vector into kernels.

  Raises:
    BadInput: for a model that cannot be looked into, or does not call each of these
      layers once; for other ``layers``, or none; for variables of another
      architecture; if labels are not one class for each example; or if
      `scans.network_view` raises it.
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
    x, first = found.inputs, found.layer
    if found.product is not None:
      first = scans.Conv(first, found.product)
    stages = [first, *found.stages]
    names = ['/'.join(path) for path in found.paths]
    wanted = _kernel_paths(variables)
  numbers = _numbers(model, layers, names, wanted)
  return _checked(
    scans.network_view(x, labels, stages, numbers, freeze_scale=freeze_scale)
  )


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
  if not hasattr(inputs, 'shape'):
    raise types.BadInput(
      'inputs must be one array, [examples, ...]; got a '
      f'{type(inputs).__name__}. What else a model takes are keywords of its call.'
    )
  types.check_labels('labels', labels, inputs.shape[0])
  return jnp.asarray(labels)


def _stages(model, variables, inputs, kwargs) -> dict[str, scans.Stage]:
  kwargs = _calls.call_options(model, 'stages', **kwargs)
  stages = _opaque.apply(model, variables, inputs, method='stages', **kwargs)
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
  return _checked(_opaque.view_of(x, dense, labels, tail))


def _checked(view):
  """Returns a view whose logits and labels fit, as far as that is known."""
  if not view.normalizes_by_batch:  # It may name an axis that is mapped later.
    logits = jax.eval_shape(view.logits, view.kernel)
    _logits.check_classes(
      view.labels, _logits.check([logits], view.labels.size)
    )
  return view


def _looked_into(model, variables, inputs, labels, layer, quantizer, kwargs):
  """Returns the view of a layer of any linen model."""
  _check_layer(layer, _kernel_paths(variables))
  path = _calls.path(layer)
  try:
    found = _find(model, variables, inputs, kwargs, [path])
  except _chains.Unknown as why:
    return _opaque.intercepted(
      model, variables, inputs, labels, layer, quantizer, kwargs, str(why)
    )
  if quantizer is not None and found.ours:
    raise _opaque.brings_its_own(layer)
  _logits.check_classes(labels, found.classes)
  return _opaque.view_of(
    found.inputs,
    found.layer,
    labels,
    tuple(map(_frozen, found.stages)),
    quantizer,
    product=found.product,
    input_quantizer=found.input_quantizer,
  )


def _find(model, variables, inputs, kwargs, paths):
  with _opaque.sound_calls():
    return _chains.find(model, variables, inputs, kwargs, paths)


def _frozen(stage):
  layers = scans.Dense | scans.Conv | scans.Residual
  return stage.freeze() if isinstance(stage, layers) else stage


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
