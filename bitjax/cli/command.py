"""Parses the command line of a study: flags override presets, presets the defaults.

The flags live in an `absl.flags.FlagValues` of their own, so that studies, tests and
other people's programs in the same process never share flags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
from typing import Any

from bitjax import memory
from bitjax import types
from bitjax.cli import flags
from bitjax.cli import kinds
from bitjax.cli.study import Study
from bitjax.sweeps import meshes

__all__ = ['SHARED', 'Request', 'parse', 'wants_help']

_HELP = ('-h', '-help', '--help')


@dataclasses.dataclass(frozen=True)
class _Shared:
  """The flags that every study has."""

  preset: str | None = flags.flag(
    None, 'which of the presets above to start from'
  )
  out: str = flags.flag('', 'directory of the run')
  overwrite: bool = flags.flag(
    False, 'replace the run that the directory holds'
  )
  accept_other_code: bool = flags.flag(
    False,
    'go on with chunks that other code computed; results and verdicts say so',
  )
  chunk: int | None = flags.flag(
    None,
    'lanes between two saves, at most, on each device: what a killed run can '
    "lose (default: the study's choice, else 64, or 1 for trainings on a CPU)",
    minimum=1,
  )
  width: int | None = flags.flag(
    None,
    'lanes that are vectorised at a time (default: 1 on a CPU, as many as the '
    'memory holds on an accelerator)',
    minimum=1,
  )
  memory: str | None = flags.flag(
    None,
    'what one program may take on one device, such as 8GiB (default: 3/4 of the '
    "device's memory, at most 16GiB, or of the machine's on a CPU)",
  )
  mesh: str = flags.flag(
    meshes.AUTO,
    'devices to use: lanes:N splits the lanes over N devices, lanes:N,batch:M '
    'also the batch of each lane over M, where the study allows it (default: '
    'auto, all devices for lanes)',
  )
  coordinator_address: str = flags.flag(
    '',
    'HOST:PORT of process 0, for a job of several processes that share the '
    'directory; auto finds everything in the environment of SLURM, Open MPI, GKE '
    'or Cloud TPU',
  )
  num_processes: int | None = flags.flag(
    None, 'processes of the job', minimum=1
  )
  process_id: int | None = flags.flag(
    None, 'number of this process in the job, from 0', minimum=0
  )
  compilation_cache: bool = flags.flag(
    True,
    'keep compiled programs in ~/.cache/bitjax, so that the next run starts at '
    'once; --nocompilation_cache does not',
  )


SHARED = {field.name: field for field in flags.fields(_Shared)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(_Shared):
  """What a command line asks for: the shared flags, and the study's own.

  Attributes:
    config: the resolved configuration.
    preset: name of the preset that the configuration started from; None if there are
      no presets.
  """

  config: Any
  preset: str | None


def wants_help(argv: Sequence[str]) -> bool:
  """Returns whether the command line asks for the manual page."""
  return any(argument in _HELP for argument in argv)


def parse(study: Study[Any], argv: Sequence[str]) -> Request:
  """Resolves a command line.

  Args:
    study: the study, with its configuration and presets.
    argv: the arguments, without the name of the program.

  Returns:
    The request, with a checked configuration.

  Raises:
    BadInput: for anything that the user should correct.
  """
  presets = study.presets
  fields = {field.name: field for field in flags.fields(study.config)}
  _check_presets(fields, presets)
  given = _given(fields, argv)
  shared: dict[str, Any] = {
    name: given.pop(name) for name in SHARED if name in given
  }
  preset = shared.pop('preset', study.default_preset)
  if preset is not None and preset not in presets:
    valid = ', '.join(presets) or 'none, this study has no presets'
    raise types.BadInput(f'unknown preset {preset!r}; valid presets: {valid}.')
  for name, value in shared.items():
    flags.check_value(SHARED[name], value)
  meshes.parse(shared.get('mesh', meshes.AUTO))
  if shared.get('memory') is not None:
    memory.parse(shared['memory'])
  values = {
    name: fields[name].kind.coerce(value)
    for name, value in (presets[preset] if preset is not None else {}).items()
  }
  resolved = study.config(**(values | given))
  flags.check(resolved)
  return Request(config=resolved, preset=preset, **shared)


def _check_presets(fields, presets) -> None:
  taken = sorted({*SHARED, 'help', 'h', 'flagfile', 'undefok'} & set(fields))
  if taken:
    raise TypeError(
      f'Config.{taken[0]} is the name of a shared flag; rename it.'
    )
  for preset, values in presets.items():
    for name in values:
      if name not in fields:
        raise types.BadInput(
          f'preset {preset!r} sets {name!r}, which is not a field of Config; '
          f'the fields are {", ".join(fields)}.'
        )


def _given(fields: dict[str, flags.Field], argv: Sequence[str]):
  """Returns the values of the flags that the command line names."""
  from absl import flags as absl_flags

  class Parser(absl_flags.ArgumentParser):
    def __init__(self, kind: kinds.Kind):
      self._kind = kind

    def parse(self, argument: str) -> Any:
      return self._kind.parse(argument)

  known = absl_flags.FlagValues()
  kind_of = {name: field.kind for name, field in fields.items()}
  kind_of |= {name: field.kind for name, field in SHARED.items()}
  for name, kind in kind_of.items():
    if kind.placeholder == 'BOOL':
      boolean = absl_flags.BooleanFlag(name, None, '')
      boolean.parser = Parser(kind)
      absl_flags.DEFINE_flag(boolean, known)
    else:
      absl_flags.DEFINE(Parser(kind), name, None, '', flag_values=known)
  # With --undefok, absl accepts every flag that it names, typing errors included.
  for argument in argv:
    if argument.lstrip('-').split('=')[0] == 'undefok':
      raise types.BadInput(_unknown('undefok', kind_of))
  try:
    rest = known(['study', *argv])[1:]
  except absl_flags.UnrecognizedFlagError as error:
    raise types.BadInput(_unknown(error.flagname, kind_of)) from None
  except (absl_flags.Error, ValueError) as error:  # ValueError: --noNAME=VALUE.
    raise types.BadInput(str(error)) from None
  if rest:
    raise types.BadInput(
      f'unexpected argument {rest[0]!r}; flags are written --name=value.'
    )
  return {name: known[name].value for name in kind_of if known[name].present}


def _unknown(name: str, valid: Mapping[str, Any]) -> str:
  close = difflib.get_close_matches(name, valid, n=1)
  way = f'did you mean --{close[0]}?' if close else '--help lists the flags.'
  return f'unknown flag --{name}; {way}'
