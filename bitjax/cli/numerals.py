"""Reads numbers as they are written on a command line, and shows them in messages.

Only plain decimal notation is read: Python would also take underscores (``1_000``)
and the digits of every script, which a list of numbers makes easy to misread.
"""

from __future__ import annotations

from typing import Any

from bitjax import types

__all__ = ['integer', 'real', 'shown']

_LONGEST = 40


def integer(text: str) -> int:
  """Returns the integer that ``text`` writes; raises `BadInput` for anything else."""
  try:
    return int(_plain(text))
  except ValueError:
    digits = text.strip().lstrip('+-')
    if (
      digits.isascii() and digits.isdigit()
    ):  # Python reads 4300 digits at most.
      raise types.BadInput(
        f'an integer of {len(digits)} digits is too large'
      ) from None
    raise types.BadInput(f'{shown(text)} is not an integer') from None


def real(text: str) -> float:
  """Returns the number that ``text`` writes; raises `BadInput` for anything else.

  Infinity and NaN are numbers here, and -0 is 0.
  """
  try:
    return float(_plain(text)) + 0.0
  except ValueError:
    raise types.BadInput(f'{shown(text)} is not a number') from None


def shown(value: Any) -> str:
  """Returns the representation of a value, cut if it is long."""
  if isinstance(value, int) and value.bit_length() > 4 * _LONGEST:
    return f'an integer of {value.bit_length()} bits'
  text = repr(value)
  return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + '...'


def _plain(text: str) -> str:
  if not text.isascii() or '_' in text:
    raise ValueError
  return text
