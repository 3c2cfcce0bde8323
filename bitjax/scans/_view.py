r"""Defines `LayerView`: a network as one of its layers sees it, all else frozen.

Only the layer's latent kernel moves; what comes before is a constant input, and what
comes after is a function of the layer's pre-activations:

.. math::
  z = s \, (x \, q(W)) + b, \qquad \ell = \mathrm{loss}(\mathrm{tail}(z), y).

The tail is a tuple of *stages* of known kinds (`_stages`), so that exact scans can look
inside: they see the next matrix, the kind of activation, the running statistics.
A stage of any other kind is `Opaque`, and only the generic paths accept it.

Products of quantized kernels with quantized or integer inputs are accumulated
*before* any scale is applied. Sums of integers below 2^24 are exact in float32,
whatever their order, so ties at zero are ties on every path and every device, in every
`sums.Arithmetic` in which a network may compute its products.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
import optax

from bitjax import quantizers
from bitjax import sums
from bitjax import types
from bitjax.scans import _stages

__all__ = ['LayerView', 'check_filled', 'check_loss']

_EXAMPLES = 256  # Of which a loss is computed at a time, before a long scan.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerView:
  """One layer of a network, on one batch of data.

  Attributes:
    inputs: what the layer receives, [examples, fan_in] (any shape for a layer
      with a ``product`` of its own).
    kernel: the layer's latent weights, [fan_in, units].
    labels: class of each example, [examples], integers.
    tail: the stages after the layer, ending at the logits.
    quantizer: maps the latent weights to quantized ones; None for full precision.
    scaling: computes a scale from the latent weights; None for no such scale.
    affine: constant scale and shift of the pre-activations.
    product: callable pytree ``(inputs, weights) -> z`` that replaces the matrix
      product, for layers of other kinds; None for the matrix product.
    arithmetic: precision and dtype of the matrix product.
    input_quantizer: the quantizer whose levels the inputs are; None if they are no
      levels of a known one.
  """

  inputs: types.Array
  kernel: types.Array
  labels: types.Array
  tail: tuple[_stages.Stage, ...]
  quantizer: quantizers.Quantize | None = None
  scaling: quantizers.Scaling | None = None
  affine: _stages.Affine = _stages.Affine()
  product: Callable[[types.Array, types.Array], types.Array] | None = None
  arithmetic: sums.Arithmetic = dataclasses.field(
    default=sums.Arithmetic(), metadata={'static': True}
  )
  input_quantizer: quantizers.Quantize | None = None

  def pre_activations(self, kernel: types.Array) -> types.Array:
    """Returns the layer's output for a latent ``kernel``, [examples, units]."""
    layer = self._layer(kernel)
    if self.product is None:
      return layer(self.inputs)
    return layer.rescale(self.product(self.inputs, layer.quantized))

  def logits(self, kernel: types.Array) -> types.Array:
    """Returns the network's output for a latent ``kernel``, [examples, classes]."""
    return _stages.apply(self.tail, self.pre_activations(kernel))

  def losses(self, kernel: types.Array) -> types.Array:
    """Returns each example's cross-entropy in nats, [examples]."""
    return optax.softmax_cross_entropy_with_integer_labels(
      self.logits(kernel), self.labels
    )

  def loss(self, kernel: types.Array) -> types.Array:
    """Returns the mean cross-entropy in nats, a scalar."""
    return jnp.mean(self.losses(kernel))

  def map_examples(self, fn: Callable[[types.Array], types.Array]) -> LayerView:
    """Returns this view of the examples that ``fn`` takes from [examples, ...]."""
    return dataclasses.replace(
      self,
      inputs=fn(self.inputs),
      labels=fn(self.labels),
      tail=_stages.map_examples(self.tail, fn),
    )

  @property
  def coupling(self) -> str:
    """Which weights share the scale that ``scaling`` computes from them.

    ``'none'``, ``'column'`` (those of one unit) or ``'tensor'`` (all). Moving one of them
    changes it for all. The scale of a quantizer of its own, such as those from
    `quantizers.calibrated`, is not considered: their kernels have no moves until
    `freeze_scale` holds that scale constant.
    """
    return 'none' if self.scaling is None else self.scaling.coupling

  @property
  def couples_examples(self) -> bool:
    """Whether an example's loss depends on the other examples of the batch.

    An opaque stage counts as coupling, because nothing is known about it. If the
    product lists its own ``stages``, as a `Network` does, they are examined as well.
    """
    return self._has(_stages.BatchNorm | _stages.Opaque)

  @property
  def normalizes_by_batch(self) -> bool:
    """Whether a known stage normalises by the statistics of the batch."""
    return self._has(_stages.BatchNorm)

  def _has(self, kinds):
    stages = (*getattr(self.product, 'stages', ()), *self.tail)
    return any(isinstance(stage, kinds) for stage in _stages.flat(stages))

  def freeze_scale(self) -> LayerView:
    """Returns this view with scales computed from its weights as constants."""
    frozen = self._layer(self.kernel).freeze_scale()
    return dataclasses.replace(
      self, quantizer=frozen.quantizer, scaling=None, affine=frozen.affine
    )

  @property
  def rounding(self) -> str | None:
    """How products round what a move changes, in words; None if they do not.

    Signs are never rounded, and inputs of the layer and weights behind it do not move.
    """
    arithmetic = getattr(self.product, 'arithmetic', self.arithmetic)
    changing = [(arithmetic, self.quantizer), *_changing(self.tail)]
    for arithmetic, quantizer in changing:
      if arithmetic.rounds and not quantizers.is_sign(quantizer):
        return f'products round what they multiply to {arithmetic.dtype}'
    return None

  def _layer(self, kernel):
    return _stages.Dense(
      kernel, self.quantizer, self.scaling, self.affine, self.arithmetic
    )


def _changing(stages):
  """Yields the arithmetic of each product, and the quantizer directly before it."""
  before = None
  for stage in stages:
    quantizer = getattr(before, 'quantizer', None)
    if isinstance(stage, _stages.Dense):
      yield stage.arithmetic, quantizer
    elif isinstance(stage, _stages.Conv):
      yield stage.product.arithmetic, quantizer
    elif isinstance(stage, _stages.Residual):
      for branch in (stage.body, stage.shortcut):
        yield from _changing(branch)
    before = stage


def check_filled(*views: LayerView) -> None:
  """Raises `BadInput` for an empty batch or kernel, or arrays of explicit shardings."""
  for view in views:
    for leaf in jax.tree.leaves(view):
      if isinstance(leaf, jax.Array) and any(jax.typeof(leaf).sharding.spec):
        raise types.BadInput(
          'The arrays of a view must not be split explicitly, as by the meshes of '
          f'jax.make_mesh; got {jax.typeof(leaf)}. Split the images by '
          'jax.shard_map, or place them by jax.sharding.Mesh(devices, names).'
        )
    if view.labels.size == 0 or view.kernel.size == 0:
      raise types.BadInput(
        'A batch and a kernel must not be empty; got '
        f'{view.labels.size} examples and a kernel of shape '
        f'{view.kernel.shape}.'
      )


def check_loss(*views: LayerView) -> None:
  """Raises `BadInput` for a loss that is not finite, before hours are spent on it.

  It costs a forward pass, and is made for convolutions and whole networks only, whose
  scans take many, and where all arrays are concrete. Other scans find out as they end.
  """
  for view in views:
    if view.product is None:
      continue
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(view)):
      continue
    types.check_finite('The loss', _loss_by_parts(view))


@jax.jit
def _loss_by_parts(view):
  """Returns the mean loss, of some examples at a time unless they are coupled."""
  size = view.labels.size
  if size <= _EXAMPLES or view.couples_examples:
    return view.loss(view.kernel)

  def part(start):
    some = view.map_examples(
      lambda x: jax.lax.dynamic_slice_in_dim(x, start, _EXAMPLES)
    )
    return some.loss(view.kernel)

  # The last part begins earlier, so that it is full: that does not matter here.
  starts = jnp.minimum(jnp.arange(0, size, _EXAMPLES), size - _EXAMPLES)
  return jnp.mean(jax.lax.map(part, starts))
