"""Declares and checks the fields of a configuration: default, help and limits.

A configuration is a frozen dataclass whose fields are declared with `flag`; the
command line and Python check them with the same rules:

  @dataclasses.dataclass(frozen=True)
  class Config:
    budget: float = cli.flag(0.1, 'radius of the ball', minimum=0)

    def __post_init__(self):
      cli.check(self)
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
from typing import Any, get_type_hints

from bitjax import types
from bitjax.cli import kinds

__all__ = ['Field', 'Limits', 'check', 'encode', 'fields', 'flag']

_KEY = 'bitjax.cli'


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
) -> Any:
  """Declares a field of a configuration, and with it a command-line flag.

  The limits hold for each element of a tuple or a `Grid`. Numbers must always
  be finite.

  Args:
    default: value if neither a preset nor the command line sets one.
    help: one sentence for the manual page, with the unit.
    choices: the valid values.
    minimum: the smallest valid number.
    maximum: the largest valid number.
    exclusive_minimum: a number that all valid numbers exceed.
    exclusive_maximum: a number that exceeds all valid numbers.
    nonempty: whether a list, grid or string must not be empty.
    unique: whether a list may name each value only once.

  Returns:
    A `dataclasses.field`.
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
  cls = config if isinstance(config, type) else type(config)
  hints = get_type_hints(cls)
  found = []
  for field in dataclasses.fields(cls):
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


def check_value(field: Field, value: Any) -> None:
  """Raises `BadInput` unless ``value`` is valid for ``field``."""
  name, limits = field.name, field.limits
  if not field.kind.accepts(value):
    raise types.BadInput(f'{name} must be {field.kind.noun}; got {value!r}.')
  elements = field.kind.elements(value)
  if limits.nonempty and field.kind.multiple and not elements:
    raise types.BadInput(f'{name} needs at least one value.')
  if limits.nonempty and isinstance(value, str) and not value:
    raise types.BadInput(f'{name} must not be empty.')
  if limits.unique and len(set(elements)) < len(elements):
    twice = next(e for e in elements if elements.count(e) > 1)
    raise types.BadInput(f'{name} lists {twice} twice.')
  for element in elements:
    _check_element(name, limits, element)


def _check_element(name: str, limits: Limits, element: Any) -> None:
  if isinstance(element, float) and not math.isfinite(element):
    raise types.BadInput(f'{name} must be finite; got {element}.')
  if limits.choices is not None and element not in limits.choices:
    valid = ', '.join(str(choice) for choice in limits.choices)
    raise types.BadInput(f'{name} must be one of {valid}; got {element!r}.')
  if limits.minimum is not None and element < limits.minimum:
    raise types.BadInput(f'{name} must be >= {limits.minimum}; got {element}.')
  if limits.maximum is not None and element > limits.maximum:
    raise types.BadInput(f'{name} must be <= {limits.maximum}; got {element}.')
  low = limits.exclusive_minimum
  if low is not None and element <= low:
    raise types.BadInput(f'{name} must be > {low}; got {element}.')
  high = limits.exclusive_maximum
  if high is not None and element >= high:
    raise types.BadInput(f'{name} must be < {high}; got {element}.')
