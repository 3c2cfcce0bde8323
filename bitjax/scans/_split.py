r"""Cuts a layer view where the effect of a single move is narrow.

Moving weight (i, j) changes one column of the product ``p = x q(W)``, and through
the pointwise *front* one column of the activations h. The next product then moves
along one row of its matrix, and only the *rest* sees the whole:

.. math::
  p_{bj} \to h_{bj} = \mathrm{front}_j(p_{bj}), \qquad
  u_b = h_b V, \qquad \ell_b = \mathrm{loss}(\mathrm{rest}(u_b), y_b),

so an example's loss is a function of one number,
:math:`\ell_{b}(u_b + \tau V_{j:})` with :math:`\tau` the change of h. Layers whose
front ends at the logits have the identity for V.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import sums
from bitjax import types
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = [
  'Split',
  'batches',
  'obstacle',
  'opaque',
  'product',
  'split',
  'true_indices',
]


_EXACT = sums.Arithmetic()  # Of what nothing is said about.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Split:
  """A view as ``rest(front(inputs @ weights) @ matrix)``.

  Attributes:
    inputs: x, [examples, fan_in].
    labels: y, [examples].
    weights: q(W), [fan_in, units].
    front: pointwise stages.
    matrix: V, [units, width].
    rest: stages from u to the logits.
    arithmetic: that of p, in which ``inputs`` and ``weights`` are already rounded.
    next_arithmetic: that of u, in which ``matrix`` is already rounded.
  """

  inputs: types.Array
  labels: types.Array
  weights: types.Array
  front: tuple[_stages.Stage, ...]
  matrix: types.Array
  rest: tuple[_stages.Stage, ...]
  arithmetic: sums.Arithmetic = dataclasses.field(
    default=_EXACT, metadata={'static': True}
  )
  next_arithmetic: sums.Arithmetic = dataclasses.field(
    default=_EXACT, metadata={'static': True}
  )

  def products(
    self, inputs: types.Array, weights: types.Array | None = None
  ) -> types.Array:
    """Returns the products p, [examples, units]; ``weights`` may replace q(W)."""
    weights = self.weights if weights is None else weights
    return product(inputs, weights, self.arithmetic)

  def next_products(self, activations: types.Array) -> types.Array:
    """Returns the next products u, [examples, width]."""
    return product(activations, self.matrix, self.next_arithmetic)

  def losses(
    self, next_products: types.Array, labels: types.Array
  ) -> types.Array:
    """Returns each example's loss in nats, for u of [examples, width]."""
    return optax.softmax_cross_entropy_with_integer_labels(
      _stages.apply(self.rest, next_products), labels
    )

  @property
  def dtype(self) -> np.dtype:
    """Dtype of the losses, which may be wider than that of inputs and weights."""

    def losses(parts):
      activations = _stages.apply(parts.front, parts.products(parts.inputs))
      return parts.losses(parts.next_products(activations), parts.labels)

    return jax.eval_shape(losses, self).dtype


def product(
  a: types.Array, b: types.Array, arithmetic: sums.Arithmetic = _EXACT
) -> types.Array:
  """Returns ``a @ b``, in float32 if nothing is said, apart from what surrounds it.

  On a CPU, XLA would otherwise fold a transposition of the operand or of the result
  into the product, which is then three times slower. As in a `Dense`, the dtype is
  not narrower than the weights'.
  """
  a = jax.lax.optimization_barrier(a)
  found = arithmetic.matmul(a, b)
  found = found.astype(types.promoted(found, b))
  return jax.lax.optimization_barrier(found)


def split(view: _view.LayerView) -> Split:
  """Cuts a view that has no `obstacle`.

  A scale that depends on the kernel becomes the first stage of the front, with its
  value before any move.
  """
  front: list[_stages.Stage] = [view.affine]
  if view.scaling is not None:
    front.insert(0, _stages.Affine(view.scaling(view.kernel)))
  matrix = jnp.eye(view.kernel.shape[1], dtype=view.kernel.dtype)
  next_arithmetic = _EXACT
  rest: tuple[_stages.Stage, ...] = ()
  for index, stage in enumerate(view.tail):
    if isinstance(stage, _stages.Dense):
      dense = stage.freeze()
      next_arithmetic = dense.arithmetic
      matrix = next_arithmetic.rounded(dense.kernel)
      rest = (dense.affine, *view.tail[index + 1 :])
      break
    front.append(stage)
  weights = _stages.Dense(view.kernel, view.quantizer).quantized
  inputs = view.inputs.astype(types.promoted(view.inputs, weights))
  return Split(
    view.arithmetic.rounded(inputs),
    view.labels,
    weights,
    tuple(front),
    matrix,
    rest,
    view.arithmetic,
    next_arithmetic,
  )


def obstacle(view: _view.LayerView) -> str | None:
  """Returns why a view cannot be cut, or None if it can."""
  if reason := opaque(view):
    return reason
  if view.product is not None:
    return 'its product is not the matrix product'
  if view.inputs.ndim != 2:
    return 'its inputs are not a matrix'
  known = _stages.Affine | _stages.Dense | _stages.Activation
  for stage in view.tail:
    if not isinstance(stage, known | _stages.BatchNorm):
      return f'its tail holds a stage of the kind {type(stage).__name__}'
  if view.couples_examples:
    return 'normalisation by batch statistics couples its examples'
  return view.rounding


def opaque(view: _view.LayerView) -> str | None:
  """Returns that a view's tail holds an opaque stage, and why; None if it does not."""
  for stage in _stages.flat(view.tail):
    if isinstance(stage, _stages.Opaque):
      because = f' ({stage.reason})' if stage.reason else ''
      return f'its tail holds an opaque stage{because}'
  return None


def batches(
  arrays: tuple[types.Array, ...], size: int
) -> tuple[types.Array, ...]:
  """Cuts arrays [examples, ...] into [batches, size, ...], filled up with zeros."""

  def cut(array):
    padding = -array.shape[0] % size
    pad = [(0, padding)] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, pad).reshape(-1, size, *array.shape[1:])

  return tuple(map(cut, arrays))


def true_indices(
  mask: types.Array, *, room: int
) -> tuple[types.Array, types.Array]:
  """Returns where each row of a mask is true, in order, and how often.

  Args:
    mask: booleans, [rows, size].
    room: by how much the lists are longer than the rows.

  Returns:
    Indices [rows, size + room], with ``size`` beyond a row's last one, and their
    number [rows].
  """
  rows, size = mask.shape
  rank = jnp.cumsum(mask, axis=1, dtype=jnp.int32)
  slot = jnp.where(mask, rank - 1, size + room)
  indices = jnp.full((rows, size + room), size, jnp.int32)
  row = jnp.arange(rows)[:, None]
  indices = indices.at[row, slot].set(
    jnp.arange(size, dtype=jnp.int32)[None, :], mode='drop'
  )
  return indices, rank[:, -1]
