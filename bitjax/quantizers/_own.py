"""Checks an estimator that somebody else wrote, before anything is computed with it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables
from bitjax.quantizers import _staircases

__all__ = ['check_estimator']


def check_estimator(name: str, estimator: Any) -> _attach.Estimator:
  """Returns an estimator as a pytree, if it keeps the shape of its input.

  It is traced, not run.

  Args:
    name: what it is called, for the error message.
    estimator: ``(g, x, x_q, progress) -> x_bar``.

  Raises:
    BadInput: for what cannot be called like that, or returns another shape.
  """
  wanted = ('g', 'x', 'x_q', 'progress')
  if isinstance(estimator, type):
    raise types.BadInput(f'{name} must be an estimator; got a class.')
  rule = _callables.as_pytree(name, estimator, wanted)
  x = jax.ShapeDtypeStruct((3, 2), jnp.float32)
  progress = jax.ShapeDtypeStruct((), jnp.float32)
  try:
    found: Any = jax.eval_shape(
      lambda x, progress: rule(x, x, _staircases.sign()(x), progress),
      x,
      progress,
    )
  except Exception as error:
    line = ' '.join(str(error).split())[:200]
    raise types.BadInput(
      f'{name} must be an estimator ({", ".join(wanted)}) -> x_bar; it raised '
      f'{type(error).__name__}: {line}'
    ) from error
  shape = getattr(found, 'shape', None)
  if shape != x.shape:
    raise types.BadInput(
      f'{name} must return x_bar of the shape of x, here {x.shape}; got '
      f'{shape if shape is not None else type(found).__name__}.'
    )
  return rule
