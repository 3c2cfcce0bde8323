r"""Joins a staircase to a gradient estimator: the straight-through construction.

With a staircase ``q`` and an estimator ``e`` the quantizer computes

.. math:: y = q(x), \qquad \bar x = e(\bar y, x, y, p)

where ``p`` in [0, 1] is the progress of training, for estimators that anneal.
This is the only place in the library where a derivative is not the true one.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _callables
from bitjax.quantizers import _channels

__all__ = [
  'Annealed',
  'Estimator',
  'Quantize',
  'Staircase',
  'attach',
  'staircase',
]


class Staircase(Protocol):
  """Forward rule ``(x) -> x_q``.

  A random one also takes ``key``; one that remembers also takes ``state``. One
  that is elementwise and monotone may say so by offering its levels (see
  `bitjax.scans.Neighbours`).
  """

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the quantized ``x``."""
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Annealed:
  """A staircase that is reached by and by: its forward pass takes the progress.

  `attach` passes it the progress it is called with; a staircase that is not
  `Annealed` never sees it. At progress 1, the default, it must be the staircase
  itself, so that what is deployed is quantized.

  Attributes:
    rule: ``(x, *, progress) -> x_q``, a callable pytree; ``key`` too if random.
    bits: of the staircase at progress 1; None if the rule, or nobody, says so.
  """

  rule: Callable[..., types.Array]
  bits: int | None = dataclasses.field(default=None, metadata={'static': True})

  def __call__(
    self,
    x: types.Array,
    *,
    progress: types.Scalar = 1.0,
    **given: types.Array,
  ) -> types.Array:
    """Returns ``x`` as far quantized as ``progress`` says."""
    x = _channels.check_floating(x)
    types.check_range('progress', progress, 0.0, 1.0)
    return self.rule(x, progress=progress, **given)


class Estimator(Protocol):
  """Backward rule ``(g, x, x_q, progress) -> x_bar``."""

  def __call__(
    self,
    g: types.Array,
    x: types.Array,
    x_q: types.Array,
    progress: types.Scalar,
  ) -> types.Array:
    """Returns the cotangent of ``x``, given ``g``, that of ``x_q``."""
    ...


class Quantize(Protocol):
  """What `attach` returns: ``quantize(x, *, progress=1.0, key=None)``."""

  def __call__(
    self,
    x: types.Array,
    *,
    progress: types.Scalar = 1.0,
    key: types.Array | None = None,
  ) -> types.Array:
    """Returns the quantized ``x``; differentiation uses the estimator."""
    ...


def attach(staircase: Staircase, estimator: Estimator) -> Quantize:
  r"""Returns ``quantize``: ``staircase`` forward, ``estimator`` backward.

  Both are callable pytrees and *arguments* of the differentiated function, so
  one compiled step serves a whole schedule, and ``vmap`` may sweep over any
  hyperparameter. A function of Python will do as well, but what it closes over
  is a constant: no tracer may be among it.

  Args:
    staircase: ``(x) -> x_q``, of any shape; ``(x, *, key) -> x_q`` if random,
      ``(x, *, state) -> x_q`` if it remembers what it returned last; `Annealed` if
      it also takes the progress.
    estimator: ``(g, x, x_q, progress) -> x_bar``, shapes as ``x``.

  Returns:
    ``quantize(x, *, progress=1.0, key=None, state=None) -> x_q``, a callable
    pytree. The cotangent of ``x`` has the dtype of ``x``, whatever the dtype
    of ``x_q``. A key is ignored by a staircase that does not draw.

  Raises:
    ValueError: for a staircase or an estimator that cannot be called with such
      arguments; when called, for an ``x`` that is not floating, a concrete
      ``progress`` outside [0, 1], a random staircase without a key, and a state
      for one that does not remember.

  References:
    Bengio et al., Estimating or propagating gradients through stochastic
    neurons, 2013, the straight-through estimator
    (https://arxiv.org/abs/1308.3432).
  """
  if isinstance(staircase, Annealed):
    rule = _callables.as_pytree('rule', staircase.rule, ('x',))
    staircase = dataclasses.replace(staircase, rule=rule)
  staircase = _callables.as_pytree('staircase', staircase, ('x',))
  estimator = _callables.as_pytree(
    'estimator', estimator, ('g', 'x', 'x_q', 'progress')
  )
  return jax.tree_util.Partial(_quantize, staircase, estimator)


def _quantize(staircase, estimator, x, *, progress=1.0, key=None, state=None):
  x = _channels.check_floating(x)
  types.check_range('progress', progress, 0.0, 1.0)
  given = {}
  rule = getattr(staircase, 'rule', staircase)  # What anneals asks by its rule.
  if (asked := _callables.parameter(rule, 'key')) is not None:
    given['key'] = key
    if key is None and asked.default is asked.empty:
      raise types.BadInput(
        'key must be a random key, since the staircase draws; got None.'
      )
  if state is not None:
    given['state'] = state
    if _callables.parameter(rule, 'state') is None:
      raise types.BadInput(
        'state must be None for a staircase without memory; got one of shape '
        f'{jnp.shape(state)}.'
      )
  if isinstance(staircase, Annealed):
    given['progress'] = progress
  if given:
    # Not Partial(staircase, ...): that hides the staircase's leaves from JAX.
    staircase = jax.tree_util.Partial(_given, staircase, given)
  return _straight_through(x, staircase, estimator, progress)


def _given(staircase, given, x):
  return staircase(x, **given)


@jax.custom_vjp
def _straight_through(x, staircase, estimator, progress):
  del estimator, progress  # Only the backward pass pretends.
  return staircase(x)


def _forward(x, staircase, estimator, progress):
  x_q = staircase(x)
  return x_q, (x, x_q, estimator, progress)


def _backward(residuals, g):
  x, x_q, estimator, progress = residuals
  x_bar = estimator(g, x, x_q, progress)
  return x_bar.astype(x.dtype), None, None, None


_straight_through.defvjp(_forward, _backward)


def staircase(quantize: Callable[..., types.Array] | None) -> Any:
  """Returns the staircase inside a quantizer, or None if none is known.

  Known are those that `attach` joined, also with progress or learned parameters
  filled in; objects of other kinds may offer an attribute ``staircase``. Exact
  scans ask it for its levels (see `bitjax.scans.Neighbours`).

  Args:
    quantize: a quantizer, or None.
  """
  if isinstance(quantize, jax.tree_util.Partial):
    return quantize.args[0] if quantize.func is _quantize else None
  return getattr(quantize, 'staircase', None)
