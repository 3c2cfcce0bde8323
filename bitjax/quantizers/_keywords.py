"""Finds out which keywords a quantizer needs, and fills them in.

Every quantizer takes ``progress``. Random quantizers also need ``key``; quantizers
with memory also need ``state``, which is their own last output.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, cast

import jax

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables
from bitjax.quantizers import _written

__all__ = [
  'as_quantize',
  'at_progress',
  'call',
  'is_random',
  'is_stateful',
]


def call(
  quantize: _attach.Quantize,
  x: types.Array,
  progress: types.Scalar,
  **given: types.Array | None,
) -> types.Array:
  """Calls a quantizer with ``progress`` and those of ``given`` that are not None."""
  types.check_range('progress', progress, 0.0, 1.0)
  given = {name: value for name, value in given.items() if value is not None}
  return quantize(x, progress=progress, **given)


def as_quantize(name: str, quantize: Any) -> _attach.Quantize:
  """Returns a quantizer, or a plain function, as a pytree that takes the progress.

  Args:
    name: what the caller's own argument is called, for the error message.
    quantize: a quantizer, or a function of ``x`` alone, which is called without
      the progress.

  Raises:
    BadInput: if ``quantize`` cannot be called with ``x``, or is an object that does
      not take the progress, such as a staircase without an estimator.
  """
  rule = _callables.as_pytree(name, quantize, ('x',))
  takes_progress = _callables.parameter(quantize, 'progress') is not None
  if rule is quantize or not hasattr(quantize, '__qualname__'):
    if not takes_progress:
      raise types.BadInput(
        f'{name} must take the progress, as attach(staircase, estimator) does; got '
        f'{quantize!r}. A staircase alone passes no gradient.'
      )
    return quantize  # A Partial would hide the bits that an object may declare.
  return rule if takes_progress else cast(_attach.Quantize, _OfXAlone(rule))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _OfXAlone:
  function: Callable[..., types.Array]

  def __call__(self, x, *, progress=1.0):
    del progress
    return self.function(x)

  def __repr__(self):
    return types.shown(self.function)


def at_progress(
  quantize: _attach.Quantize,
  progress: types.Scalar,
  *,
  key: types.Array | None = None,
  state: types.Array | None = None,
) -> _attach.Quantize:
  """Returns the quantizer with its ``progress`` filled in.

  Args:
    quantize: the quantizer.
    progress: the progress of training, in [0, 1].
    key: random key, if the staircase is random; None if not.
    state: the staircase's last output, if it has memory; None if not.

  Returns:
    A callable pytree ``(x) -> x_q``. Its `staircase` is that of ``quantize``, or
    None if a key or a state is filled in.

  Raises:
    BadInput: for a concrete ``progress`` outside [0, 1], and a ``quantize``
      that cannot be called with ``x``.
  """
  types.check_range('progress', progress, 0.0, 1.0)
  quantize = as_quantize('quantize', quantize)
  return _AtProgress(quantize, progress, key, state)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _AtProgress:
  quantize: Callable[..., types.Array]
  default: types.Scalar
  key: types.Array | None
  state: types.Array | None

  def __call__(self, x, *, progress=None, key=None):
    key = self.key if key is None else key
    progress = self.default if progress is None else progress
    return call(self.quantize, x, progress, key=key, state=self.state)

  def frozen(self, x):
    """Returns this quantizer with its scales as constants; see `freeze_scale`."""
    if not hasattr(self.quantize, 'frozen'):
      return self
    return dataclasses.replace(self, quantize=self.quantize.frozen(x))

  @property
  def staircase(self):
    # With a state or a key, each weight has a function of its own.
    varies = self.state is not None or self.key is not None
    return None if varies else _attach.staircase(self.quantize)

  def __repr__(self):
    given = vars(self) | {'progress': self.default}
    return _written.call(at_progress, **given)


def is_random(quantize: Callable[..., types.Array] | None) -> bool:
  """Returns whether a quantizer needs a random key.

  Args:
    quantize: a quantizer, or None.
  """
  return _needs('key', quantize)


def is_stateful(quantize: Callable[..., types.Array] | None) -> bool:
  """Returns whether a quantizer needs a state, which is its own last output.

  Args:
    quantize: a quantizer, or None.
  """
  return _needs('state', quantize)


def _needs(name, quantize):
  """Returns whether a quantizer's staircase takes a ``name`` not yet filled in."""
  if isinstance(quantize, _AtProgress) and getattr(quantize, name) is not None:
    return False
  inner = getattr(quantize, 'quantize', None)
  if inner is not None:
    return _needs(name, inner)
  found = _attach.staircase(quantize)
  # An `Annealed` staircase declares its keywords on its inner rule.
  rule = getattr(found, 'rule', found)
  return _callables.parameter(rule, name) is not None
