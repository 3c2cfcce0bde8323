r"""Views a whole network as one layer, whose kernel holds all of its weights.

.. math::
  W = (W_1, \dots, W_n) \in \mathbb R^{|W_1| + \dots + |W_n|}, \qquad
  \ell = \mathrm{loss}\bigl(\mathrm{network}(x; q(W_1), \dots, q(W_n)), y\bigr)

Every question about a layer can then be asked about the network: all layers share a
budget, and a step moves all of them. The gains of single moves are those of each
layer with the others frozen, so they keep their fast paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax import types
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['Network', 'network_view']


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
  """The product ``(inputs, weights) -> logits`` of a view of a whole network.

  Attributes:
    stages: all stages, in order. Of the kernels that move only the shapes matter.
    moving: numbers of the layers whose weights move, among all `Dense` and `Conv`
      stages, body before shortcut; the others are frozen.
  """

  stages: tuple[_stages.Stage, ...]
  moving: tuple[int, ...] = dataclasses.field(metadata={'static': True})

  @property
  def layers(self) -> tuple[_stages.Dense, ...]:
    """The layers whose weights move, in order, without the products of convolutions."""
    every = [*filter(_is_layer, _stages.flat(self.stages))]
    return tuple(_dense(every[number]) for number in self.moving)

  def __call__(self, inputs: types.Array, weights: types.Array) -> types.Array:
    """Returns the logits, for the quantized weights of all layers, [weights]."""
    return _stages.apply(self._with(weights, quantizer=None), inputs)

  def split(self, vector: types.Array) -> list[types.Array]:
    """Splits a vector of [..., weights] into kernels, ``[..., *kernel.shape]`` each."""
    shapes = [layer.kernel.shape for layer in self.layers]
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
    parts = jnp.split(vector, ends[:-1], axis=-1)
    return [
      part.reshape(*vector.shape[:-1], *shape)
      for part, shape in zip(parts, shapes, strict=True)
    ]

  def views(self, view: _view.LayerView) -> Iterator[_view.LayerView]:
    """Yields each layer's view, the others frozen at the weights of ``view``."""
    stages = self._with(view.kernel)
    frozen = _stages.freeze(stages)
    before = view.input_quantizer
    numbers = itertools.count()
    yield from self._each(
      view, numbers, stages, frozen, view.inputs, (), before
    )

  def _each(self, view, numbers, stages, frozen, x, tail, before: Any):
    """Yields the views of layers in a branch, whose output it returns.

    Args:
      view: the view of the network.
      numbers: an iterator of the numbers of layers.
      stages: the stages of the branch.
      frozen: the same stages, frozen.
      x: what the branch receives.
      tail: the frozen stages behind it.
      before: the quantizer whose levels ``x`` has, or None.
    """
    for place, stage in enumerate(stages, 1):
      rest = (*frozen[place:], *tail)
      if isinstance(stage, _stages.Residual):
        held = frozen[place - 1]
        y = _stages.apply(stage.shortcut, x)
        around = (_stages.Add(y), *rest)
        z = yield from self._each(
          view, numbers, stage.body, held.body, x, around, before
        )
        around = (_stages.Add(z), *rest)
        yield from self._each(
          view, numbers, stage.shortcut, held.shortcut, x, around, before
        )
        x, before = z + y, None
        continue
      if _is_layer(stage) and next(numbers) in self.moving:
        dense = _dense(stage)
        yield _view.LayerView(
          x,
          dense.kernel,
          view.labels,
          rest,
          quantizer=dense.quantizer,
          affine=dense.affine,
          product=getattr(stage, 'product', None),
          arithmetic=dense.arithmetic,
          input_quantizer=before,
        )
      x, before = stage(x), _levels_of(stage)
    return x

  def _with(self, weights, **others):
    kernels = iter(self.split(weights))

    def replaced(number, stage):
      if number not in self.moving:
        return stage
      dense = dataclasses.replace(_dense(stage), kernel=next(kernels), **others)
      if isinstance(stage, _stages.Conv):
        return dataclasses.replace(stage, layer=dense)
      return dense

    return _map_layers(replaced, self.stages)


def network_view(
  inputs: types.Array,
  labels: types.Array,
  stages: Sequence[_stages.Stage],
  layers: str | Sequence[int] = 'all',
  *,
  freeze_scale: bool = False,
) -> _view.LayerView:
  """Returns the view of a whole network as if it were one layer.

  Args:
    inputs: what the first stage receives, [examples, ...].
    labels: class of each example, [examples], integers.
    stages: the stages of the network.
    layers: which layers move: ``'all'``, ``'quantized'`` (those with a quantizer), or
      their numbers among all `Dense` and `Conv` stages, body before shortcut. They
      share one quantizer, an elementwise staircase, or have none. The others are
      constants.
    freeze_scale: whether scales that layers compute from their weights, such as means of
      magnitudes, are held at those of the given weights. No flip that keeps
      magnitudes changes such a mean.

  Returns:
    A `LayerView` with a kernel of [weights], the latent weights of the layers that
    move, in order, and a `Network` as its ``product``, which splits such a vector.
    Stages before the first of these layers are applied to the inputs.

  Raises:
    BadInput: if there is no such layer, if layers differ in their quantizers, or if a
      quantizer or a scale couples the weights.
  """
  every = [*filter(_is_layer, _stages.flat(tuple(stages)))]
  moving = _moving(layers, every)
  if freeze_scale:
    stages = _map_layers(
      lambda n, s: _with_constant_scale(s) if n in moving else s, stages
    )
    every = [*filter(_is_layer, _stages.flat(tuple(stages)))]
  for number in moving:
    _check(number, _dense(every[number]), _dense(every[moving[0]]))
  held = _map_layers(lambda n, s: s if n in moving else s.freeze(), stages)
  lead, first, seen = 0, moving[0], 0
  for stage in held:
    seen += len([*filter(_is_layer, _stages.flat((stage,)))])
    if seen > first:
      break
    lead += 1
  skipped = sum(_is_layer(stage) for stage in _stages.flat(held[:lead]))
  return _view.LayerView(
    inputs=jax.jit(_stages.apply)(held[:lead], inputs) if lead else inputs,
    kernel=jnp.concatenate(
      [_dense(every[number]).kernel.reshape(-1) for number in moving]
    ),
    labels=labels,
    tail=(),
    quantizer=_dense(every[first]).quantizer,
    product=Network(held[lead:], tuple(n - skipped for n in moving)),
    input_quantizer=_levels_of(held[lead - 1]) if lead else None,
  )


def _moving(layers, every):
  """Returns the numbers of the layers that move, in order."""
  if isinstance(layers, str):
    types.check_choice('layers', layers, ('all', 'quantized'))
    found = [
      number
      for number, stage in enumerate(every)
      if layers == 'all' or _dense(stage).quantizer is not None
    ]
  elif isinstance(layers, Sequence):
    found = list(layers)
    for number in found:
      types.check_integer('layers', number, 0)
    found = sorted(set(found))
  else:
    found = []
  if not found or found[-1] >= len(every):
    raise types.BadInput(
      'layers must be all, quantized or numbers, and some of the Dense and Conv '
      f'stages, of which there are {len(every)}; got {types.shown(layers)}.'
    )
  return tuple(found)


def _is_layer(stage):
  return isinstance(stage, _stages.Dense | _stages.Conv)


def _dense(stage):
  """Returns a layer without its product."""
  return stage.layer if isinstance(stage, _stages.Conv) else stage


def _with_constant_scale(stage):
  if isinstance(stage, _stages.Conv):
    return dataclasses.replace(stage, layer=stage.layer.freeze_scale())
  return stage.freeze_scale()


def _map_layers(fn, stages):
  """Returns stages with ``fn(number, stage)`` in the place of each layer."""
  numbers = itertools.count()

  def of(stage):
    if isinstance(stage, _stages.Residual):
      body = tuple(map(of, stage.body))
      return _stages.Residual(body, tuple(map(of, stage.shortcut)))
    return fn(next(numbers), stage) if _is_layer(stage) else stage

  return tuple(map(of, stages))


def _levels_of(stage) -> Any:
  """Returns the quantizer whose levels a stage's outputs are; None if it is none."""
  if isinstance(stage, _stages.Activation):
    return stage.quantizer
  fn = stage.fn if isinstance(stage, _stages.Pointwise) else None
  return fn if hasattr(quantizers.staircase(fn), 'num_levels') else None


def _check(number, layer, first):
  if layer.scaling is not None:
    raise types.BadInput(
      f"The scale of layer {number} couples its weights; a network's view needs "
      'constant scales: pass freeze_scale=True.'
    )
  kinds = [jax.tree.structure(each.quantizer) for each in (layer, first)]
  if kinds[0] != kinds[1]:
    raise types.BadInput(
      'All layers of a network must have the same quantizer; layer '
      f'{number} has {layer.quantizer}, the first {first.quantizer}. Choose those '
      "that share one (layers='quantized', or their names)."
    )
  staircase = quantizers.staircase(layer.quantizer)
  if layer.quantizer is not None and not hasattr(staircase, 'num_levels'):
    raise types.BadInput(
      'The quantizer of a network must be an elementwise staircase; '
      f'{staircase} does not say that it is.'
    )
  leaves = [jax.tree.leaves(each.quantizer) for each in (layer, first)]
  same = [_same(*pair) for pair in zip(*leaves, strict=True)]
  if None in same and False not in same:
    raise types.BadInput(
      'The parameters of the quantizers of a network must be known, to see that they '
      f'are the same; those of layer {number} are traced. Do not pass them through '
      'jax.jit, or give all layers the same object.'
    )
  if not all(same):
    raise types.BadInput(
      'All layers of a network must have the same quantizer; that of layer '
      f'{number} has other parameters than that of the first. Look at the layers '
      'one by one (layer_view).'
    )


def _same(a, b):
  """Whether two leaves are equal; None if they are traced, and may be."""
  if a is b:
    return True
  traced = isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer)
  return None if traced else np.array_equal(a, b)
