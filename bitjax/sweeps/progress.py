"""Reports the progress of a sweep: a bar on a terminal, plain lines elsewhere.

A bar remains a bar: on a narrow terminal the label is cut in the middle, and some of the
numbers are left out.
"""

from __future__ import annotations

from collections.abc import Callable
import shutil
import sys
import time
from typing import Any, TextIO

__all__ = ['Bar', 'Lines', 'Silent', 'Work', 'duration', 'reporter', 'say']


class Silent:
  """Reports nothing, and defines the interface of the other reporters."""

  def compiling(self, label: str) -> None:
    """Reports that a program is being compiled for the combination ``label``."""

  def advance(self, count: int, label: str) -> None:
    """Reports that ``count`` more lanes of the combination ``label`` are done."""

  def close(self) -> None:
    """Ends the report, when the sweep ends or is interrupted."""


class Lines(Silent):
  """Reports in plain lines, few enough for a log file.

  Args:
    name: the sweep's name.
    total: number of its lanes.
    done: number of lanes that were done before; they do not count in the rate.
    stream: where to write.
    every: smallest number of seconds between two lines of progress.
    clock: returns the seconds of a monotonic clock.
    unit: what is counted, in the plural.
  """

  def __init__(
    self,
    name: str,
    total: int,
    done: int,
    stream: TextIO,
    *,
    every: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    unit: str = 'lanes',
  ):
    self._name, self._total, self._done, self._before = name, total, done, done
    self._stream, self._every, self._clock = stream, every, clock
    self._unit = unit
    self._start = self._begun = self._last = clock()
    known = f', {done} of them done before' if done else ''
    self._write(f'{total} {unit}{known}')

  def compiling(self, label: str) -> None:
    """Writes a line at once, since compiling may take long."""
    if self._done == self._before:  # Programs are compiled before lanes run.
      self._begun = self._clock()
    self._write(f'compiling {label}'.rstrip())

  def advance(self, count: int, label: str) -> None:
    """Writes a line if the last one is old enough."""
    self._done += count
    now = self._clock()
    if self._done < self._total and now - self._last >= self._every:
      self._last = now
      rate = (self._done - self._before) / max(now - self._begun, 1e-9)
      left = duration((self._total - self._done) / rate)
      unit = self._unit
      text = (
        f'{self._done}/{self._total} {unit}, {rate:.3g} {unit}/s, {left} left'
      )
      # The label of lanes was written when their program was compiled.
      self._write(text if unit == 'lanes' or not label else f'{text}; {label}')

  def close(self) -> None:
    """Writes how many lanes are done and how long that took."""
    took = duration(self._clock() - self._start)
    self._write(f'{self._done}/{self._total} {self._unit} after {took}')

  def _write(self, text: str) -> None:
    print(f'{self._name}: {text}', file=self._stream, flush=True)


# What stands behind the bar: the first that leaves room for the bar and a label.
_NUMBERS = (
  ' {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]',
  ' {n_fmt}/{total_fmt} [{remaining} left]',
  ' {remaining} left',
)
_BAR = 10  # The fewest columns of a bar that shows anything.
_LABEL = 12  # The fewest columns of a label that tells lanes apart.


class Bar(Silent):
  """Reports with a bar, which shows the rate and the remaining time.

  Args:
    name: the sweep's name.
    total: number of its lanes.
    done: number of lanes that were done before.
    stream: where to write.
    unit: what is counted, in the plural.
    columns: returns the width of the terminal.
  """

  def __init__(
    self,
    name: str,
    total: int,
    done: int,
    stream: TextIO,
    unit: str = 'lanes',
    columns: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
  ):
    import tqdm

    class Fitted(tqdm.tqdm):
      """A bar that decides at every drawing what has room beside it."""

      @property
      def format_dict(self):
        return _fitted(dict(super().format_dict), self.format_meter, columns())

    self._name = name
    self._bar = Fitted(
      desc=name,
      total=total,
      initial=done,
      unit=f' {unit}' if unit != 'lanes' else 'lane',
      file=stream,
      smoothing=0.1,
    )

  def compiling(self, label: str) -> None:
    """Writes in front of the bar that a program is being compiled."""
    if self._bar.n == self._bar.initial:
      self._bar.unpause()  # The rate is that of lanes.
    self._describe(f'compiling {label}' if label else 'compiling')

  def advance(self, count: int, label: str) -> None:
    """Moves the bar forward by ``count``."""
    self._describe(label)
    self._bar.update(count)

  def close(self) -> None:
    """Ends the bar, which stays on the screen."""
    self._bar.close()

  def _describe(self, label: str) -> None:
    text = f'{self._name} ({label})' if label else self._name
    self._bar.set_description(text)


def _fitted(
  facts: dict[str, Any], render: Callable[..., str], columns: int
) -> dict[str, Any]:
  """Returns what tqdm draws from, with a label and numbers that leave the bar room."""
  width = 0
  for numbers in _NUMBERS:
    shown = render(**facts | {'prefix': '', 'bar_format': numbers})
    width = len(shown) + len(': 100%||') + _BAR
    if columns - width >= _LABEL:
      break
  label = (facts['prefix'] or '').removesuffix(': ')
  return facts | {
    'prefix': _shortened(label, max(columns - width, 1)),
    'ncols': columns,
    'bar_format': '{desc}: {percentage:3.0f}%|{bar}|' + numbers,
  }


def _shortened(text: str, columns: int) -> str:
  """Cuts a text in the middle: its beginning and its end both tell lanes apart."""
  if len(text) <= columns:
    return text
  left = columns // 2
  return f'{text[:left]}…{text[len(text) - (columns - left - 1) :]}'


class Work(Silent):
  """Reports a lane's own work, such as the images that a network is trained on.

  Args:
    name: name of the lane.
    report: whether anything is shown.

  Attributes:
    begun: whether the lane has reported anything.
  """

  def __init__(self, name: str, report: bool):
    self._name, self._report = name, report
    self._inner = Silent()
    self.begun = False

  def compiling(self, label: str) -> None:
    """Reports that a program is being compiled, or that ``label`` begins."""
    self._inner.compiling(label)

  def begin(self, total: int, done: int, unit: str) -> None:
    """Starts the report: ``total`` units in all, of which ``done`` were done before.

    The unit is given in the plural, such as ``'images'``.
    """
    self.begun = True
    if self._report:
      self._inner = reporter(self._name, total, done, unit)

  def advance(self, count: int, label: str) -> None:
    """Reports that ``count`` more units are done."""
    self._inner.advance(count, label)

  def close(self) -> None:
    """Ends the report, when the lane ends or is interrupted."""
    self._inner.close()


def reporter(name: str, total: int, done: int, unit: str = 'lanes') -> Silent:
  """Returns a bar if standard error is a terminal, plain lines otherwise."""
  if sys.stderr.isatty():
    return Bar(name, total, done, sys.stderr, unit)
  return Lines(name, total, done, sys.stderr, unit=unit)


def say(text: str) -> None:
  """Writes one line to standard error, without disturbing a progress bar."""
  if 'tqdm' in sys.modules and sys.stderr.isatty():
    sys.modules['tqdm'].tqdm.write(text, file=sys.stderr)
  else:
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
  """Formats a duration: ``'1 h 2 min'``, ``'1 min 8 s'``, ``'12 s'``, ``'0.4 s'``."""
  if seconds < 9.95:
    return f'{seconds:.1f} s'
  whole = round(seconds)
  if whole < 60:
    return f'{whole} s'
  if whole < 3600:
    return f'{whole // 60} min {whole % 60} s'
  return f'{whole // 3600} h {whole % 3600 // 60} min'
