r"""Joins a staircase to a gradient estimator: the straight-through construction.

With a staircase ``q`` and an estimator ``e`` the quantizer computes

.. math:: y = q(x), \qquad \bar x = e(\bar y, x, y, p)

where bars mark cotangents, and ``p`` in [0, 1] is the progress of training, which
estimators that anneal use.
This is the only ``custom_vjp`` of the library whose derivative is not the true one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _callables
from bitjax.quantizers import _channels
from bitjax.quantizers import _written

__all__ = [
  'Annealed',
  'Estimator',
  'Quantize',
  'Staircase',
  'attach',
  'observed',
  'staircase',
]


class Staircase(Protocol):
  """The forward rule ``(x) -> x_q`` of a quantizer.

  A random staircase also takes ``key``; one with memory also takes ``state``. An
  elementwise, monotone staircase may say so by offering its levels (see
  `bitjax.scans.Neighbours`).
  """

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the quantized ``x``."""
    ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Annealed:
  """A staircase that is approached gradually: its forward pass takes the progress.

  A quantizer made by `attach` hands it the progress that it is called with; a
  staircase that is not `Annealed` never sees the progress. At progress 1, the
  default, the rule must be the staircase itself, so that deployed weights are
  quantized.

  Attributes:
    rule: ``(x, *, progress) -> x_q``, a callable pytree; it also takes ``key`` if
      it is random.
    bits: the number of bits of the staircase at progress 1; None if the rule
      declares it, or if it is unknown.
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
    """Returns ``x``, quantized to the degree that ``progress`` sets."""
    x = _channels.check_floating(x)
    types.check_range('progress', progress, 0.0, 1.0)
    return self.rule(x, progress=progress, **given)

  def __repr__(self) -> str:
    if isinstance(self.rule, _written.Rule):
      return repr(self.rule)
    return _written.call(Annealed, **vars(self))


class Estimator(Protocol):
  """The backward rule ``(g, x, x_q, progress) -> x_bar`` of a quantizer."""

  def __call__(
    self,
    g: types.Array,
    x: types.Array,
    x_q: types.Array,
    progress: types.Scalar,
  ) -> types.Array:
    """Returns the cotangent of ``x``, given ``g``, the cotangent of ``x_q``."""
    ...


class Quantize(Protocol):
  """A quantizer as `attach` returns it: ``quantize(x, *, progress=1.0, key=None)``."""

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
  r"""Returns a quantizer: ``staircase`` in the forward pass, ``estimator`` backward.

  Both are callable pytrees and *arguments* of the differentiated function, so
  one compiled step serves a whole schedule, and ``vmap`` may sweep over any
  hyperparameter. A plain Python function works as well, but whatever it closes
  over is a constant, so it must not close over a tracer.

  Args:
    staircase: ``(x) -> x_q``, for ``x`` of any shape; ``(x, *, key) -> x_q`` if it
      is random, ``(x, *, state) -> x_q`` if it has memory (its state is its own last
      output); `Annealed` if it also takes the progress.
    estimator: ``(g, x, x_q, progress) -> x_bar``; ``g``, ``x_q`` and ``x_bar`` have
      the shape of ``x``.

  Returns:
    ``quantize(x, *, progress=1.0, key=None, state=None) -> x_q``, a callable
    pytree. The cotangent of ``x`` has the dtype of ``x``, whatever the dtype
    of ``x_q``. A staircase that is not random ignores the key.

  Raises:
    BadInput: for a staircase or an estimator that cannot be called with such
      arguments. The quantizer raises it for an ``x`` that is not floating, a
      concrete ``progress`` outside [0, 1], a random staircase without a key, and
      a state for a staircase without memory.

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
  return _written.rule(attach, _quantize, staircase, estimator)


def _quantize(staircase, estimator, x, *, progress=1.0, key=None, state=None):
  x = _channels.check_floating(x)
  types.check_range('progress', progress, 0.0, 1.0)
  given = {}
  # An `Annealed` staircase declares its keywords on its inner rule.
  rule = getattr(staircase, 'rule', staircase)
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
    # Partial(staircase, **given) would hide the staircase's leaves from JAX.
    staircase = jax.tree_util.Partial(_given, staircase, given)
  observer = _OBSERVER.get()
  if observer is None or given:
    return _straight_through(x, staircase, estimator, progress)
  return observer(
    attach(staircase, estimator),
    progress,
    x,
    lambda x: _straight_through(x, staircase, estimator, progress),
  )


# Called instead of a quantizer, where one is set.
_OBSERVER: contextvars.ContextVar[Callable[..., types.Array] | None]
_OBSERVER = contextvars.ContextVar('observer', default=None)


def observer() -> Callable[..., types.Array] | None:
  """Returns what is called instead of a quantizer; None if nothing is."""
  return _OBSERVER.get()


@contextlib.contextmanager
def observed(observer: Callable[..., types.Array]) -> Iterator[None]:
  """Lets a function see, and return, what quantizers from `attach` compute.

  It sees those that get neither a key nor a state, where they are traced or run; and
  learned ones whose staircase is the sign, as a whole.

  Args:
    observer: ``(quantize, progress, x, apply) -> x_q``; ``apply(x)`` is the plain
      result.
  """
  token = _OBSERVER.set(observer)
  try:
    yield
  finally:
    _OBSERVER.reset(token)


def _given(staircase, given, x):
  return staircase(x, **given)


def _applied(rule, *args):
  """Calls a rule, which may mix float32 and 16 bits, under strict promotion too."""
  with jax.numpy_dtype_promotion('standard'):
    return rule(*args)


@jax.custom_vjp
def _straight_through(x, staircase, estimator, progress):
  del estimator, progress  # Only the backward pass uses them.
  return _applied(staircase, x)


def _forward(x, staircase, estimator, progress):
  x_q = _applied(staircase, x)
  return x_q, (x, x_q, estimator, progress)


def _backward(residuals, g):
  x, x_q, estimator, progress = residuals
  x_bar = _applied(estimator, g, x, x_q, progress)
  return x_bar.astype(x.dtype), None, None, None


_straight_through.defvjp(_forward, _backward)


def staircase(quantize: Callable[..., types.Array] | None) -> Any:
  """Returns the staircase inside a quantizer, or None if none is known.

  It is known for quantizers made by `attach`. Objects of other kinds, such as those
  from `at_progress` and `bind`, may offer it as an attribute ``staircase``. Exact
  scans ask the staircase for its levels (see `bitjax.scans.Neighbours`).

  Args:
    quantize: a quantizer, or None.
  """
  if isinstance(quantize, jax.tree_util.Partial):
    return quantize.args[0] if quantize.func is _quantize else None
  return getattr(quantize, 'staircase', None)
