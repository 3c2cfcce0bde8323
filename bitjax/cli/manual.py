"""The manual page that ``--help`` prints."""

from __future__ import annotations

import inspect
import itertools
import re
import shutil
import textwrap
from typing import Any

from bitjax.cli import command
from bitjax.cli import flags
from bitjax.cli import kinds
from bitjax.cli.study import Study

__all__ = ['page']

_WIDEST = 100  # Longer lines are hard to read.
# What line breaks belong to: indented text (code, continued items), lists, tables, rules.
_FIXED = re.compile(r'\s|[-*+•] |\d+[.)] |\||[-=~+|: ]+$|>>>|.*\S( {3,}|\t)\S')


def page(study: Study[Any], program: str, *, results: str | None = None) -> str:
  """Returns the manual page of a study.

  Args:
    study: the study.
    program: the command that runs it, such as 'bitjax multistep_ste'.
    results: what the command writes, in one paragraph; None for what studies write.
  """
  fields = flags.fields(study.config)
  width = max(40, min(_WIDEST, shutil.get_terminal_size().columns))
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
  own = (
    _flag(f, [*_range(f), f'default: {f.kind.show(f.default)}'], width)
    for f in fields
  )
  blocks.append('FLAGS\n' + '\n'.join(own))
  blocks.append('SHARED FLAGS\n' + '\n'.join(_shared(study, width)))
  blocks.append('RESULTS\n' + _wrap(results or _FILES, width, 2))
  return '\n\n'.join(blocks) + '\n'


_FILES = (
  'The directory of the run receives config.json (every flag, seed, version and '
  'the device), results.nc and results.csv (every number), results.sha256 (their '
  'checksums), verdicts.json, figure.png and figure.pdf, and in some studies '
  'figure_supplement.png and .pdf. An interrupted run goes on when the '
  'same command is given again, with the same code, on any number of devices of the '
  'same kind; a finished one is only drawn again. "bitjax '
  'status DIRECTORY" says how far it is. Bad input exits with status 2 and '
  'writes nothing. Lists are separated by commas; lists of integers also take '
  'half-open ranges (0:8); a GRID is a list, log:LOW:HIGH:COUNT or '
  'lin:LOW:HIGH:COUNT. All numbers fit 32 bits: integers are at most '
  f'{flags.LARGEST_INT}, other numbers 0 or from {flags.TINY:.2g} to '
  f'{flags.LARGEST:.2g} in size.'
)


def _shared(study: Study[Any], width: int) -> list[str]:
  """Returns the entries of the flags that every study has."""
  defaults = {
    'preset': study.default_preset,
    'out': f'runs/{study.name}/<preset>',
  }
  entries = []
  for name, field in command.SHARED.items():
    facts = _range(field)
    if defaults.get(name) is not None:
      facts.append(f'default: {defaults[name]}')
    entries.append(_flag(field, facts, width))
  return entries


def _flag(field: flags.Field, facts: list[str], width: int) -> str:
  text = field.limits.help
  if facts:
    # A default that the help already gives in parentheses goes on.
    start = f'{text[:-1]}; ' if text.endswith(')') else f'{text} ('
    text = f'{start}{"; ".join(facts)})'.strip()
  return _entry(_title(field.name, field.kind), text, width)


def _range(field: flags.Field) -> list[str]:
  """Returns what is said of a field's values, from its declaration."""
  limits = field.limits
  facts = []
  if limits.choices is not None:
    facts.append('one of ' + ', '.join(map(str, limits.choices)))
  if limits.own is not None:
    facts.append('or your own: MODULE:FACTORY(ARGUMENTS)')
  facts += [f'{sign} {flags.plain(limit)}' for sign, limit in limits.ends()]
  if limits.longest is not None:
    facts.append(
      f'at most {limits.longest} values' if limits.longest > 1 else 'one value'
    )
  return facts


def _title(name: str, kind: kinds.Kind) -> str:
  if kind.placeholder == 'BOOL':
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
  """Fills the docstring's paragraphs, and keeps the lines of everything else."""
  lines = inspect.cleandoc(docstring).splitlines()
  fences = itertools.accumulate(line.startswith('```') for line in lines)
  blocks = []
  for fixed, block in itertools.groupby(
    zip(lines, fences, strict=True),
    lambda pair: (
      pair[1] % 2 == 1
      or not pair[0]
      or pair[0].startswith('```')
      or _FIXED.match(pair[0]) is not None
    ),
  ):
    text = [line for line, _ in block]
    blocks += text if fixed else [_wrap(' '.join(text), width, 0)]
  return '\n'.join(blocks)
