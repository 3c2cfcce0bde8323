"""Makes somebody's own estimator from its name, as a command line gives it.

The name is ``module:factory(arguments)``. The module is imported, from the current
directory too; the arguments are literals, or names and calls in the same module.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
import importlib
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables

__all__ = ['named']

_FORM = 'MODULE:FACTORY(ARGUMENTS), as in my_module:triangle(0.5)'


def named(
  text: str, shapes: Sequence[tuple[int, ...]] = ((3, 2),)
) -> _attach.Estimator:
  """Returns the estimator of a name like ``my_module:triangle(0.5)``.

  Arguments are numbers, strings, booleans, None and tuples of them, or again names and
  calls of the same module, as in ``bitjax.quantizers:relative(gaussian(0.3))``, by position
  or by keyword. Without parentheses, ``my_module:rule`` is the estimator itself. The
  module is looked for on Python's path, then in the current directory, which stays on
  the path.

  Args:
    text: the name.
    shapes: of the ``x`` that it is tried on, without computing; the default is that of a
      kernel, as an estimator of weights may need the axis of units.

  Returns:
    The estimator, a callable pytree.

  Raises:
    BadInput: in one line, for another form, a module that is absent or fails, a name
      that it lacks, arguments that do not fit, and what is no estimator: its answer
      must be real numbers of the shape of ``x``, and its hyperparameters numbers.
  """
  name, node = _parsed(text)
  found = _checked(text, _value(text, name, _imported(text, name), node))
  for shape in shapes:
    _try(text, found, shape)
  return found


def _parsed(text):
  """Returns the module's name and what is asked of it, a name or a call."""
  module, colon, rest = text.partition(':')
  wrong = types.BadInput(f'{text!r} must have the form {_FORM}.')
  names = module.strip().split('.')
  if not colon or not all(map(str.isidentifier, names)):
    raise wrong
  try:
    node = ast.parse(rest.strip(), mode='eval').body
  except (SyntaxError, ValueError, MemoryError, RecursionError):
    raise wrong from None
  called = node.func if isinstance(node, ast.Call) else node
  if not _is_name(called):
    raise wrong
  return module.strip(), node


def _is_name(node):
  """Returns whether a node is a name, or an attribute of one."""
  while isinstance(node, ast.Attribute):
    node = node.value
  return isinstance(node, ast.Name)


def _value(text, name, module, node):
  """Returns what a node means: a name or a call in the module, or a literal."""
  if _is_name(node):
    found = module
    for part in ast.unparse(node).split('.'):
      if not hasattr(found, part):
        raise types.BadInput(f'{text!r}: {name} has no {ast.unparse(node)}.')
      found = getattr(found, part)
    return found
  if isinstance(node, ast.Call) and _is_name(node.func):
    factory = _value(text, name, module, node.func)
    args = [_value(text, name, module, arg) for arg in node.args]
    kwargs = {k.arg: _value(text, name, module, k.value) for k in node.keywords}
    if None in kwargs:  # Of ** there are no names.
      raise _unknown(text)
    return _called(text, factory, args, kwargs)
  try:
    value = ast.literal_eval(node)
  except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
    raise _unknown(text) from None
  if not _plain(value):
    raise _unknown(text)
  return value


def _unknown(text):
  return types.BadInput(
    f'{text!r}: arguments must be numbers, strings, booleans, None, tuples of them, '
    'or calls of the same module.'
  )


def _plain(value):
  if isinstance(value, tuple):
    return all(map(_plain, value))
  return value is None or isinstance(value, (bool, int, float, str))


def _imported(text, module):
  here = os.getcwd()
  if here not in sys.path and '' not in sys.path:
    sys.path.append(here)
  importlib.invalidate_caches()
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    # A module that the named one imports may be what is absent.
    lacking = error.name or module
    if not f'{module}.'.startswith(f'{lacking}.'):
      raise types.BadInput(
        f'{text!r}: importing {module} failed: there is no module {lacking}.'
      ) from None
    stem = module.removesuffix('.py')
    if stem != module == lacking:  # The module itself is there.
      raise types.BadInput(
        f'{text!r}: a module is named without .py, as in {stem}:rule.'
      ) from None
    raise types.BadInput(
      f'{text!r}: there is no module {lacking}; looked in {here} too.'
    ) from None
  except (
    Exception,
    SystemExit,
  ) as error:  # Whatever somebody's own module raises.
    raise types.BadInput(
      f'{text!r}: importing {module} failed: {_line(error)}.'
    ) from error


def _called(text, factory, args, kwargs):
  if not callable(factory):
    raise types.BadInput(
      f'{text!r}: a factory of estimators is needed; got {_kind(factory)}.'
    )
  try:
    return factory(*args, **kwargs)
  except Exception as error:  # Arguments that do not fit, whatever says so.
    raise types.BadInput(f'{text!r}: {_line(error)}.') from error


def _checked(text, estimator):
  """Returns an estimator as a pytree, if its hyperparameters are numbers."""
  estimator: Any = _callables.as_pytree(
    repr(text), estimator, ('g', 'x', 'x_q', 'progress')
  )
  for leaf in jax.tree.leaves(estimator):
    if not isinstance(leaf, (bool, int, float)) and not hasattr(leaf, 'dtype'):
      raise types.BadInput(
        f'{text!r}: hyperparameters must be numbers; got {leaf!r}.'
      )
  return estimator


def _try(text, estimator, shape):
  """Refuses an estimator that does not answer with real numbers of the shape of ``x``."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  progress = jax.ShapeDtypeStruct((), jnp.float32)
  try:
    found = jax.eval_shape(estimator, x, x, x, progress)
  except Exception as error:  # Whatever somebody's own rule raises.
    raise types.BadInput(
      f'{text!r}: an estimator (g, x, x_q, progress) is needed; its call failed for '
      f'x of shape {shape}: {_line(error)}.'
    ) from error
  if getattr(found, 'shape', None) != x.shape:
    got = getattr(found, 'shape', None)
    got = _kind(found) if got is None else f'shape {got}'
    raise types.BadInput(
      f'{text!r}: an estimator must return an array of the shape of x; for '
      f'{x.shape} it returns {got}.'
    )
  if not any(
    jnp.issubdtype(found.dtype, k) for k in (jnp.integer, jnp.floating)
  ):
    raise types.BadInput(
      f'{text!r}: an estimator must return real numbers; it returns {found.dtype}.'
    )


def _kind(value):
  return f'an object of type {type(value).__name__}'


def _line(error):
  """Returns the first line of an error, as Python prints it."""
  text = next(iter(str(error).strip().splitlines()), '').rstrip('.')
  if isinstance(error, types.BadInput):
    return text
  return ': '.join(filter(None, (type(error).__name__, text)))
