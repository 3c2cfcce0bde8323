r"""Estimators in units of a layer's own spread.

What enters the activations of one layer varies by 10, of another by 0.1, so a width that
is one number for a whole network is another estimator in each layer. Relative to the
spread :math:`s` of what enters, it is the same everywhere.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from bitjax import tree
from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables
from bitjax.quantizers import _maths
from bitjax.quantizers import _written

__all__ = ['RELATIVE_KEEPS', 'relative']

RELATIVE_KEEPS = ('mass', 'height')


def relative(
  estimator: _attach.Estimator,
  spread: types.Scalar | None = None,
  *,
  keep: str = 'mass',
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

  Returns:
    An estimator, whose hyperparameters are those of ``estimator`` and the spread.

  Raises:
    BadInput: for an estimator that cannot be called with such arguments, a concrete
      ``spread`` that is not positive, or an unknown ``keep``.
  """
  estimator = _callables.as_pytree(
    'estimator', estimator, ('g', 'x', 'x_q', 'progress')
  )
  if spread is not None:
    types.check_positive('spread', spread, finite=True)
  types.check_choice('keep', keep, RELATIVE_KEEPS)
  return _Relative(estimator, spread, keep)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Relative:
  estimator: _attach.Estimator
  spread: types.Scalar | None
  keep: str = dataclasses.field(metadata={'static': True})

  def __call__(self, g, x, x_q, progress):
    wide = types.widened(x)
    spread = _spread(wide) if self.spread is None else self.spread
    spread = jnp.asarray(spread, wide.dtype)
    if self.keep == 'mass':
      g = _maths.divide(g, spread)
    return self.estimator(g, _maths.divide(x, spread), x_q, progress)

  def __repr__(self):
    return _written.call(relative, **vars(self))


def _spread(x):
  """Returns the root mean square of the finite entries; 1 if they are all 0."""
  known = jnp.isfinite(x)
  x = jax.lax.stop_gradient(jnp.where(known, x, 0))
  unit = tree.power_of_two(jnp.max(jnp.abs(x), initial=0))
  count = jnp.maximum(tree.count(known), 1).astype(x.dtype)
  spread = unit * jnp.sqrt(jnp.sum(jnp.square(x / unit)) / count)
  return _maths.usable(spread)
