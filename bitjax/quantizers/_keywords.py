"""The keywords of quantizers: who asks for which, and filling them in.

Every quantizer takes ``progress``. Those that draw ask for ``key``, those that
remember for ``state``, what they returned last.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import jax

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables

__all__ = ['as_quantize', 'at_progress', 'call', 'is_random', 'is_stateful']


def call(
  quantize: _attach.Quantize,
  x: types.Array,
  progress: types.Scalar,
  **given: types.Array | None,
) -> types.Array:
  """Calls a quantizer with those of ``key`` and ``state`` that are not None."""
  types.check_range('progress', progress, 0.0, 1.0)
  given = {name: value for name, value in given.items() if value is not None}
  return quantize(x, progress=progress, **given)


def as_quantize(name: str, quantize: Any) -> _attach.Quantize:
  """``quantize`` as a pytree that takes the progress, also if it is a function.

  Args:
    name: of the argument that it is, for the error.
    quantize: a quantizer, or a function of ``x`` alone, to which no progress is
      told.

  Raises:
    ValueError: if it cannot be called with ``x``.
  """
  rule = _callables.as_pytree(name, quantize, ('x',))
  if rule is quantize or not hasattr(quantize, '__qualname__'):
    return quantize  # Objects may declare their bits, which a Partial hides.
  if _callables.parameter(quantize, 'progress') is None:
    return jax.tree_util.Partial(_of_x_alone, rule)
  return rule


def _of_x_alone(function, x, *, progress=1.0):
  del progress
  return function(x)


def at_progress(
  quantize: _attach.Quantize,
  progress: types.Scalar,
  *,
  key: types.Array | None = None,
  state: types.Array | None = None,
  dtype: Any = None,
) -> _attach.Quantize:
  """The quantizer with its ``progress`` filled in.

  Args:
    quantize: the quantizer.
    progress: of training, in [0, 1].
    key: random key, if the staircase is random; None if not.
    state: what the staircase returned last, if it remembers; None if not.
    dtype: of what it returns; None for what ``quantize`` returns.

  Returns:
    A callable pytree ``(x) -> x_q``, whose `staircase` is that of ``quantize``.

  Raises:
    ValueError: for a concrete ``progress`` outside [0, 1], and a ``quantize``
      that cannot be called.
  """
  types.check_range('progress', progress, 0.0, 1.0)
  quantize = as_quantize('quantize', quantize)
  return _AtProgress(quantize, progress, key, state, dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _AtProgress:
  quantize: Callable[..., types.Array]
  default: types.Scalar
  key: types.Array | None
  state: types.Array | None
  dtype: Any = dataclasses.field(metadata={'static': True})

  def __call__(self, x, *, progress=None, key=None):
    key = self.key if key is None else key
    progress = self.default if progress is None else progress
    x_q = call(self.quantize, x, progress, key=key, state=self.state)
    return x_q if self.dtype is None else x_q.astype(self.dtype)

  @property
  def staircase(self):
    # One that remembers or draws is another function for every weight.
    other = self.state is not None or self.key is not None
    return None if other else _attach.staircase(self.quantize)


def is_random(quantize: Callable[..., types.Array] | None) -> bool:
  """Whether a quantizer needs a random key.

  Args:
    quantize: a quantizer, or None.
  """
  return _asks_for('key', quantize)


def is_stateful(quantize: Callable[..., types.Array] | None) -> bool:
  """Whether a quantizer needs a state, that which it returned last.

  Args:
    quantize: a quantizer, or None.
  """
  return _asks_for('state', quantize)


def _asks_for(name, quantize):
  """Whether the staircase within a quantizer has yet to be given ``name``."""
  if isinstance(quantize, _AtProgress) and getattr(quantize, name) is not None:
    return False
  within = getattr(quantize, 'quantize', None)
  if within is not None:
    return _asks_for(name, within)
  found = _attach.staircase(quantize)
  rule = getattr(found, 'rule', found)  # What anneals asks by its rule.
  return _callables.parameter(rule, name) is not None
