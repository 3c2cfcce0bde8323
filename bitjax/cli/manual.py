"""The manual page that ``--help`` prints."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

from bitjax.cli import command
from bitjax.cli import flags
from bitjax.cli import kinds
from bitjax.cli.study import Study

__all__ = ['page']


def page(study: Study[Any], program: str) -> str:
  """Returns the manual page of a study.

  Args:
    study: the study.
    program: the command that runs it, such as 'bitjax multistep_ste'.
  """
  fields = flags.fields(study.config)
  width = max(40, min(80, shutil.get_terminal_size().columns))
  kind = {field.name: field.kind for field in fields}
  preset = study.default_preset
  blocks = [f'{study.name}\n\n{_prose(study.doc, width)}'.rstrip()]
  blocks.append(
    'USAGE\n' + _wrap(f'{program} [--preset=NAME] [--flag=value ...]', width, 2)
  )
  if study.presets:
    entries = []
    for title, values in study.presets.items():
      sets = ', '.join(
        f'{key}={kind[key].show(kind[key].coerce(value))}'
        for key, value in values.items()
        if key in kind
      )
      title += ' (default)' if title == preset else ''
      entries.append(_entry(title, sets or "the flags' own defaults", width))
    blocks.append('PRESETS\n' + '\n'.join(entries))
  blocks.append('FLAGS\n' + '\n'.join(_flag(field, width) for field in fields))
  shared = []
  for title, (annotation, text) in command.SHARED.items():
    known = kinds.kind_of(annotation)
    if title == 'preset' and preset is not None:
      text = f'{text} (default: {preset})'
    if title == 'out':
      text = f'{text} (default: runs/{study.name}/<preset>)'
    shared.append(_entry(_title(title, known), text, width))
  blocks.append('SHARED FLAGS\n' + '\n'.join(shared))
  blocks.append('RESULTS\n' + _wrap(_FILES, width, 2))
  return '\n\n'.join(blocks) + '\n'


_FILES = (
  'The directory of the run receives config.json (every flag, seed, version and '
  'the device), results.nc and results.csv (every number), results.sha256 (their '
  'checksums), verdicts.json, figure.png and figure.pdf. An interrupted run goes on when the same command is '
  'given again, on other devices too; a finished one is only drawn again. "bitjax '
  'status DIRECTORY" says how far it is. Bad input exits with status 2 and '
  'writes nothing. Lists are separated by commas; lists of integers also take '
  'half-open ranges (0:8); a GRID is a list, log:LOW:HIGH:COUNT or '
  'lin:LOW:HIGH:COUNT.'
)


def _flag(field: flags.Field, width: int) -> str:
  limits = field.limits
  facts = []
  if limits.choices is not None:
    facts.append('one of ' + ', '.join(map(str, limits.choices)))
  if limits.minimum is not None:
    facts.append(f'>= {limits.minimum}')
  if limits.exclusive_minimum is not None:
    facts.append(f'> {limits.exclusive_minimum}')
  if limits.maximum is not None:
    facts.append(f'<= {limits.maximum}')
  if limits.exclusive_maximum is not None:
    facts.append(f'< {limits.exclusive_maximum}')
  facts.append(f'default: {field.kind.show(field.default)}')
  text = f'{limits.help} ({"; ".join(facts)})'.strip()
  return _entry(_title(field.name, field.kind), text, width)


def _title(name: str, kind: kinds.Kind | None) -> str:
  if kind is None or kind.placeholder == 'BOOL':
    return f'--[no]{name}'
  return f'--{name}={kind.placeholder}'


def _entry(title: str, text: str, width: int) -> str:
  return f'  {title}\n' + _wrap(text, width, 6)


def _wrap(text: str, width: int, indent: int) -> str:
  return textwrap.fill(
    text,
    width,
    initial_indent=' ' * indent,
    subsequent_indent=' ' * indent,
    break_on_hyphens=False,
  )


def _prose(docstring: str, width: int) -> str:
  """Keeps the docstring's lines, and wraps only those that are too long."""
  lines = []
  for line in docstring.strip().splitlines():
    indent = len(line) - len(line.lstrip())
    lines.append(line if len(line) <= width else _wrap(line, width, indent))
  return '\n'.join(lines)
