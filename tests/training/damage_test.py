"""Damaged checkpoints: noticed, named in one line, and never used."""

import json
import shutil
import warnings

import numpy as np
import pytest

from bitjax import training
from bitjax import types
from bitjax.training import _archive

KINDS = ('first', 'middle', 'last', 'random', 'half', 'empty', 'absent')


def damage(path, kind, draw):
  """Flips a bit of one byte, cuts the file, empties it or deletes it."""
  content = bytearray(path.read_bytes())
  if kind == 'absent':
    path.unlink()
  elif not content:
    path.write_bytes(b'' if kind in ('half', 'empty') else b'a')
  elif kind in ('half', 'empty'):
    path.write_bytes(content[: len(content) // 2 if kind == 'half' else 0])
  else:
    last = len(content) - 1
    place = {'first': 0, 'middle': last // 2, 'last': last}.get(kind)
    place = draw.integers(len(content)) if place is None else place
    content[place] ^= 1 << int(draw.integers(8))
    path.write_bytes(content)


@pytest.fixture(scope='module')
def state():
  """Returns a state of one small leaf of each kind, at a given step."""

  def at(step):
    zero = np.zeros(1, np.float32)
    weights = np.full((1, 2), step, np.float32)
    return training.TrainState(
      np.array([step], np.int32),
      np.zeros((1, 2), np.uint32),
      {'Dense_0': {'kernel': weights}},
      {'batch_stats': {'mean': 2 * weights}},
      {'count': np.array([step], np.int32)},
      None,
      training.Totals(np.zeros(1, np.int32), zero, zero, {}),
    )

  return at


@pytest.fixture(scope='module')
def sound(state, tmp_path_factory):
  """Returns a folder with the checkpoints of updates 2, the best, and 3."""
  folder = tmp_path_factory.mktemp('sound')
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr('jax.random.key_data', lambda key: key)
    keeper = training.Checkpoints(folder)
    for step, accuracy in ((1, 0.1), (2, 0.9), (3, 0.5)):
      keeper.save(state(step), {'phase': '0'}, accuracy)
  return folder


def files_of(folder):
  return sorted(path for path in folder.rglob('*') if path.is_file())


def read(folder, which):
  found = training.load_variables(folder, which=which)
  return found['params']['Dense_0']['kernel'].tolist()


def check(folder, path):
  """Checks what becomes of a folder whose file ``path`` was damaged."""
  step = int(path.relative_to(folder).parts[0])
  for which, number in (('latest', 3), ('best', 2)):
    try:
      assert read(folder, which) == [number, number]
    except types.BadInput as error:
      text = str(error)
      assert '\n' not in text and str(folder / str(step)) in text
      assert which == 'best' or step == 3
    else:
      assert which == 'latest' and step == 2
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter('always')
    keeper = training.Checkpoints(folder)
    assert keeper.description() == {'phase': '0'}
  (line,) = [str(each.message) for each in said]
  assert '\n' not in line and str(folder / str(step)) in line
  words = {
    3: 'the training goes on from update 2',
    2: 'the best checkpoint is chosen without it',
  }
  assert line.endswith(f'; {words[step]}.')


@pytest.mark.parametrize('kind', ['first', 'absent'])
@pytest.mark.parametrize('name', [_archive.NAME, '_METADATA', 'manifest.ocdbt'])
def test_damaged_files(sound, tmp_path, name, kind):
  folder = shutil.copytree(sound, tmp_path / 'copy')
  path = next((folder / '3').rglob(name))
  damage(path, kind, np.random.default_rng(0))
  check(folder, path)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_any_damage_to_any_file(sound, tmp_path, kind):
  draw = np.random.default_rng(KINDS.index(kind))
  for number, path in enumerate(files_of(sound)):
    folder = shutil.copytree(sound, tmp_path / str(number))
    path = folder / path.relative_to(sound)
    before = path.read_bytes()
    damage(path, kind, draw)
    if not path.exists() or path.read_bytes() != before:
      check(folder, path)


def test_the_damaged_file_is_named(sound, tmp_path):
  folder = shutil.copytree(sound, tmp_path / 'copy')
  data = [p for p in files_of(folder / '3') if p.name != 'checkpoint.json']
  path = max(data, key=lambda path: path.stat().st_size)
  damage(path, 'middle', np.random.default_rng(0))
  with pytest.raises(types.BadInput) as caught:
    read(folder, 'latest')
  assert f'{path} is damaged (its checksum differs)' in str(caught.value)
  path.unlink()
  with pytest.raises(types.BadInput, match='No such file or directory'):
    read(folder, 'latest')


def test_other_files_do_not_matter(sound, tmp_path):
  folder = shutil.copytree(sound, tmp_path / 'copy')
  (folder / '3' / '.DS_Store').write_bytes(b'a')
  (folder / '.nfs123').write_bytes(b'a')
  (folder / '4').mkdir()
  assert read(folder, 'latest') == [3, 3] and read(folder, 'best') == [2, 2]


@pytest.mark.parametrize(
  'damaged', [['13'], pytest.param(['13', '10', '5'], marks=pytest.mark.slow)]
)
def test_a_training_goes_on_from_the_one_before(
  tiny, task, whole, same, tmp_path, damaged
):
  """It ends with the same bits, from an older checkpoint or from the beginning."""
  wanted, folder = whole
  shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
  kept = tmp_path / 'checkpoints'
  bad = [kept / step for step in damaged if (kept / step).exists()]
  for path in bad:
    damage(path / _archive.NAME, 'half', np.random.default_rng(0))
  report = tiny.Stop(100, lambda: None)
  with pytest.warns(UserWarning, match=r'checkpoint\.json is damaged') as said:
    again = tiny.train(task, tmp_path, report=report)
  assert len(said) == len(bad)
  left = {path.name for path in (folder / 'checkpoints').iterdir()} - {
    path.name for path in bad
  }
  total, done = report.calls[0]
  assert done == max(map(int, left), default=0) * tiny.BATCH < total
  assert same(again.state, wanted.state)
  assert same(again.history, wanted.history)
  for path in folder.glob('history.*'):
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()
  steps = _archive.steps(kept)
  assert steps == _archive.steps(folder / 'checkpoints')
  for step in steps:
    assert _archive.facts(kept / str(step))['format'] == 2


@pytest.mark.parametrize('kind', ['middle', 'half', 'absent'])
def test_a_damaged_log_is_refused(tiny, task, whole, tmp_path, kind):
  """Rows cannot be made again from a checkpoint, so nothing is trained."""
  shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
  path = tmp_path / 'history.jsonl'
  damage(path, kind, np.random.default_rng(1))

  def files_now():
    return {each: each.read_bytes() for each in files_of(tmp_path)}

  before = files_now()
  with pytest.raises(types.BadInput, match=r'history\.jsonl is damaged'):
    tiny.train(task, tmp_path)
  assert files_now() == before


@pytest.mark.parametrize('number', [1, 3, None])
def test_another_format_is_refused_and_left_alone(sound, tmp_path, number):
  """Its arrays may mean something else, whatever their names are."""
  folder = shutil.copytree(sound, tmp_path / 'copy')
  path = folder / '3' / _archive.NAME
  entry = json.loads(path.read_text()) | {'format': number}
  del entry['sha256']
  stamped = entry | {'sha256': _archive._digest(entry)}
  path.write_text(json.dumps(stamped))
  for read_it in (
    lambda: read(folder, 'latest'),
    lambda: training.Checkpoints(folder).description(),
  ):
    with pytest.raises(types.BadInput, match=f'3 has format {number}, this'):
      read_it()
  assert json.loads(path.read_text()) == stamped


def test_a_checkpoint_of_another_program(tmp_path):
  from orbax.checkpoint import v1 as ocp

  ocp.save(tmp_path / '3', {'a': np.zeros(1)})
  with pytest.raises(types.BadInput, match='or no checkpoint of bitjax'):
    training.load_variables(tmp_path)


def test_checksums_are_sha256_of_every_file(sound):
  import hashlib

  entry = json.loads((sound / '3' / _archive.NAME).read_text())
  wanted = {
    path.relative_to(sound / '3').as_posix(): hashlib.sha256(
      path.read_bytes()
    ).hexdigest()
    for path in files_of(sound / '3')
    if path.name != _archive.NAME
  }
  assert entry['files'] == wanted and len(wanted) > 5
