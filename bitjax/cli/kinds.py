"""The types that a field of a configuration may have, and how each is written.

One `Kind` per type knows everything about it: how a flag's text becomes a value,
how a value is printed and stored as JSON, and which values belong to the type.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import numbers
from typing import Any

from bitjax import types
from bitjax.cli import grids
from bitjax.cli import numerals

__all__ = ['Kind', 'kind_of']

MAX_LIST = 1_000_000


@dataclasses.dataclass(frozen=True)
class Kind:
  """How values of one type are written.

  Attributes:
    noun: what a value is, for messages ('an integer').
    placeholder: how the manual abbreviates a value ('INT').
    parse: text of a flag -> value; raises `BadInput` for invalid text.
    accepts: whether a Python value belongs to the type.
    multiple: whether a value is a collection of elements.
    number: `int` or `float` if the elements are numbers, else None.
  """

  noun: str
  placeholder: str
  parse: Callable[[str], Any]
  accepts: Callable[[Any], bool]
  multiple: bool = False
  number: type[int] | type[float] | None = None

  def elements(self, value: Any) -> tuple[Any, ...]:
    """Returns the elements of a value, to each of which a field's limits apply."""
    if value is None:
      return ()
    if isinstance(value, grids.Grid):
      return value.values
    return tuple(value) if self.multiple else (value,)

  def show(self, value: Any) -> str:
    """Returns the text that a flag would take for ``value``."""
    if value is None:
      return 'none'
    if isinstance(value, bool):
      return str(value).lower()
    if isinstance(value, tuple):
      return ','.join(_ranges(value))
    return str(value)

  def encode(self, value: Any) -> Any:
    """Returns ``value`` as a JSON value."""
    if isinstance(value, grids.Grid):
      return value.spec
    if isinstance(value, tuple):
      return [_plain(element) for element in value]
    return _plain(value)

  def coerce(self, value: Any) -> Any:
    """Converts a preset's text to a grid, and its list to a tuple."""
    if self.placeholder == 'GRID' and isinstance(value, str):
      return grids.Grid(value)
    return tuple(value) if isinstance(value, list) else value


def kind_of(annotation: Any) -> Kind | None:
  """Returns the `Kind` of a field's type, or None if there is none."""
  for known, kind in _KINDS:
    if annotation == known:
      return kind
  return None


def _ranges(values: tuple[Any, ...]) -> list[str]:
  """Formats values as text; runs of three or more consecutive integers as ranges."""
  texts: list[str] = []
  start = 0
  while start < len(values):
    stop = start + 1
    while (
      stop < len(values)
      and _is_int(values[stop])
      and values[stop] == values[stop - 1] + 1
    ):
      stop += 1
    if stop - start > 2:
      texts.append(f'{values[start]}:{values[stop - 1] + 1}')
    else:
      texts.extend(str(value) for value in values[start:stop])
    start = stop
  return texts


def _plain(value: Any) -> Any:
  if isinstance(value, numbers.Integral) and not isinstance(value, bool):
    return int(value)
  if isinstance(value, numbers.Real) and not isinstance(value, bool):
    return float(value)
  return value


def _is_int(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_float(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_str(value: Any) -> bool:
  return isinstance(value, str)


def _is_bool(value: Any) -> bool:
  return isinstance(value, bool)


def _is_grid(value: Any) -> bool:
  return isinstance(value, grids.Grid)


def _tuple_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
  return lambda value: isinstance(value, tuple) and all(map(accepts, value))


def _parse_bool(text: str) -> bool:
  try:
    return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
  except KeyError:
    raise types.BadInput(f'{text!r} is neither true nor false') from None


def _parse_str(text: str) -> str:
  return text


def _parse_ints(text: str) -> tuple[int, ...]:
  """Reads ``'0,3,8:12'``; a range is half-open, as in Python."""
  values: list[int] = []
  for part in _parts(text):
    start, colon, stop = part.partition(':')
    if not colon:
      values.append(numerals.integer(part))
      continue
    low, high = numerals.integer(start), numerals.integer(stop)
    if not low < high:
      raise types.BadInput(
        f'the range {numerals.shown(part)} is empty; write it as FIRST:END'
      )
    if high - low > MAX_LIST:
      raise types.BadInput(
        f'the range {numerals.shown(part)} is longer than {MAX_LIST}'
      )
    values.extend(range(low, high))
    if len(values) > MAX_LIST:
      raise types.BadInput(f'the list is longer than {MAX_LIST}')
  return tuple(values)


def _listed(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
  return lambda text: tuple(parse(part) for part in _parts(text))


def _parts(text: str) -> list[str]:
  if not text.strip():
    return []
  parts = [part.strip() for part in _split(text)]
  if '' in parts:
    raise types.BadInput(f'the list {numerals.shown(text)} has an empty entry')
  return parts


def _split(text: str) -> list[str]:
  """Splits at commas that are in no brackets and no quotes, as in ``'a,m:f(1,2)'``."""
  parts, start, depth, quote = [], 0, 0, ''
  for index, letter in enumerate(text):
    if quote:
      quote = '' if letter == quote else quote
    elif letter in '\'"' and depth:
      quote = letter
    elif letter in '([{':
      depth += 1
    elif letter in ')]}':
      depth -= 1
    elif letter == ',' and depth <= 0:
      parts.append(text[start:index])
      start = index + 1
  return [*parts, text[start:]]


def _optional(kind: Kind) -> Kind:
  def parse(text: str) -> Any:
    return None if text.lower() in ('', 'none') else kind.parse(text)

  return dataclasses.replace(
    kind,
    noun=f'{kind.noun} or none',
    parse=parse,
    accepts=lambda value: value is None or kind.accepts(value),
  )


_INT = Kind('an integer', 'INT', numerals.integer, _is_int, number=int)
_FLOAT = Kind('a number', 'NUMBER', numerals.real, _is_float, number=float)
_STR = Kind('a string', 'NAME', _parse_str, _is_str)


def _tuple(kind: Kind, parse: Callable[[str], tuple[Any, ...]]) -> Kind:
  noun = f'a tuple of {kind.noun.split()[-1]}s'
  accepts = _tuple_of(kind.accepts)
  return Kind(
    noun, f'{kind.placeholder},...', parse, accepts, True, kind.number
  )


_KINDS = (
  (int, _INT),
  (float, _FLOAT),
  (bool, Kind('true or false', 'BOOL', _parse_bool, _is_bool)),
  (str, _STR),
  (int | None, _optional(_INT)),
  (float | None, _optional(_FLOAT)),
  (str | None, _optional(_STR)),
  (tuple[int, ...], _tuple(_INT, _parse_ints)),
  (tuple[float, ...], _tuple(_FLOAT, _listed(numerals.real))),
  (tuple[str, ...], _tuple(_STR, _listed(_parse_str))),
  (
    grids.Grid,
    Kind('a cli.Grid', 'GRID', grids.Grid, _is_grid, True, float),
  ),
)
