r"""Estimators in units of a layer's own spread.

What enters the activations of one layer varies by 10, of another by 0.1, so a width that
is one number for a whole network is another estimator in each layer. Relative to the
spread :math:`s` of what enters, it is the same everywhere.

The spread is that of the batch, or a running one, which is no function of one batch: whoever
calls the quantizer keeps it (`next_spread`) and fills it in (`with_spread`), as the layers of
`bitjax.nn` do in a collection of their own.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

from bitjax import tree
from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables
from bitjax.quantizers import _maths
from bitjax.quantizers import _written

__all__ = [
  'RELATIVE_KEEPS',
  'initial_spread',
  'next_spread',
  'relative',
  'spread_momentum',
  'spread_of',
  'with_spread',
]

RELATIVE_KEEPS = ('mass', 'height')

_T = TypeVar('_T')


def relative(
  estimator: _attach.Estimator,
  spread: types.Scalar | None = None,
  *,
  keep: str = 'mass',
  momentum: float | None = None,
) -> _attach.Estimator:
  r"""Applies an estimator to ``x`` in units of its spread.

  .. math:: \bar x = E\left( \frac gs, \frac xs \right) \quad \text{or} \quad
    E\left( g, \frac xs \right), \qquad s^2 = \frac1n \sum_k x_k^2

  The first keeps the estimator's gradient mass, whatever the spread, as the chain rule of
  x / s does: a sign is the same function in every unit. ``relative(window(c))`` is
  ``window(c * s, 1 / s)``, and ``relative(gaussian(c))`` is ``gaussian(c * s)``. The second
  keeps its height: ``relative(window(c), keep='height')`` is ``window(c * s)``.

  The spread is the root mean square of the finite entries of the whole tensor, examples
  too; under ``vmap`` that of one lane, under ``shard_map`` that of one device. It
  is a constant to differentiation, and 1 where all entries are 0. ``x_q`` is passed on as it
  is, so rules that read it (`dsq`, `ewgs`) are in other units than ``x``.

  Args:
    estimator: E, ``(g, x, x_q, progress) -> x_bar``; its widths are in units of s.
    spread: s > 0, in the units of ``x``, such as a running mean that the caller keeps;
      None for that of ``x``.
    keep: ``'mass'`` or ``'height'``.
    momentum: decay m in [0, 1) of a running spread, by which one batch counts less; None for
      the spread of ``x`` alone. Its squares are averaged,
      :math:`r_t^2 = m r_{t-1}^2 + (1 - m) s_t^2`, and divided by :math:`1 - m^t`. It is
      for quantizers of `bitjax.nn.QuantDense` and its like, which keep the spread of the
      batches before in the collection ``spreads``; it moves if that is mutable, as in
      training, and is that of ``x`` before the first update.

  Returns:
    An estimator, whose hyperparameters are those of ``estimator`` and the spread.

  Raises:
    BadInput: for an estimator that cannot be called with such arguments, a concrete
      ``spread`` that is not positive, an unknown ``keep``, a ``momentum`` outside [0, 1), or
      both a spread and a momentum; when called, for a running spread that nobody keeps.
  """
  estimator = _callables.as_pytree(
    'estimator', estimator, ('g', 'x', 'x_q', 'progress')
  )
  if spread is not None:
    types.check_positive('spread', spread, finite=True)
  types.check_choice('keep', keep, RELATIVE_KEEPS)
  if momentum is not None:
    types.check_fraction('momentum', momentum)
    if spread is not None:
      raise types.BadInput('Pass a spread or a momentum, not both.')
    momentum = float(momentum)
  return _Relative(estimator, spread, keep, momentum)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Relative:
  estimator: _attach.Estimator
  spread: types.Scalar | dict[str, types.Array] | None
  keep: str = dataclasses.field(metadata={'static': True})
  momentum: float | None = dataclasses.field(
    default=None, metadata={'static': True}
  )

  def __call__(self, g, x, x_q, progress):
    wide = types.widened(x)
    if self.momentum is not None:
      spread = _running(self.spread, wide)
    else:
      spread = _spread(wide) if self.spread is None else self.spread
    spread = jnp.asarray(spread, wide.dtype)
    if self.keep == 'mass':
      g = _maths.divide(g, spread)
    return self.estimator(g, _maths.divide(x, spread), x_q, progress)

  def with_spread(self, spread):
    """Returns this estimator with a running spread filled in."""
    return dataclasses.replace(self, spread=spread)

  def __repr__(self):
    given = dict(vars(self))
    if self.momentum is not None:
      given['spread'] = None
    return _written.call(relative, **given)


def spread_momentum(quantize: object) -> float | None:
  """Returns the decay of the running spread that a quantizer needs; None if it needs none.

  Args:
    quantize: a quantizer, or None.
  """
  return getattr(_estimator(quantize), 'momentum', None)


def spread_of(quantize: object) -> dict[str, types.Array] | None:
  """Returns the running spread that `with_spread` has filled in; None if there is none.

  Args:
    quantize: a quantizer, or None.
  """
  if spread_momentum(quantize) is None:
    return None
  return getattr(_estimator(quantize), 'spread', None)


def with_spread(quantize: _T, spread: dict[str, types.Array]) -> _T:
  """Returns a quantizer whose running spread is filled in.

  Args:
    quantize: an estimator ``relative(..., momentum=m)``, a quantizer from `attach` that has
      it, or another one with ``momentum`` and ``with_spread``. Others are returned as
      they are.
    spread: as `initial_spread` and `next_spread` return it. Before the first update the
      spread is that of ``x``.
  """
  if spread_momentum(quantize) is None:
    return quantize
  found: Any = quantize
  if isinstance(found, jax.tree_util.Partial):
    rule, estimator = found.args
    return cast(_T, _attach.attach(rule, estimator.with_spread(spread)))
  if hasattr(found, 'quantize'):  # With the progress filled in.
    inner = with_spread(found.quantize, spread)
    return dataclasses.replace(found, quantize=inner)
  return found.with_spread(spread)


def initial_spread(x: types.Array) -> dict[str, types.Array]:
  """Returns the running spread before the first update, in the dtype of sums over ``x``."""
  zero = jnp.zeros((), types.widened(x).dtype)
  return {'rms': zero, 'weight': zero}


def next_spread(
  state: dict[str, types.Array], x: types.Array, momentum: float
) -> dict[str, types.Array]:
  r"""Returns the running spread after an update by a batch.

  .. math:: r_t^2 = m r_{t-1}^2 + (1 - m) s_t^2, \qquad w_t = m w_{t-1} + 1 - m

  The spread is :math:`r_t / \sqrt{w_t}`.

  Args:
    state: ``rms``, r, and ``weight``, w, [] each.
    x: the batch, any shape.
    momentum: m, in [0, 1).

  Raises:
    BadInput: for a momentum out of range.
  """
  types.check_fraction('momentum', momentum)
  dtype = state['rms'].dtype
  own = _spread(types.widened(x)).astype(dtype)
  largest = tree.power_of_two(jnp.maximum(state['rms'], own))
  squares = (
    momentum * jnp.square(state['rms'] / largest),
    (1 - momentum) * jnp.square(own / largest),
  )
  return {
    'rms': largest * jnp.sqrt(squares[0] + squares[1]),
    'weight': momentum * state['weight'] + (1 - momentum),
  }


def _running(state, x):
  """Returns the running spread, [], or that of ``x`` before the first update."""
  if state is None:
    raise types.BadInput(
      'momentum needs a layer that keeps the running spread, such as QuantDense with '
      'this in its input_quantizer; elsewhere leave it out, or use with_spread.'
    )
  weight = state['weight']
  known = weight > 0
  spread = state['rms'] / jnp.sqrt(jnp.where(known, weight, 1))
  return jnp.where(known, spread.astype(x.dtype), _spread(x))


def _estimator(quantize):
  """Returns what a quantizer does backward, as far as running spreads need it."""
  if isinstance(quantize, jax.tree_util.Partial):
    known = _attach.staircase(quantize) is not None
    return quantize.args[1] if known else None
  inner = getattr(quantize, 'quantize', None)
  return quantize if inner is None else _estimator(inner)


def _spread(x):
  """Returns the root mean square of the finite entries; 1 if they are all 0."""
  known = jnp.isfinite(x)
  x = jax.lax.stop_gradient(jnp.where(known, x, 0))
  unit = tree.power_of_two(jnp.max(jnp.abs(x), initial=0))
  count = jnp.maximum(tree.count(known), 1).astype(x.dtype)
  spread = unit * jnp.sqrt(jnp.sum(jnp.square(x / unit)) / count)
  return _maths.usable(spread)
