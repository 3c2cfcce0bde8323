r"""Computes what a change of one activation does to an example's loss.

`_split` leaves a function of one number, the change tau of the activation
of unit j, for each example: :math:`\ell_b(u_b + \tau V_{j:}) - \ell_b(u_b)`. Here
it is evaluated for many tau at once, in one of two forms.

**Any tail**: u is moved and the rest is applied to it, which costs a product for each
tau.

**Piecewise linear tail** (affine stages, or those around one ReLU and one more
product, as behind the first layer of a network with two hidden layers). With
:math:`z = \alpha u + \beta` the ReLU's input and m its pattern at tau = 0, the
logits are

.. math:: \lambda(\tau) = \lambda(0) + \tau \sum_k m_k A_{jk} U_{k:}
  + \sum_k \mathrm{relu}(-|z_k| - \tau \sigma_k A_{jk}) \, U_{k:},
  \qquad A = V \alpha, \quad \sigma = 2m - 1.

The last sum corrects for the units that change their pattern: *kinks*. A single
move is small, and reaches the kinks of only a few among hundreds of units. Those that
any move of these examples can reach are listed first, and only they are visited.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _split
from bitjax.scans import _stages

__all__ = ['AnyTail', 'LinearTail', 'tail']

# Widens the reach of a move a little, so that rounding cannot hide a kink.
_SLACK = 1.001


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AnyTail:
  """The rest of the network, evaluated for each change.

  Attributes:
    parts: the network.
    labels: y, [examples].
    next_products: u, [examples, width].
    base: losses at tau = 0, [examples].
  """

  parts: _split.Split
  labels: types.Array
  next_products: types.Array
  base: types.Array

  @property
  def width(self) -> int:
    """How many floats are in memory for each change."""
    return self.parts.matrix.shape[1]

  def changes(self, tau: types.Array) -> types.Array:
    """Returns the changes of the loss, for tau of [examples, ..., units]."""
    example = (-1,) + (1,) * (tau.ndim - 1)
    next_products = self.next_products.reshape(
      *example, self.next_products.shape[1]
    )
    matrix = jnp.expand_dims(self.parts.matrix, range(tau.ndim - 1))
    moved = next_products + tau[..., None] * matrix
    labels = jnp.broadcast_to(self.labels.reshape(example), tau.shape)
    losses = self.parts.losses(
      moved.reshape(-1, moved.shape[-1]), labels.reshape(-1)
    )
    return losses.reshape(tau.shape) - self.base.reshape(example)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearTail:
  """The rest of the network, as logits linear in a change but for a few kinks.

  Attributes:
    logits: at tau = 0, [examples, classes].
    base: losses at tau = 0, [examples].
    labels: y, [examples].
    slopes: slopes of the logits at tau = 0, [examples, classes, units].
    distances: |z| of the kinks within reach, then inf, [examples, kinks].
    order: which unit each kink belongs to, [examples, kinks].
    signs: sigma of that unit, [examples, kinks].
    rows: A transposed, [width, units].
    columns: U, [width, classes].
    count: how many kinks are within reach in the example with the most.
  """

  logits: types.Array
  base: types.Array
  labels: types.Array
  slopes: types.Array
  distances: types.Array
  order: types.Array
  signs: types.Array
  rows: types.Array
  columns: types.Array
  count: types.Array

  @property
  def width(self) -> int:
    """How many floats are in memory for each change."""
    return self.logits.shape[1]

  def changes(self, tau: types.Array) -> types.Array:
    """Returns the changes of the loss, for tau of [examples, ..., units]."""
    dims = tau.ndim - 2  # Number of axes between examples and units.

    def spread(x):  # x is [..., examples, units or 1].
      axes = range(x.ndim - 1, x.ndim - 1 + dims)
      return jnp.expand_dims(x, tuple(axes))

    delta = spread(jnp.swapaxes(self.slopes, 0, 1)) * tau[None]
    kinks = sizes.here().kinks

    def visit(step, delta):
      def take(x):
        return jax.lax.dynamic_slice_in_dim(x, step * kinks, kinks, axis=1)

      order, distances, signs = map(
        take, (self.order, self.distances, self.signs)
      )
      for kink in range(kinks):
        unit = order[:, kink]
        slope = signs[:, kink, None] * self.rows[unit]
        beyond = -spread(distances[:, kink, None]) - spread(slope) * tau
        logits = self.columns[unit].T[..., None]  # [classes, examples, 1].
        delta = delta + spread(logits) * jax.nn.relu(beyond)[None]
      return delta

    steps = -(-self.count // kinks)
    delta = jax.lax.fori_loop(0, steps, visit, delta)
    return self._loss_changes(delta)

  def _loss_changes(self, delta):
    """Returns log sum_c p_c exp(delta_c) - delta_y, accurate for small delta too."""
    classes, example = delta.shape[0], (-1,) + (1,) * (delta.ndim - 2)

    def column(x, index):
      return x[:, index].reshape(example)

    label = self.labels.reshape(1, *example)
    own = jnp.take_along_axis(delta, label, axis=0)[0]

    def small(delta):
      # Unrolled: XLA's CPU backend does not vectorise a sum over a leading axis.
      probabilities = jax.nn.softmax(self.logits)
      total = jnp.zeros_like(own)
      for c in range(classes):
        total += column(probabilities, c) * _expm1(delta[c])
      return jnp.log1p(total) - own

    def large(delta):
      top = jnp.full_like(own, -jnp.inf)
      for c in range(classes):
        top = jnp.maximum(top, column(self.logits, c) + delta[c])
      total = jnp.zeros_like(own)
      for c in range(classes):
        total += jnp.exp(column(self.logits, c) + delta[c] - top)
      label_logit = jnp.take_along_axis(
        self.logits, self.labels[:, None], axis=1
      )
      loss = top + jnp.log(total) - own - label_logit.reshape(example)
      return loss - self.base.reshape(example)

    return jax.lax.cond(jnp.max(jnp.abs(delta)) <= 0.25, small, large, delta)


def _expm1(x):
  """Returns exp(x) - 1 for |x| <= 1/4; the series errs by less than half an ulp."""
  total = jnp.full_like(x, 1 / 5040)
  for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
    total = total * x + coefficient
  return total * x


def tail(
  parts: _split.Split,
  activations: types.Array,
  farthest: types.Array,
  labels: types.Array,
) -> AnyTail | LinearTail:
  """Returns the tail behind a batch's activations, in its cheapest form.

  Args:
    parts: the network.
    activations: h, [examples, units].
    farthest: upper bound of |tau|, [examples].
    labels: y, [examples].
  """
  next_products = parts.next_products(activations)
  base = parts.losses(next_products, labels)
  pieces = _pieces(parts.rest)
  if pieces is None:
    return AnyTail(parts, labels, next_products, base)
  inner, outer = pieces
  matrix = _matrix(inner, parts.matrix)
  columns = _matrix(outer, jnp.eye(matrix.shape[1], dtype=matrix.dtype))
  z = _stages.apply(inner, next_products)
  if not outer:  # Without a ReLU there are no kinks.
    pattern, reached = jnp.ones_like(z), jnp.zeros_like(z, bool)
  else:
    pattern = jnp.where(z > 0, 1.0, 0.0)
    steepest = jnp.max(jnp.abs(matrix), axis=0)
    reached = jnp.abs(z) <= _SLACK * farthest[:, None] * steepest[None]
  # One product for all examples and classes, whose outer axes are both long.
  slopes = jnp.matmul(
    pattern[:, None, :] * columns.T[None], matrix.T, precision='highest'
  )
  order, count = _split.true_indices(reached, room=sizes.here().kinks)
  unit = jnp.minimum(order, z.shape[1] - 1)
  distances = jnp.take_along_axis(jnp.abs(z), unit, axis=1)
  return LinearTail(
    logits=_stages.apply(parts.rest, next_products),
    base=base,
    labels=labels,
    slopes=slopes,
    distances=jnp.where(order < z.shape[1], distances, jnp.inf),
    order=unit,
    signs=2 * jnp.take_along_axis(pattern, unit, axis=1) - 1,
    rows=matrix.T,
    columns=columns,
    count=jnp.max(count),
  )


def _pieces(stages):
  """Cuts the stages before their only ReLU, if any; returns None for other tails."""
  kinds = [
    stage.kind if isinstance(stage, _stages.Activation) else 'identity'
    for stage in stages
  ]
  kinks = [index for index, kind in enumerate(kinds) if kind != 'identity']
  if not kinks:
    return stages, ()
  if len(kinks) == 1 and kinds[kinks[0]] == 'relu':
    return stages[: kinks[0]], stages[kinks[0] :]
  return None


def _matrix(stages, matrix):
  """Returns the matrix times the stages' linear parts; a ReLU counts as identity."""
  for stage in stages:
    if isinstance(stage, _stages.Dense):
      dense = stage.freeze()
      matrix = jnp.matmul(matrix, dense.kernel, precision='highest')
      matrix = _stages.Affine(dense.affine.scale)(matrix)
    elif isinstance(stage, _stages.Affine):
      matrix = _stages.Affine(stage.scale)(matrix)
  return matrix
