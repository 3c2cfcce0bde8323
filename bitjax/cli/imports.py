"""Makes what a flag names in the user's own module: ``module:name(0.5, mode='soft')``.

The text is parsed, never evaluated: arguments are Python literals (numbers, strings,
None, booleans, tuples and lists of these). The module is imported, from the current
directory too.
"""

from __future__ import annotations

import ast
import functools
import importlib
import os
import sys
from typing import Any

from bitjax import types
from bitjax.cli import numerals

__all__ = ['imported', 'is_import', 'split']

_FORM = 'MODULE:NAME or MODULE:NAME(ARGUMENTS), as in mine:triangle(0.5)'
_OPEN, _CLOSE = '([{', ')]}'


def is_import(text: Any) -> bool:
  """Returns whether a value names something of a module: whether it has a colon."""
  return isinstance(text, str) and ':' in text


def split(text: str) -> list[str]:
  """Splits a list at its commas, but for those in brackets or in quotes."""
  parts, depth, quote = [''], 0, ''
  for letter in text:
    if quote:
      quote = '' if letter == quote else quote
    elif letter in '\'"' and depth:
      quote = letter
    elif letter in _OPEN:
      depth += 1
    elif letter in _CLOSE:
      depth = max(depth - 1, 0)
    if letter == ',' and not depth and not quote:
      parts.append('')
    else:
      parts[-1] += letter
  return [part.strip() for part in parts]


@functools.cache
def imported(text: str) -> Any:
  """Returns what ``text`` names: an attribute of a module, called if it has arguments.

  Args:
    text: ``module:name`` or ``module:name(arguments)``; names may have dots.

  Raises:
    BadInput: for another form, arguments that are not literals or do not fit, and a
      module or an attribute that cannot be found.
  """
  module_name, _, rest = text.partition(':')
  try:
    found = ast.parse(rest.strip(), mode='eval').body
    call = found if isinstance(found, ast.Call) else None
    name = _dotted(found if call is None else call.func)
    args = [] if call is None else [_literal(arg) for arg in call.args]
    kwargs = {k.arg: _literal(k.value) for k in call.keywords} if call else {}
    if None in kwargs:
      raise ValueError('** is no literal')
    if not all(part.isidentifier() for part in module_name.split('.')):
      raise ValueError('no module')
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    raise types.BadInput(
      f'{numerals.shown(text)} is not of the form {_FORM}; arguments are numbers, '
      'strings, None, True, False, and tuples or lists of these.'
    ) from None
  value = _module(module_name)
  for part in name.split('.'):
    if not hasattr(value, part):
      raise types.BadInput(f'the module {module_name} has no {name}.')
    value = getattr(value, part)
  if call is None:
    return value
  try:
    return value(*args, **kwargs)
  except types.BadInput as error:
    raise types.BadInput(f'{text}: {error}') from None
  except (TypeError, ValueError) as error:
    raise types.BadInput(
      f'{text}: the arguments do not fit: {error}.'
    ) from error


def _dotted(node):
  if isinstance(node, ast.Attribute):
    return f'{_dotted(node.value)}.{node.attr}'
  if isinstance(node, ast.Name):
    return node.id
  raise ValueError('no name')


def _literal(node):
  return ast.literal_eval(node)


def _module(name):
  here = os.getcwd()
  sys.path.append(here)
  try:
    importlib.invalidate_caches()
    return importlib.import_module(name)
  except ImportError as error:
    raise types.BadInput(
      f'the module {name} cannot be imported: {error}; it must be installed or in '
      f'{here}.'
    ) from None
  except Exception as error:
    raise types.BadInput(
      f'the module {name} cannot be imported: {type(error).__name__}: {error}.'
    ) from error
  finally:
    sys.path.remove(here)
