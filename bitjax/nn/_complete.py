r"""Completes checkpoints for quantized models: what is new is named, nothing is invented.

Flax numbers layers by class. A ``Dense`` that becomes a `QuantDense` is therefore called
``QuantDense_0``, and those behind it move up: weights that are matched by name would go
to the wrong layers, and the layer without a match would begin at random.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
import re
from typing import Any, TypeAlias

from flax import core
from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _blocks
from bitjax.nn import _calls
from bitjax.nn import _silence

__all__ = ['complete']

_Path: TypeAlias = tuple[str, ...]
# Collections that a model writes and does not begin with.
_ASIDE = (_binding.DEPLOYED, _binding.QUANTIZED, 'intermediates')


def complete(
  model: nn.Module,
  variables: types.PyTree,
  key: types.Array,
  *args: Any,
  names: Mapping[str, str] | None = None,
  **kwargs: Any,
) -> types.PyTree:
  """Adds the variables that a checkpoint lacks, such as those of learned quantizers.

  They are initialised from the checkpoint's own weights, and from the activations
  that these produce from the inputs. Variables of the checkpoint stay as they are.
  Layers that would begin silent warn, as at initialisation, unless this is jitted.

  Args:
    model: a model with quantized layers.
    variables: variables of a full-precision model with the same shapes.
    key: random key for the new variables.
    *args: inputs of the model.
    names: the names of the model's layers that have another one in the checkpoint,
      as in ``{'QuantDense_0': 'Dense_0', 'Dense_0': 'Dense_1'}``; with slashes
      between those of nested modules. None if all names are the same.
    **kwargs: keyword arguments of the model's call; a model without ``train`` or
      ``progress`` is called without.

  Returns:
    All variables of the model.

  Raises:
    BadInput: for a checkpoint that lacks variables (parameters or batch statistics)
      other than those of quantizers, learned thresholds and activations, that holds variables which the model does
      not have, or of another shape, and for names that neither of them has. It says
      which names would fit, if only one choice does.
  """
  kwargs = _calls.call_options(model, **kwargs)
  old = traverse_util.flatten_dict(core.unfreeze(variables))
  rngs = {'params': key, _binding.RNG: jax.random.fold_in(key, 1)}
  wanted = _wanted(model, rngs, args, kwargs)
  given, old = old, _renamed(old, wanted, names or {})
  _check(old, wanted, given)
  hidden = core.DenyList((_binding.QUANTIZED, 'intermediates'))
  with _silence.looking():
    _, new = model.apply(
      traverse_util.unflatten_dict(old),
      *args,
      rngs=rngs,
      mutable=hidden,
      **kwargs,
    )
  flat = traverse_util.flatten_dict(core.unfreeze(new))
  return traverse_util.unflatten_dict(flat | old)


def _wanted(model, rngs, args, kwargs) -> dict[_Path, tuple[int, ...]]:
  """Returns the shapes of the model's variables, in the order of their creation."""
  order: list[_Path] = []

  def init(rngs):
    found = core.unfreeze(model.init(rngs, *args, **kwargs))
    flat = traverse_util.flatten_dict(found)
    order.extend(flat)  # What leaves this function is sorted by name.
    return flat

  shapes = jax.eval_shape(init, rngs)
  return {path: shapes[path].shape for path in order}


def _renamed(old, wanted, names):
  """Returns the checkpoint's variables under the model's names."""
  ours = {_calls.path(our): _calls.path(their) for our, their in names.items()}
  for what, holder, given, found in (
    ('model', 'keys', ours, wanted),
    ('checkpoint', 'values', ours.values(), old),
  ):
    for layer in given:
      if not any(path[1 : 1 + len(layer)] == layer for path in found):
        raise types.BadInput(
          f'names must have layers of the {what} as {holder}; it has no '
          f'{"/".join(layer)!r}.'
        )
  if len(set(ours.values())) < len(ours):
    raise types.BadInput(
      f'names must name each layer of the checkpoint once; got {dict(names)}.'
    )
  moved: dict[_Path, Any] = {}
  # The longest name first, so that a layer in a renamed block can have its own.
  pairs = sorted(ours.items(), key=lambda pair: -len(pair[1]))
  for (collection, *rest), leaf in old.items():
    path = tuple(rest)
    for our, their in pairs:
      if path[: len(their)] == their:
        path = our + path[len(their) :]
        break
    if (collection, *path) in moved:
      raise types.BadInput(
        f'names must name every layer that moves; two would be {"/".join(path)}.'
      )
    moved[collection, *path] = leaf
  return moved


def _check(old, wanted, given):
  """Checks variables under the model's names; ``given`` has the checkpoint's."""
  old, given = _shapes(old), _shapes(given)
  lacking = [p for p in wanted if p not in old and not _may_be_new(p)]
  unused = [p for p in old if p not in wanted]
  differing = [p for p in wanted if p in old and old[p] != wanted[p]]
  if not (lacking or unused or differing):
    return
  parts = [
    f'it lacks {_listed(lacking)}' if lacking else '',
    f'the model does not have its {_listed(unused)}' if unused else '',
    *(
      f'{_listed([p])} is {list(old[p])} there and {list(wanted[p])} in the model'
      for p in differing[:1]
    ),
  ]
  proposal = _proposal(given, wanted)
  raise types.BadInput(
    f'variables must be a checkpoint of this model: {"; ".join(filter(None, parts))}.'
    + (f' By shapes and order, pass names={proposal}.' if proposal else '')
  )


def _shapes(variables):
  return {
    path: jnp.shape(leaf)
    for path, leaf in variables.items()
    if path[0] not in _ASIDE
  }


def _may_be_new(path):
  """Whether a variable may be initialised: only those of layers that may be new."""
  return _of_quantizer(path) or path[-2].startswith(_blocks.ADDED)


def _of_quantizer(path):
  return any(name in _binding.QUANTIZERS for name in path)


def _listed(paths):
  names = [
    '/'.join(path[1:] if path[0] == 'params' else path) for path in paths
  ]
  more = f' and {len(names) - 4} more' if len(names) > 4 else ''
  return ', '.join(names[:4]) + more


def _proposal(old, wanted):
  """Returns the names that fit by shapes and order, where only one choice does."""
  ours, theirs = _layers(wanted), _layers(old)
  if collections.Counter(ours.values()) != collections.Counter(theirs.values()):
    return None
  kinds: dict[Any, list[str]] = collections.defaultdict(list)
  for layer in sorted(theirs, key=_natural):
    kinds[theirs[layer]].append(layer)
  for layers in kinds.values():
    # Layers of several series, such as Conv_0 and Dense_0, have no order by name.
    if len({re.sub(r'\d+', '', layer) for layer in layers}) > 1:
      return None
  pairs = {layer: kinds[kind].pop(0) for layer, kind in ours.items()}
  return {ours: theirs for ours, theirs in pairs.items() if ours != theirs}


def _layers(shapes):
  """Maps each layer to the shapes of its own parameters, without its quantizers'."""
  found: dict[str, list[Any]] = collections.defaultdict(list)
  for path, shape in shapes.items():
    if path[0] == 'params' and not _of_quantizer(path):
      found['/'.join(path[1:-1])].append((path[-1], tuple(shape)))
  return {layer: tuple(sorted(own)) for layer, own in found.items()}


def _natural(name):
  return [
    int(word) if word.isdigit() else word for word in re.split(r'(\d+)', name)
  ]
