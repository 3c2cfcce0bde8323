"""Brings the processes of a job together before JAX's runtime starts.

That runtime ends the process, without an exception, when its port is taken, its
coordinator unknown or a process missing. So the processes meet here first, on plain
sockets: process 0 listens at the coordinator's port until each of the others has come and
said which one it is, then sends all of them on. Whatever is wrong is an exception.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

from bitjax import types

__all__ = ['meet']

_GO = 'go'
_LINE = 4096  # The most bytes of a message.
_NAMES = 20.0  # Seconds until an unknown name counts as wrong.
_PAUSE = 0.2  # Seconds between two attempts to connect.
_TURN = 5.0  # Seconds for a connection, and for its first message.


def meet(
  coordinator: str, count: int, number: int, *, patience: float = 300.0
) -> None:
  """Waits until all processes of a job have come.

  Args:
    coordinator: HOST:PORT of process 0.
    count: number of processes of the job.
    number: number of this one, from 0.
    patience: seconds to wait for the others.

  Raises:
    BadInput: if the host is unknown or does not lead to process 0, the port is taken,
      a process does not come, or two processes disagree about the job.
  """
  host, _, port = coordinator.rpartition(':')
  address = host.strip('[]'), int(port)
  end = time.monotonic() + patience
  if number == 0:
    _receive(coordinator, address, count, end)
  else:
    _join(coordinator, address, {'count': count, 'number': number}, end)


def _receive(coordinator, address, count, end) -> None:
  """Is process 0: waits for the others, then sends them on, or says what is wrong."""
  both = socket.has_dualstack_ipv6()
  try:
    server = socket.create_server(
      ('', address[1]),
      family=socket.AF_INET6 if both else socket.AF_INET,
      dualstack_ipv6=both,
    )
  except OSError as error:
    raise types.BadInput(
      f'process 0 cannot listen at the port of coordinator_address={coordinator} '
      f'({error.strerror}); choose another port.'
    ) from None
  with server, contextlib.ExitStack() as stack:
    # JAX's process 0 goes this way too. Nothing is said, so that it counts for nobody.
    _connect(coordinator, address, min(end, time.monotonic() + _NAMES)).close()
    came: dict[int, Any] = {}
    problem = None
    while len(came) < count - 1 and problem is None:
      server.settimeout(max(end - time.monotonic(), 0.01))
      try:
        peer = stack.enter_context(server.accept()[0])
      except TimeoutError:
        missing = sorted({*range(1, count)} - set(came))
        problem = f'process {missing[0]} of {count} did not come'
        continue
      said = _said(peer)
      if said is None:
        peer.close()
        continue
      if said['count'] != count:
        problem = (
          f'process {said["number"]} has num_processes={said["count"]}, process 0 '
          f'has {count}'
        )
      elif said['number'] in came:
        problem = f'two processes have process_id={said["number"]}'
      came[said['number'] if problem is None else -1] = peer
    for peer in came.values():
      with contextlib.suppress(OSError):  # It has gone.
        peer.sendall(f'{problem or _GO}\n'.encode())
  if problem is not None:
    raise types.BadInput(f'the job at {coordinator} did not form: {problem}.')


def _join(coordinator, address, hello, end) -> None:
  """Is another process: tells process 0 who it is, and waits to be sent on."""
  with _connect(coordinator, address, end) as peer:
    try:
      peer.sendall(f'{json.dumps(hello)}\n'.encode())
      reply = _line(peer, max(end - time.monotonic(), _TURN))
    except OSError:
      reply = ''
  if reply == _GO:
    return
  if not reply.isprintable() or not reply:
    reply = 'process 0 has gone, or something else listens there'
  raise types.BadInput(f'the job at {coordinator} did not form: {reply}.')


def _connect(coordinator, address, end) -> socket.socket:
  """Connects to process 0, which may begin later, and be known by name later."""
  known_by = time.monotonic() + _NAMES
  while True:
    try:
      return socket.create_connection(address, timeout=_TURN)
    except (OSError, UnicodeError) as error:  # Encoding a name may fail, too.
      unknown = isinstance(error, (socket.gaierror, UnicodeError))
      if time.monotonic() < (min(end, known_by) if unknown else end):
        time.sleep(_PAUSE)
        continue
      reason = str(getattr(error, 'strerror', None) or error)
    raise types.BadInput(
      f'coordinator_address={coordinator} does not lead to process 0: {reason}.'
    )


def _said(peer: socket.socket) -> dict[str, int] | None:
  """Returns what a process says of itself; None for strangers."""
  try:
    said = json.loads(_line(peer, _TURN))
    return {name: int(said[name]) for name in ('count', 'number')}
  except (OSError, ValueError, TypeError, KeyError):
    return None


def _line(peer: socket.socket, seconds: float) -> str:
  """Receives one line; what was received if the peer ends before its end."""
  peer.settimeout(seconds)
  content = b''
  while b'\n' not in content and len(content) < _LINE:
    part = peer.recv(_LINE)
    if not part:
      break
    content += part
  return content.partition(b'\n')[0].decode(errors='replace')
