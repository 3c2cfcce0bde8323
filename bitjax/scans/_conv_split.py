r"""Cuts a view of a convolution behind the stages that act on each entry by itself.

Moving weight (k, i, c) of a convolution (place k of the kernel, input channel i, output
channel c) by D changes one output channel, at every position p of an image b by the input
that place k meets there:

.. math::
  z_{bpc} \to z_{bpc} + D \, x_{b,p,k,i}, \qquad
  h = \mathrm{front}(z), \qquad \ell_b = \mathrm{loss}(\mathrm{rest}(h)_b, y_b).

The products z are summed before any scale; scales are the first stages of the front.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax import types
from bitjax.scans import _convolution
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = [
  'ConvSplit',
  'cut',
  'each_move',
  'has_sign_inputs',
  'obstacle',
  'patches',
  'places',
  'split',
  'take',
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConvSplit:
  """A view as ``rest(front(product(inputs, weights)))``.

  Attributes:
    inputs: x, [examples, *spatial, in].
    labels: y, [examples].
    weights: q(W), [*spatial, in / groups, out].
    product: the convolution.
    front: stages of each entry by itself.
    rest: the other stages, up to the logits.
  """

  inputs: types.Array
  labels: types.Array
  weights: types.Array
  product: _convolution.Convolution
  front: tuple[_stages.Stage, ...]
  rest: tuple[_stages.Stage, ...]

  def products(self) -> types.Array:
    """Returns z, [examples, *spatial', out], in a dtype as wide as the kernel's."""
    z = self.product(self.inputs, self.weights)
    return z.astype(types.promoted(z, self.weights))

  def patches(self) -> types.Array:
    """Returns x as a move meets it, [examples, positions, places, groups, in / groups].

    The inputs are those that the product multiplies, rounded if it rounds them.
    """
    x = patches(self.product, self.inputs)
    groups = self.product.groups
    return x.reshape(*x.shape[:3], groups, x.shape[-1] // groups)


def patches(
  product: _convolution.Convolution, inputs: types.Array
) -> types.Array:
  """Returns what the kernel meets, [examples, positions, places, in].

  The inputs are those that the product multiplies, rounded if it rounds them. Rows are
  copied, which is faster than `Convolution.patches` of all channels.
  """
  x = product.arithmetic.rounded(inputs)
  met, padding = places(product, x.shape[1:-1])
  x = x.reshape(x.shape[0], -1, x.shape[-1])
  x = jnp.pad(x, [(0, 0), (1, 0), (0, 0)])
  return x[:, met] + padding.astype(x.dtype)[None, :, :, None]


def places(
  product: _convolution.Convolution, spatial: tuple[int, ...]
) -> tuple[types.Array, types.Array]:
  """Returns what the places of a kernel meet, [positions, places] each.

  Args:
    product: the convolution.
    spatial: sizes of its inputs.

  Returns:
    Numbers of positions of the inputs, counted from 1, and 0 for padding; and what
    padding adds there, 0 elsewhere.
  """
  count = 1 + jnp.arange(math.prod(spatial), dtype=jnp.float32)
  count = count.reshape(1, *spatial, 1)
  numbered, padding = (
    found.reshape(-1, found.shape[-2])
    for found in product.patches(jnp.concatenate([count, 0 * count]))
  )
  return (numbered - padding).astype(jnp.int32), padding


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why a view cannot be cut, or None if it can."""
  if reason := _split.opaque(view):
    return reason
  if not isinstance(view.product, _convolution.Convolution):
    return 'its product is not a known convolution'
  if view.couples_examples:
    return 'normalisation by batch statistics couples its examples'
  if view.coupling != 'none':
    return (
      f'its scale couples the weights ({view.coupling}); use '
      'view.freeze_scale()'
    )
  return view.rounding


def cut(
  stages: tuple[_stages.Stage, ...],
) -> tuple[tuple[_stages.Stage, ...], tuple[_stages.Stage, ...]]:
  """Returns the first stages, which act on each entry by itself, and the others."""
  index = 0
  while index < len(stages) and _stages.is_entrywise(stages[index]):
    index += 1
  return stages[:index], stages[index:]


def split(view: _view.LayerView) -> ConvSplit:
  """Cuts a view that has no `obstacle`."""
  front, rest = cut(view.tail)
  scales: tuple[_stages.Stage, ...] = (view.affine,)
  if view.scaling is not None:
    scales = (_stages.Affine(view.scaling(view.kernel)), *scales)
  weights = _stages.Dense(view.kernel, view.quantizer).quantized
  return ConvSplit(
    view.inputs.astype(types.promoted(view.inputs, weights)),
    view.labels,
    weights,
    cast(_convolution.Convolution, view.product),
    (*scales, *front),
    rest,
  )


def take(parts: ConvSplit, index: types.Array) -> ConvSplit:
  """Returns the split of some examples; indices beyond the last stand for the last."""

  def of(x):
    return jnp.take(x, index, axis=0, mode='clip')

  return dataclasses.replace(
    parts,
    inputs=of(parts.inputs),
    labels=of(parts.labels),
    front=_stages.map_examples(parts.front, of),
    rest=_stages.map_examples(parts.rest, of),
  )


def each_move(
  parts: ConvSplit,
  changes: types.Array,
  z: types.Array,
  fn: Callable[[types.Array], Any],
) -> Any:
  """Returns ``fn`` of the products after every move, one move at a time.

  Moves of all output channels by the same place and input are one call, as each changes a
  channel of its own.

  Args:
    parts: some examples.
    changes: changes of the quantized weights, [moves, *kernel.shape].
    z: their products, [examples, *spatial', out].
    fn: maps moved products to an array, or a tree of them.

  Returns:
    The results of ``fn``, with leading axes [moves, places * in / groups].
  """
  x = jnp.transpose(parts.patches().astype(z.dtype), (2, 4, 0, 1, 3))
  weights, (*_, groups) = x.shape[0] * x.shape[1], x.shape
  x = x.reshape(weights, *x.shape[2:])
  changes = changes.astype(z.dtype).reshape(len(changes), weights, groups, -1)
  apart = z.reshape(len(z), -1, groups, changes.shape[-1])

  def one(weight):
    change, x = weight
    moved = (apart + delta[None, None] * x[..., None] for delta in change)
    found = [fn(m.reshape(z.shape)) for m in moved]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

  found = jax.lax.map(one, (jnp.swapaxes(changes, 0, 1), x))
  return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), found)


def has_sign_inputs(view: _view.LayerView) -> bool:
  """Returns whether a view's inputs are +1 and -1, and padding these or 0; static."""
  if not quantizers.is_sign(view.input_quantizer):
    return False
  product = cast(_convolution.Convolution, view.product)
  with jax.ensure_compile_time_eval():
    _, padding = places(product, view.inputs.shape[1:-1])
    return bool(np.isin(np.asarray(padding), (-1, 0, 1)).all())
