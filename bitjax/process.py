"""How a command begins and ends as a process: its streams, and its last moment."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import NoReturn
import warnings

__all__ = ['leave', 'prepare', 'write']


def prepare() -> None:
  r"""Makes the standard streams safe; call it before anything is opened.

  Characters that the terminal's encoding lacks are written as escapes (``\u2026``).
  A stream that the caller has closed leads nowhere: otherwise the next file that is
  opened would take its number, and messages of libraries would end up in it.

  What warns the user (a `UserWarning`) is one line, without its place in the code.
  """
  warnings.formatwarning = _warning
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


_formatted = warnings.formatwarning


def _warning(message, category, filename, lineno, line=None):
  if issubclass(category, UserWarning):
    return f'warning: {" ".join(str(message).split())}\n'
  return _formatted(message, category, filename, lineno, line)


def leave(status: int) -> NoReturn:
  """Ends the process at once, with the interpreter and its libraries as they are.

  XLA may be compiling in another thread. To take it down then, as an ordinary exit
  does, waits for it or ends in a segmentation fault. An interactive interpreter goes
  on: it gets a `SystemExit`.
  """
  for stream in (sys.stdout, sys.stderr):
    # It is closed, or what reads it has gone: nobody is left to be told.
    with contextlib.suppress(AttributeError, OSError, ValueError):
      stream.flush()
  if hasattr(sys, 'ps1'):
    sys.exit(status)
  os._exit(status)


def write(text: str) -> None:
  """Writes to standard output at once, so that what fails, fails here.

  Raises:
    BrokenPipeError: if nothing reads the output any more.
    OSError: if it cannot be written; it names the standard output.
  """
  try:
    print(text, end='', flush=True)
  except BrokenPipeError:
    raise
  except OSError as error:
    raise OSError(error.errno, error.strerror, 'standard output') from error
