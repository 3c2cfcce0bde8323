"""Processes of a job meet, or each of them says in one line why they do not."""

from concurrent import futures
import contextlib
import socket
import threading

import pytest

from bitjax import types
from bitjax.sweeps import meeting


def free():
  """Returns a port that nobody listens at."""
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]


def meet(address, *processes, patience=20.0):
  """Lets processes, (count, number), meet; returns what each of them says."""

  def one(process):
    try:
      meeting.meet(address, *process, patience=patience)
    except types.BadInput as error:
      return str(error)

  with futures.ThreadPoolExecutor(len(processes)) as pool:
    return list(pool.map(one, processes))


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
  monkeypatch.setattr(meeting, '_NAMES', 0.3)
  monkeypatch.setattr(meeting, '_PAUSE', 0.05)


@pytest.mark.parametrize('count', [1, 2, 5])
@pytest.mark.parametrize('host', ['localhost', '127.0.0.1'])
def test_all_of_them(count, host):
  # The others may begin first, and process 0 needs the port afterwards.
  order = [(count, number) for number in reversed(range(count))]
  address = f'{host}:{free()}'
  for _ in range(2):
    assert meet(address, *order) == [None] * count


def test_one_that_does_not_come():
  said = meet(f'localhost:{free()}', (3, 0), (3, 2), patience=1.0)
  assert all('did not form: process 1 of 3 did not come.' in s for s in said)


def test_without_process_0():
  address = f'localhost:{free()}'
  (said,) = meet(address, (2, 1), patience=0.3)
  assert f'{address} does not lead to process 0: Connection refused.' in said


@pytest.mark.parametrize('number', [0, 1])
@pytest.mark.parametrize('host', ['nobody.invalid', 'a' * 70, '0.0.0.300'])
def test_an_unknown_host(host, number):
  (said,) = meet(f'{host}:{free()}', (2, number))
  assert f'coordinator_address={host}:' in said and '\n' not in said
  assert 'does not lead to process 0: ' in said


def test_a_taken_port():
  with socket.create_server(('', 0)) as server:
    address = f'localhost:{server.getsockname()[1]}'
    (said,) = meet(address, (2, 0))
  assert f'cannot listen at the port of coordinator_address={address}' in said


def test_something_else_at_the_port():
  def answer(server):
    with contextlib.suppress(OSError):
      peer, _ = server.accept()
      peer.sendall(b'\x00\x00\x12\x04\n')
      peer.close()

  with socket.create_server(('localhost', 0)) as server:
    threading.Thread(target=answer, args=[server], daemon=True).start()
    port = server.getsockname()[1]
    (said,) = meet(f'localhost:{port}', (2, 1), patience=1.0)
  assert 'something else listens there' in said


def test_strangers_do_not_count():
  port = free()

  def knock():
    for content in (b'GET / HTTP/1.1\r\n\r\n', b'[]\n', b'{"count": 2}\n', b''):
      with meeting._connect('', ('localhost', port), float('inf')) as peer:
        peer.sendall(content)

  with futures.ThreadPoolExecutor() as pool:
    formed = pool.submit(meet, f'localhost:{port}', (2, 0))
    knock()
    assert meet(f'localhost:{port}', (2, 1)) == [None]
    assert formed.result() == [None]


@pytest.mark.parametrize(
  ('processes', 'words'),
  [
    ([(2, 0), (3, 1)], 'process 1 has num_processes=3, process 0 has 2'),
    ([(3, 0), (3, 1), (3, 1)], 'two processes have process_id=1'),
  ],
)
def test_they_disagree(processes, words):
  said = meet(f'localhost:{free()}', *processes)
  assert all(words in sentence for sentence in said)
