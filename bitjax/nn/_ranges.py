r"""Measures the range of a layer's inputs, example by example.

A quantizer of activations has one grid for all examples. If their range differs from
one to the next, as it does without normalisations, no grid suits all. Here every layer of
this library is intercepted, and of each example's inputs three numbers are taken: the least
and the largest, and the standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from flax import linen as nn
from flax import traverse_util
import jax.numpy as jnp

from bitjax import tree
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _calls
from bitjax.nn import _conv
from bitjax.nn import _layers

__all__ = ['InputRanges', 'input_ranges']

_SEEN, _SEPARATOR = 'input_ranges', '::'


class InputRanges(NamedTuple):
  """What enters a layer, before its input quantizer, for each example.

  Attributes:
    low: the least value, [examples].
    high: the largest value, [examples].
    std: the standard deviation over all values of an example, [examples].
  """

  low: types.Array
  high: types.Array
  std: types.Array


def input_ranges(
  model: nn.Module,
  variables: types.PyTree,
  images: types.Array,
  *,
  rngs: Mapping[str, types.Array] | None = None,
  **kwargs: Any,
) -> dict[str, InputRanges]:
  """Measures the range of the inputs of each `QuantConv` and `QuantDense`.

  Layers count whether they quantize or not. A pure function, which works inside ``jit``.

  Args:
    model: a linen model that calls such layers (an `MLP` applies stages instead).
    variables: the model's variables, as from ``model.init``.
    images: a batch, [examples, ...].
    rngs: random keys of the model's call.
    **kwargs: passed to the model's call, such as ``train=True``.

  Returns:
    Path of each layer -> `InputRanges`, in the order of the calls; a path is followed by a
    number from the second call on.

  Raises:
    BadInput: for a model that calls no such layer, or one inside ``nn.scan`` or the like.
  """
  kwargs = _calls.call_options(model, **kwargs)
  names: list[str] = []

  def intercepted(next_fun, args, kwargs, context):
    module = context.module
    ours = isinstance(module, (_layers.QuantDense, _conv.QuantConv))
    if ours and context.method_name == '__call__':
      path = '/'.join(module.path)
      calls = 1 + sum(name.split(' (')[0] == path for name in names)
      name = path if calls == 1 else f'{path} ({calls})'
      names.append(name)
      module.sow(_SEEN, f'{_SEPARATOR}{name}', _ranges(args[0]))
    return next_fun(*args, **kwargs)

  hidden = _calls.mutable_but('params', _binding.QUANTIZED, 'intermediates')
  with nn.intercept_methods(intercepted):
    _, updates = model.apply(
      variables,
      images,
      rngs=None if rngs is None else dict(rngs),
      mutable=hidden,
      **kwargs,
    )
  updates = cast(Mapping[str, Any], updates)
  flat: dict[Any, Any] = traverse_util.flatten_dict(updates.get(_SEEN, {}))
  found = {
    path[-1].removeprefix(_SEPARATOR): value
    for path, (value,) in flat.items()
    if path[-1].startswith(_SEPARATOR)
  }
  if not names:
    raise types.BadInput(
      'The model must call a QuantConv or a QuantDense; it has none.'
    )
  if missing := [name for name in names if name not in found]:
    raise types.BadInput(
      f'Layer {missing[0]!r} is called inside nn.scan, nn.vmap or the like, where it '
      'stands for many layers; input_ranges cannot look at it.'
    )
  return {name: found[name] for name in names}


def _ranges(x: types.Array) -> InputRanges:
  x = types.widened(x)
  axes = tuple(range(1, x.ndim))
  centred, scale = tree.centred(x, axes)
  return InputRanges(
    jnp.min(x, axes, initial=jnp.inf),
    jnp.max(x, axes, initial=-jnp.inf),
    jnp.std(centred, axis=axes) * jnp.reshape(scale, (x.shape[0],)),
  )
