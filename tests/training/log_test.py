"""The log of a training: its rows in memory and in files."""

import csv
import json
import sys

import numpy as np
import pytest

from bitjax import training
from bitjax import types

ROWS = [
  (5, {'loss': [1.5, 2.5], 'rate': 0.1}),
  (10, {'loss': [float('nan'), 0.25], 'rate': 0.01}),
]


def filled(folder=None, **options):
  log = training.Log(folder, **options)
  for step, values in ROWS:
    log.add(step, values)
  log.close()
  return log


def test_history_in_memory_and_on_disk(tmp_path):
  kept = filled(tmp_path / 'new')
  read = training.Log(tmp_path / 'new')
  read.resume(10)
  for log in (filled(), kept, read):
    found = log.history()
    assert list(found) == ['step', 'loss', 'rate']
    np.testing.assert_array_equal(found['step'], [5, 10])
    assert found['step'].dtype == np.int64
    np.testing.assert_array_equal(found['loss'], [[1.5, 2.5], [np.nan, 0.25]])
    np.testing.assert_array_equal(found['rate'], [[0.1], [0.01]])


def strict(name):
  raise AssertionError(f'{name} is not JSON')


def test_numbers_that_are_not_finite_are_json(tmp_path):
  log = training.Log(tmp_path)
  values = [float('nan'), float('inf'), float('-inf'), 0.1]
  log.add(5, {'loss': values})
  (line,) = (tmp_path / 'history.jsonl').read_text().splitlines()
  row = json.loads(line, parse_constant=strict)
  assert row == {'step': 5, 'loss': [None, 'inf', '-inf', 0.1]}
  read = training.Log(tmp_path)
  read.resume(5, log.digest)
  np.testing.assert_array_equal(read.history()['loss'], [values])
  assert read.history()['loss'].dtype == np.float64


def test_files_with_bare_nan_are_still_read(tmp_path):
  path = tmp_path / 'history.jsonl'
  path.write_text('{"step": 5, "loss": [NaN, Infinity, -Infinity, 1.5]}\n')
  log = training.Log(tmp_path)
  log.resume(5)
  np.testing.assert_array_equal(
    log.history()['loss'], [[np.nan, np.inf, -np.inf, 1.5]]
  )
  json.loads(path.read_text(), parse_constant=strict)


@pytest.mark.parametrize(
  'line',
  [
    '3',
    '[]',
    '{"loss": [1]}',
    '{"step": 15, "loss": 1}',
    '\udc80',
    # Lines that were cut off.
    '{"step": 15, "lo',
    '{"step": 15, "loss": [1',
    '[',
  ],
)
def test_a_line_that_is_no_row_is_dropped(tmp_path, line):
  filled(tmp_path)
  path = tmp_path / 'history.jsonl'
  whole = path.read_text()
  path.write_bytes(whole.encode() + line.encode('utf-8', 'surrogateescape'))
  log = training.Log(tmp_path)
  log.resume(100)
  assert len(log.rows) == 2 and path.read_text() == whole


def test_rows_are_those_of_their_digest(tmp_path):
  log = filled(tmp_path)
  path = tmp_path / 'history.jsonl'
  whole = path.read_text()
  training.Log(tmp_path).resume(10, log.digest)
  damaged = whole.replace('0.25', '0.35')
  for content in (damaged, whole.splitlines()[0], ''):
    path.write_text(content)
    with pytest.raises(types.BadInput, match=r'history\.jsonl is damaged'):
      training.Log(tmp_path).resume(10, log.digest)
    assert path.read_text() == content


def test_nothing_is_known_at_first(tmp_path):
  log = training.Log(tmp_path)
  assert log.history() == {}
  log.resume(0)
  assert log.history() == {}
  assert (tmp_path / 'history.jsonl').read_text() == ''


def test_a_table_has_a_line_for_each_row_and_seed(tmp_path):
  filled(tmp_path)
  with (tmp_path / 'history.csv').open() as file:
    rows = list(csv.reader(file))
  assert rows == [
    ['step', 'seed', 'loss', 'rate'],
    ['5', '0', '1.5', '0.1'],
    ['5', '1', '2.5', '0.1'],
    ['10', '0', '', '0.01'],
    ['10', '1', '0.25', '0.01'],
  ]
  lines = (tmp_path / 'history.jsonl').read_text().splitlines()
  assert json.loads(lines[0]) == {'step': 5, 'loss': [1.5, 2.5], 'rate': [0.1]}
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'history.csv', 'history.jsonl'}


@pytest.mark.parametrize('step', [4, 5, 9])
def test_rows_beyond_the_checkpoint_are_dropped(tmp_path, step):
  filled(tmp_path)
  log = training.Log(tmp_path)
  log.resume(step)
  assert [row['step'] for row in log.rows] == [5] * (step >= 5)
  text = (tmp_path / 'history.jsonl').read_text()
  assert len(text.splitlines()) == len(log.rows)
  log.add(10, {'loss': [1.0, 2.0], 'rate': 3.0})
  assert log.history()['step'][-1] == 10


def test_event_files(tmp_path):
  log = filled(tmp_path, tensorboard=True)
  (path,) = (tmp_path / 'tensorboard').iterdir()
  assert 'tfevents' in path.name
  content = path.read_bytes()
  assert b'loss' in content and b'rate' in content
  assert log.history()['step'].size == 2


def test_event_files_show_the_mean_of_finite_numbers(tmp_path):
  log = training.Log(tmp_path, tensorboard=True)
  seen = []
  log._writer.add_scalar = lambda *given: seen.append(given)
  log.add(5, {'loss': [float('nan'), 1.0, 2.0], 'gone': [float('nan')]})
  log.close()
  assert seen == [('loss', 1.5, 5)]


def test_a_log_that_is_whole_is_not_written_again(tmp_path, monkeypatch):
  """So a finished training can be read where nothing can be written."""
  log = filled(tmp_path)

  def refuse(path, text):
    raise PermissionError(path)

  monkeypatch.setattr('bitjax.files.write_text', refuse)
  again = training.Log(tmp_path)
  again.resume(10, log.digest)
  assert again.digest == log.digest and len(again.rows) == 2
  with pytest.raises(PermissionError):
    again.resume(5)


def test_event_files_that_cannot_be_written(tmp_path, monkeypatch):
  with pytest.raises(types.BadInput, match='tensorboard needs a folder'):
    training.Log(tensorboard=True)
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  with pytest.raises(types.BadInput, match='pip install tensorboardX'):
    training.Log(tmp_path, tensorboard=True)
