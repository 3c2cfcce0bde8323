"""Estimators by name: the built-in ones, and what somebody else wrote.

A built-in one is written as the call that makes it, ``gaussian(0.3)``, of those that
`bitjax.quantizers` exports; ``gaussian(0.3, relative)`` is the same in units of the layer's
spread. One's own is written ``module:function``, or ``module:factory(arguments)``, as
for `quantizers.named`, which makes both.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import re

import jax
import numpy as np

from bitjax import quantizers
from bitjax import types

__all__ = [
  'BUILT_IN',
  'REFERENCE',
  'canonical',
  'factories',
  'make',
  'module',
  'plain',
  'slug',
]

REFERENCE = 'window(1)'  # The normal straight-through estimator (STE).
# The estimators of the leaderboard: each factory at the settings of its paper or default,
# windows and Gaussians at several widths.
BUILT_IN = (
  REFERENCE,
  'window(0.5)',
  'window(0.25)',
  'window(0.75,relative)',
  'gaussian(0.1)',
  'gaussian(0.3,relative)',
  'identity()',
  'polynomial()',
  'swish_sign()',
  'dsq(0.2)',
  'dspike(3.0)',
  'ewgs(0.1)',
  'magnitude_aware()',
  'error_decay()',
  'rbnn(activations=True)',
  'reste()',
  'shrinking_window()',
  'clip(0.5)',
  'clip_quantile(0.99)',
)
_MODULE = 'bitjax.quantizers'
_RELATIVE = 'relative'
# Examples and units, one unit, one example, and at last images.
_SHAPES = ((3, 2), (4, 1), (1, 3), (2, 4, 4, 3))
_FORM = 'FACTORY(ARGUMENTS) or MODULE:FUNCTION'


def factories() -> tuple[str, ...]:
  """Returns the names of the factories of estimators that `quantizers` exports."""
  found = []
  for name in quantizers.__all__:
    made = getattr(quantizers, name)
    kind = getattr(made, '__annotations__', {}).get('return', '')
    if kind.split('.')[-1] == 'Estimator' and name not in ('named', _RELATIVE):
      found.append(name)
  return tuple(found)


def canonical(text: str) -> str:
  """Returns the name by which `quantizers.named` makes an estimator.

  Args:
    text: such as ``'window(1)'``, ``'gaussian(0.3, relative)'``, ``'identity'`` or
      ``'my_module:my_estimator'``.

  Raises:
    BadInput: for another form, or a factory that `quantizers` does not have.
  """
  call, relative = _parsed(text)
  if call is None:
    return text
  written = ast.unparse(call)
  return (
    f'{_MODULE}:{_RELATIVE}({written})' if relative else f'{_MODULE}:{written}'
  )


@functools.cache
def plain(text: str) -> str:
  """Returns the name under which an estimator is measured, whatever way it is written.

  Built-in ones that are equal to one of `BUILT_IN` have its name: ``window``,
  ``window()`` and ``window( 1 )`` are ``window(1)``.

  Args:
    text: as for `canonical`.
  """
  call, relative = _parsed(text)
  if call is None:
    return text.strip()
  own = _leaves(text)
  for name in BUILT_IN:
    if _leaves(name) == own:
      return name
  parts = [ast.unparse(part) for part in (*call.args, *call.keywords)]
  parts += [_RELATIVE] * relative
  return f'{ast.unparse(call.func)}({",".join(parts)})'


@functools.cache
def _leaves(text):
  """Returns what an estimator is made of; equal ones have equal parts."""
  leaves, structure = jax.tree.flatten(quantizers.named(canonical(text)))
  return structure, tuple(map(float, leaves))


def _parsed(text):
  """Returns the call that makes a built-in estimator, and whether it is relative.

  Of somebody's own estimator the call is None.
  """
  if ':' in text:
    return None, False
  try:
    node = ast.parse(text.strip(), mode='eval').body
  except (SyntaxError, ValueError, MemoryError, RecursionError):
    node = None
  name = node.func if isinstance(node, ast.Call) else node
  if not isinstance(name, ast.Name):
    raise types.BadInput(
      f'{text!r} must have the form {_FORM}, as in gaussian(0.3,relative).'
    )
  if name.id == _RELATIVE:
    raise types.BadInput(
      f'{text!r}: the word {_RELATIVE} is an argument, as in gaussian(0.3,relative).'
    )
  if name.id not in factories():
    close = difflib.get_close_matches(name.id, factories(), n=1)
    known = ', '.join(factories())
    way = f'there are {known}; your own is written MODULE:FUNCTION.'
    if close:
      way = f'did you mean {close[0]}?'
    raise types.BadInput(f'{text!r}: there is no estimator {name.id}; {way}')
  if not isinstance(node, ast.Call):
    return ast.Call(name, [], []), False
  marks = [a for a in node.args if isinstance(a, ast.Name)]
  if any(mark.id != _RELATIVE for mark in marks) or len(marks) > 1:
    raise types.BadInput(
      f'{text!r}: arguments must be numbers, strings, booleans, None, tuples of them, '
      f'or once the word {_RELATIVE}.'
    )
  node.args = [a for a in node.args if a not in marks]
  return node, bool(marks)


def make(text: str, images: bool = False) -> quantizers.Estimator:
  """Returns the estimator of a name, tried on numbers of usual and unusual size.

  It is tried on arrays of the shapes that it will meet too, so that it does not fail after
  minutes of measuring.

  Args:
    text: as for `canonical`.
    images: whether it is for convolutional networks too.

  Raises:
    BadInput: in one line, for what `canonical` and `quantizers.named` refuse, and for
      an estimator whose answer to finite numbers is not finite, or has not their shape.
  """
  name = canonical(text)
  try:
    estimator = quantizers.named(name, _SHAPES[: None if images else -1])
  except types.BadInput as error:
    # Somebody who writes gaussian(0.3,relative) has written no module.
    raise types.BadInput(types.one_line(error).replace(name, text)) from error
  _check_finite(text, estimator)
  return estimator


def module(text: str) -> str | None:
  """Returns the module of somebody's own estimator, None for a built-in one."""
  return text.partition(':')[0].strip() if ':' in text else None


def slug(text: str) -> str:
  """Returns the name of an estimator's files; distinct names have distinct ones."""
  plain = re.sub(r'[^A-Za-z0-9.]+', '-', text).strip('-.')
  if text in BUILT_IN:
    return plain
  return f'{plain[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'


def _check_finite(text, estimator):
  """Refuses an estimator whose answers are not finite where what it is given is."""
  x = np.array([[-2.0, -0.3], [0.0, 0.4], [1.0, 20.0]], np.float32)
  g = np.array([[0.5, -1.0], [2.0, 0.0], [-0.1, 1.0]], np.float32)
  x_q = np.where(x >= 0, 1, -1).astype(np.float32)
  rule = jax.jit(estimator)
  for progress in (0.0, 0.5, 1.0):
    try:
      found = rule(g, x, x_q, progress)
    except Exception as error:  # Whatever somebody's own rule raises.
      raise types.BadInput(
        f'{text!r}: its call under jit failed: {type(error).__name__}: '
        f'{types.one_line(error)}'
      ) from error
    bad = ~np.isfinite(np.asarray(found, np.float32))
    if bad.any():
      at = tuple(np.argwhere(bad)[0])
      raise types.BadInput(
        f'{text!r}: an estimator must return finite numbers; for g = {g[at]:g}, '
        f'x = {x[at]:g} and progress {progress:g} it returns '
        f'{np.asarray(found)[at]:g}.'
      )
