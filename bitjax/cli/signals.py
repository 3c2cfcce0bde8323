"""Signals that end a command: an exception, or the end of the process if XLA is busy.

Python handles a signal in its main thread, between two of its own instructions, and
some versions of XLA do not return to Python before they have compiled, which may take
hours, or lose the exception. A second thread is told at once, by Python's wakeup file
descriptor. Nothing is lost if it ends the process: files are whole or absent, and the
next run goes on. It leaves alone signals that have another handler, such as a study's own,
and those of forked processes, which inherit the descriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import socket
import threading

from bitjax import process

__all__ = ['SIGNALLED', 'Signalled', 'raised', 'watched']

SIGNALLED = 128  # Shells add the signal's number to this.

# Seconds in which the main thread handles a signal, and then leaves what it does.
_GRACE, _UNWINDING = 2.0, 10.0
_heard = threading.Event()
_watching = threading.Event()


class Signalled(KeyboardInterrupt):
  """Raised on a signal that asks the process to end."""

  def __init__(self, number: int = signal.SIGINT):
    super().__init__(number)
    self.number = number


@contextlib.contextmanager
def raised() -> Iterator[None]:
  """Turns the signals that end a process into an exception, in the main thread.

  A second signal ends the process at once.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  before = {}
  _heard.clear()
  for number in _ending():
    # nohup and background jobs of scripts ignore signals; they keep doing so.
    if signal.getsignal(number) != signal.SIG_IGN:
      before[number] = signal.signal(number, _stop)
  try:
    yield
  finally:
    for number, handler in before.items():
      # None is a handler that Python has not set.
      signal.signal(number, handler or signal.SIG_DFL)


@contextlib.contextmanager
def watched(last: Callable[[], None]) -> Iterator[None]:
  """Ends the process, from another thread, if `raised` does not end the block.

  Clean-up of the block's own has ten seconds. It is for commands, not for notebooks,
  whose process is not theirs to end.

  Args:
    last: what to do before the process ends.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  reading, writing = socket.socketpair()
  writing.setblocking(False)
  before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
  done = threading.Event()

  def listen():
    while heard := reading.recv(1):
      (number,) = heard
      if number not in _ending() or signal.getsignal(number) is not _stop:
        continue
      if not (_heard.wait(_GRACE) and done.wait(_UNWINDING)):
        try:
          last()
        finally:
          process.leave(SIGNALLED + number)

  thread = threading.Thread(target=listen, name='signals', daemon=True)
  thread.start()
  _watching.set()
  try:
    yield
  finally:
    done.set()
    _watching.clear()
    signal.set_wakeup_fd(before)
    writing.close()
    thread.join()
    reading.close()


def _stop(number, frame):
  if _heard.is_set():
    process.leave(SIGNALLED + number)
  _heard.set()
  raise Signalled(number)


def _forked():
  if _watching.is_set():  # The thread that listens is the parent's.
    signal.set_wakeup_fd(-1)


if hasattr(os, 'register_at_fork'):  # Not on Windows.
  os.register_at_fork(after_in_child=_forked)


def _ending():
  names = ('SIGINT', 'SIGTERM', 'SIGHUP')
  return [getattr(signal, name) for name in names if hasattr(signal, name)]
