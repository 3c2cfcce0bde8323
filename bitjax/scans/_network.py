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
    layers: the dense layers, in order; of their kernels only the shapes matter.
    stages_after: the stages that follow each dense layer.
  """

  layers: tuple[_stages.Dense, ...]
  stages_after: tuple[tuple[_stages.Stage, ...], ...]

  @property
  def stages(self) -> tuple[_stages.Stage, ...]:
    """All stages that are not dense layers."""
    return tuple(itertools.chain.from_iterable(self.stages_after))

  def __call__(self, inputs: types.Array, weights: types.Array) -> types.Array:
    """Returns the logits, for the quantized weights of all layers, [weights]."""
    x = inputs
    for layer, stages in self._with(weights):
      x = dataclasses.replace(layer, quantizer=None)(x)
      for stage in stages:
        x = stage(x)
    return x

  def split(self, vector: types.Array) -> list[types.Array]:
    """Splits a vector of [..., weights] into kernels of [..., fan_in, units]."""
    shapes = [layer.kernel.shape for layer in self.layers]
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
    parts = jnp.split(vector, ends[:-1], axis=-1)
    return [
      part.reshape(*vector.shape[:-1], *shape)
      for part, shape in zip(parts, shapes, strict=True)
    ]

  def views(self, view: _view.LayerView) -> Iterator[_view.LayerView]:
    """Yields each layer's view, the others frozen at the weights of ``view``."""
    layers = [layer for layer, _ in self._with(view.kernel)]
    x = view.inputs
    for number, layer in enumerate(layers):
      tail = list(self.stages_after[number])
      for later in range(number + 1, len(layers)):
        tail += [layers[later].freeze(), *self.stages_after[later]]
      yield _view.LayerView(
        x,
        layer.kernel,
        view.labels,
        tuple(tail),
        quantizer=layer.quantizer,
        affine=layer.affine,
        arithmetic=layer.arithmetic,
      )
      x = layer(x)
      for stage in self.stages_after[number]:
        x = stage(x)

  def _with(self, weights):
    kernels = self.split(weights)
    for layer, kernel, stages in zip(
      self.layers, kernels, self.stages_after, strict=True
    ):
      yield dataclasses.replace(layer, kernel=kernel), stages


def network_view(
  inputs: types.Array, labels: types.Array, stages: Sequence[_stages.Stage]
) -> _view.LayerView:
  """Returns the view of a whole network as if it were one layer.

  Args:
    inputs: what the first stage receives, [examples, fan_in].
    labels: class of each example, [examples], integers.
    stages: the stages of the network, the first of which is a `Dense`. All dense
      layers share one quantizer, an elementwise staircase, or have none.

  Returns:
    A `LayerView` with a kernel of [weights], the latent weights of all layers in
    order, and a `Network` as its ``product``, which splits such a vector.

  Raises:
    BadInput: if the first stage is not dense, if layers differ in their
      quantizers, or if a quantizer or a scale couples the weights.
  """
  if not stages or not isinstance(stages[0], _stages.Dense):
    raise types.BadInput('A network must begin with a Dense stage.')
  layers: list[_stages.Dense] = []
  stages_after: list[list[_stages.Stage]] = []
  for stage in stages:
    if isinstance(stage, _stages.Dense):
      layers.append(stage)
      stages_after.append([])
    else:
      stages_after[-1].append(stage)
  for number, layer in enumerate(layers):
    _check(number, layer, layers[0])
  return _view.LayerView(
    inputs=inputs,
    kernel=jnp.concatenate([layer.kernel.reshape(-1) for layer in layers]),
    labels=labels,
    tail=(),
    quantizer=layers[0].quantizer,
    product=Network(tuple(layers), tuple(map(tuple, stages_after))),
  )


def _check(number, layer, first):
  if layer.scaling is not None:
    raise types.BadInput(
      f"The scale of layer {number} couples its weights; a network's view needs "
      'constant scales (freeze_scale).'
    )
  kinds = [jax.tree.structure(each.quantizer) for each in (layer, first)]
  if kinds[0] != kinds[1]:
    raise types.BadInput(
      'All layers of a network must have the same quantizer; layer '
      f'{number} has {layer.quantizer}, layer 0 {first.quantizer}.'
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
      f'{number} has other parameters than that of layer 0. Look at the layers one '
      'by one (layer_view).'
    )


def _same(a, b):
  """Whether two leaves are equal; None if they are traced, and may be."""
  if a is b:
    return True
  traced = isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer)
  return None if traced else np.array_equal(a, b)
