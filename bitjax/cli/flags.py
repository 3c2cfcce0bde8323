"""Declares and checks the fields of a configuration: default, help and limits.

A configuration is a frozen dataclass whose fields are declared with `flag`; the
command line and Python check them with the same rules:

  @dataclasses.dataclass(frozen=True)
  class Config:
    budget: float = cli.flag(0.1, 'radius of the ball', minimum=0)

    def __post_init__(self):
      cli.check(self)

Numbers become int32 and float32 arrays, so that other integers are refused, and so are
numbers that are infinite or 0 in float32. (Numbers below its smallest normal one count
as 0: accelerators, and XLA on a CPU, flush them.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
import math
import operator
from typing import Any, cast, get_type_hints

import numpy as np

from bitjax import types
from bitjax.cli import kinds
from bitjax.cli import numerals

__all__ = ['Field', 'Limits', 'check', 'encode', 'fields', 'flag', 'plain']

_KEY = 'bitjax.cli'

LARGEST_INT = int(np.iinfo(np.int32).max)
LARGEST = float(np.finfo(np.float32).max)
TINY = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Limits:
  """The help text and the limits of a field, as `flag` declares them."""

  help: str = ''
  choices: tuple[Any, ...] | None = None
  minimum: float | None = None
  maximum: float | None = None
  exclusive_minimum: float | None = None
  exclusive_maximum: float | None = None
  nonempty: bool = True
  unique: bool = False
  longest: int | None = None
  own: Callable[[str], Any] | None = None

  def ends(self) -> list[tuple[str, float]]:
    """Lists the ends of the range: ``'>='``, ``'>'``, ``'<='`` or ``'<'``, and where."""
    ends = (
      ('>=', self.minimum),
      ('>', self.exclusive_minimum),
      ('<=', self.maximum),
      ('<', self.exclusive_maximum),
    )
    return [(sign, limit) for sign, limit in ends if limit is not None]


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of a configuration, with its default, kind and limits."""

  name: str
  default: Any
  kind: kinds.Kind
  limits: Limits


def flag(
  default: Any,
  help: str,
  *,
  choices: Sequence[Any] | None = None,
  minimum: float | None = None,
  maximum: float | None = None,
  exclusive_minimum: float | None = None,
  exclusive_maximum: float | None = None,
  nonempty: bool = True,
  unique: bool = False,
  longest: int | None = None,
  own: Callable[[str], Any] | None = None,
) -> Any:
  """Declares a field of a configuration, and with it a command-line flag.

  The limits hold for each element of a tuple or a `Grid`. In any case integers must
  fit int32, and other numbers must survive float32: finite, and not 0 unless they are.

  Args:
    default: value if neither a preset nor the command line sets one.
    help: one sentence for the manual page, with the unit.
    choices: the valid values.
    minimum: the smallest valid number.
    maximum: the largest valid number.
    exclusive_minimum: a number that all valid numbers exceed.
    exclusive_maximum: a number that exceeds all valid numbers.
    nonempty: whether a list, grid or string must not be empty.
    unique: whether a list may name each value only once; a grid always does.
    longest: the most values of a list.
    own: makes something of the user's own from a text like ``module:factory(1)``, or
      raises `BadInput`; such texts, with a colon, are valid besides ``choices``.

  Returns:
    A ``dataclasses.field``.
  """
  limits = Limits(
    help=help,
    choices=None if choices is None else tuple(choices),
    minimum=minimum,
    maximum=maximum,
    exclusive_minimum=exclusive_minimum,
    exclusive_maximum=exclusive_maximum,
    nonempty=nonempty,
    unique=unique,
    longest=longest,
    own=own,
  )
  return dataclasses.field(default=default, metadata={_KEY: limits})


def fields(config: Any) -> tuple[Field, ...]:
  """Lists the fields of a configuration or its class.

  Raises:
    TypeError: for a class that is no dataclass, or a field without default or
      of a type that no flag can have.
  """
  if not dataclasses.is_dataclass(config):
    raise TypeError(f'Config must be a frozen dataclass; got {config!r}.')
  return _fields(config if isinstance(config, type) else type(config))


@functools.cache
def _fields(cls: type) -> tuple[Field, ...]:
  hints = get_type_hints(cls)
  found = []
  for field in dataclasses.fields(cast(Any, cls)):
    kind = kinds.kind_of(hints[field.name])
    if kind is None:
      raise TypeError(
        f'Config.{field.name} has type {hints[field.name]}; a flag is an int, '
        'float, bool, str (each but bool also | None), tuple[int, ...], '
        'tuple[float, ...], tuple[str, ...] or cli.Grid.'
      )
    if field.default_factory is not dataclasses.MISSING:
      default = field.default_factory()
    elif field.default is not dataclasses.MISSING:
      default = field.default
    else:
      raise TypeError(f'Config.{field.name} needs a default.')
    limits = field.metadata.get(_KEY, Limits())
    found.append(Field(field.name, default, kind, limits))
  return tuple(found)


def check(config: Any) -> None:
  """Checks every field of a configuration against its type and limits.

  Args:
    config: an instance of a configuration; call this in ``__post_init__``.

  Raises:
    BadInput: naming the field, what is valid and what was found.
  """
  for field in fields(config):
    check_value(field, getattr(config, field.name))


def encode(config: Any) -> dict[str, Any]:
  """Returns every field of a configuration as a JSON value, by name."""
  return {
    field.name: field.kind.encode(getattr(config, field.name))
    for field in fields(config)
  }


def decode(kind: type[Any], values: dict[str, Any]) -> Any:
  """Returns a configuration of what `encode` made of it.

  Args:
    kind: the class of the configuration.
    values: JSON values by name.

  Raises:
    BadInput: for a name that is no field, or a value that its field does not take.
  """
  known = {field.name: field for field in fields(kind)}
  if strange := sorted(values.keys() - known.keys()):
    raise types.BadInput(f'there is no flag {strange[0]}.')
  return kind(**{k: known[k].kind.coerce(v) for k, v in values.items()})


def check_value(field: Field, value: Any) -> None:
  """Raises `BadInput` unless ``value`` is valid for ``field``."""
  name, limits, kind = field.name, field.limits, field.kind
  if not kind.accepts(value):
    raise types.BadInput(
      f'{name} must be {kind.noun}; got {numerals.shown(value)}.'
    )
  elements = kind.elements(value)
  if limits.nonempty and kind.multiple and not elements:
    raise types.BadInput(f'{name} needs at least one value.')
  if limits.nonempty and isinstance(value, str) and not value:
    raise types.BadInput(f'{name} must not be empty.')
  if limits.longest is not None and len(elements) > limits.longest:
    raise types.BadInput(
      f'{name} takes at most {limits.longest} value'
      f'{"s" if limits.longest > 1 else ""}; got {len(elements)}.'
    )
  for element in elements:
    if kind.number is not None:
      _check_number(name, kind.number, limits, element)
    choices = limits.choices
    if limits.own is not None and (choices is None or ':' in element):
      _check_own(name, limits.own, element)
      continue
    if choices is not None and element not in choices:
      valid = ', '.join(str(choice) for choice in choices)
      valid += ' or MODULE:FACTORY(ARGUMENTS)' if limits.own else ''
      got = numerals.shown(element)
      raise types.BadInput(f'{name} must be one of {valid}; got {got}.')
  if limits.unique or kind.placeholder == 'GRID':
    _check_unique(name, kind, elements)


def _check_own(name: str, make: Callable[[str], Any], text: str) -> None:
  try:
    make(text)
  except types.BadInput as error:
    raise types.BadInput(f'{name}: {error}') from error


def _check_unique(name: str, kind: kinds.Kind, elements: Sequence[Any]) -> None:
  stored = elements
  if kind.number is float:
    stored = np.asarray(elements, np.float32).tolist()
  if len(set(stored)) < len(stored):
    seen: set[Any] = set()
    twice = next(
      element
      for element, known in zip(elements, stored, strict=True)
      if known in seen or seen.add(known)
    )
    raise types.BadInput(f'{name} lists {twice} twice.')


_HOLDS = {
  '>=': operator.ge,
  '>': operator.gt,
  '<=': operator.le,
  '<': operator.lt,
}


def plain(limit: float) -> str:
  """Returns an end of a range as text."""
  return f'{limit:g}' if isinstance(limit, float) else str(limit)


def _check_number(name: str, kind: type, limits: Limits, number: Any) -> None:
  got, ends, rounded = numerals.shown(number), limits.ends(), number
  if kind is float:
    size = abs(number)
    if not size < math.inf:
      raise types.BadInput(f'{name} must be finite; got {number}.')
    if size > LARGEST:
      raise types.BadInput(
        f'{name} must be at most {LARGEST:.2g} in size, to be finite in float32; '
        f'got {got}.'
      )
    if 0 < size < TINY:
      raise types.BadInput(
        f'{name} must be 0 or at least {TINY:.2g} in size, as smaller numbers are 0 '
        f'in float32; got {got}.'
      )
    rounded = float(np.float32(number))
  else:
    ends = [*ends, ('>=', -LARGEST_INT - 1), ('<=', LARGEST_INT)]
  for sign, limit in ends:
    holds = _HOLDS[sign](number, limit)
    if not holds or (sign in '<>' and not _HOLDS[sign](rounded, limit)):
      inside = ', also in float32' if holds else ''
      raise types.BadInput(
        f'{name} must be {sign} {plain(limit)}{inside}; got {got}.'
      )
