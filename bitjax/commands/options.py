"""Arguments of commands: what is given by its place, and options ``--name=value``."""

from __future__ import annotations

from collections.abc import Sequence

from bitjax import types

__all__ = ['check', 'parse']


def parse(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
  """Splits arguments into those by place and options.

  Raises:
    BadInput: for an option without a value, or one that is given twice.
  """
  places, options = [], {}
  for part in argv:
    if not part.startswith('-'):
      places.append(part)
      continue
    name, equals, value = part.removeprefix('--').partition('=')
    if not (part.startswith('--') and equals and value):
      raise types.BadInput(f'an option is --name=value; got {part}.')
    if name in options:
      raise types.BadInput(f'--{name} is given twice.')
    options[name] = value
  return places, options


def check(options: dict[str, str], known: Sequence[str]) -> None:
  """Raises `BadInput` for an option that is not known."""
  for name in options:
    if name not in known:
      raise types.BadInput(
        f'there is no option --{name}; options are '
        f'{", ".join(f"--{one}" for one in known)}.'
      )
