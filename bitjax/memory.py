"""How many bytes one compiled program may take on one device, and how many it takes.

A program's memory is what its compiler says: its arguments, its outputs, and the
temporaries that it keeps on the way. The *budget* bounds their sum. `limited` sets it; the
default leaves room for what else is on the device, and for what the compiler does not
count. What runs many lanes (`bitjax.lanes`, scans, sweeps) vectorises as many of them as
the budget has room for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import math
import os
import pathlib
import re
from typing import Any, NamedTuple

import jax

from bitjax import types

__all__ = [
  'Exceeded',
  'Taken',
  'budget',
  'check',
  'checked',
  'device',
  'limited',
  'machine',
  'of',
  'parse',
  'shown',
]

# Bytes of a program on an accelerator, unless `limited` says more.
MOST = 16 * 2**30
_SHARE = 3 / 4  # Of what there is; the rest is left to everything else.
_CONTAINER = pathlib.Path('/sys/fs/cgroup/memory.max')
_UNITS = {
  **{unit: 1000**power for power, unit in enumerate(('B', 'KB', 'MB', 'GB', 'TB'))},
  **{f'{unit}iB': 1024**power for power, unit in enumerate('KMGT', start=1)},
}  # fmt: skip
_SIZE = re.compile(r'([0-9]{1,18}(?:\.[0-9]*)?) *((?:[KMGT]i?)?B)')

# A context of JAX's own, so that a function that was traced under one budget is traced
# again under another.
_LIMIT: Any = jax.make_user_context(None)


class Exceeded(types.BadInput):
  """Bad input whose program does not fit the budget even one lane at a time."""


class Taken(NamedTuple):
  """The bytes that a compiled program takes on each of its devices.

  Attributes:
    arguments: bytes of its arguments.
    outputs: bytes of its outputs, without those that replace an argument in place.
    temporaries: bytes of all that it keeps on the way.
  """

  arguments: int
  outputs: int
  temporaries: int

  @property
  def total(self) -> int:
    """All bytes that must be there at once."""
    return sum(self)


def of(compiled: jax.stages.Compiled) -> Taken | None:
  """Returns what a compiled program takes; None if its compiler does not say."""
  found: Any = compiled.memory_analysis()
  if found is None:
    return None
  return Taken(
    found.argument_size_in_bytes,
    found.output_size_in_bytes - found.alias_size_in_bytes,
    found.temp_size_in_bytes,
  )


def budget() -> float:
  """Returns the bytes that one program may take on one device.

  They are those of `limited`; else on an accelerator 3/4 of what it says that it has, and
  at most 16 GiB; else, on a CPU, 3/4 of the machine's or container's memory, divided by
  the number of this process's devices. It is infinite where no system tells.
  """
  if _LIMIT.value is not None:
    return _LIMIT.value
  if jax.default_backend() == 'cpu':
    return _SHARE * machine() / jax.local_device_count()
  return min(MOST, _SHARE * (device() or math.inf))


@contextlib.contextmanager
def limited(size: int | str | None) -> Iterator[None]:
  """Sets the budget of everything that this thread traces within the context.

  Args:
    size: bytes, as a number or as `parse` reads them; None leaves the budget as it is.

  Raises:
    BadInput: for anything else.
  """
  if isinstance(size, str):
    size = parse(size)
  if size is None:
    yield
    return
  number = types.integer(size)
  if number is None or number < 1:
    raise types.BadInput(
      'The memory budget must be an integer >= 1, or such as 8GiB; got '
      f'{types.shown(size)}.'
    )
  with _LIMIT(number):
    yield


def parse(text: str) -> int:
  """Reads a number of bytes, such as ``'8GiB'``, ``'1.5 GB'`` or ``'800MiB'``.

  Raises:
    BadInput: for anything else, and for less than one byte.
  """
  match = _SIZE.fullmatch(text.strip())
  size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
  if size < 1:
    raise types.BadInput(
      'memory is a number of bytes with its unit, such as 8GiB or 800MB; got '
      f'{text!r}.'
    )
  return size


def machine() -> float:
  """Returns the bytes of this machine's or container's memory; infinite if unknown."""
  memory = math.inf
  if hasattr(os, 'sysconf'):  # Windows has none.
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  with contextlib.suppress(OSError, ValueError):  # No container, or no limit.
    memory = min(memory, int(_CONTAINER.read_text()))
  return memory


def device() -> int:
  """Returns the bytes of an accelerator's memory; 0 on a CPU, or if it does not say."""
  first = jax.local_devices()[0]
  if first.platform == 'cpu':
    return 0
  return (first.memory_stats() or {}).get('bytes_limit', 0)


def check(what: str, size: float) -> None:
  """Raises `Exceeded` if a size is above the budget.

  Args:
    what: what takes so much, as the subject of a sentence.
    size: bytes.
  """
  if size > budget():
    raise Exceeded(
      f'{what} takes {shown(size)} of memory, and one program may take '
      f'{shown(budget())}; ways out are more (--memory, or memory.limited in Python), '
      'where the device has it, or fewer examples'
    )


def checked(fn: Any, what: str) -> Callable[..., Any]:
  """Returns a jitted function that refuses to run where its program does not fit.

  Before the first run with a combination of shapes, dtypes, devices and budget, the
  memory of the program that ``jax.jit`` has compiled for it is compared with the budget.

  Args:
    fn: a function that ``jax.jit`` returned, to be called with positional arguments.
    what: what takes so much, as for `check`.

  Returns:
    The function, with the method ``lower`` of ``fn``. It raises `Exceeded`.
  """
  fitting = set()

  def call(*args: Any) -> Any:
    leaves, structure = jax.tree.flatten(args)
    kinds = [(jax.typeof(x), getattr(x, 'sharding', None)) for x in leaves]
    key = structure, tuple(kinds), budget()
    if key not in fitting:
      # It is kept by `jax.jit`, so the call below compiles nothing.
      taken = of(fn.lower(*args).compile())
      if taken is not None:
        check(what, taken.total)
      fitting.add(key)
    return fn(*args)

  setattr(call, 'lower', fn.lower)  # noqa: B010 - functions have no such field.
  return call


def shown(size: float) -> str:
  """Returns a number of bytes in words: ``'3.5 GiB'``, or ``'unlimited'``."""
  if math.isinf(size):
    return 'unlimited'
  for unit in ('B', 'KiB', 'MiB', 'GiB', 'TiB'):
    if size < 1000:  # Three digits at most.
      return f'{size:.3g} {unit}'
    size /= 1024
  return f'{size:.3g} PiB'
