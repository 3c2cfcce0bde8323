"""Images are enlarged by a network of a run, and crops stand side by side."""

import json
import shutil

import jax
import numpy as np
import pytest

from bitjax import __main__ as command
from bitjax import cli
from bitjax import data
from bitjax import measures
from bitjax import nn
from bitjax import training
from bitjax.commands import super_resolve
from bitjax.data import pictures
from bitjax.studies import super_resolution
from bitjax.studies.super_resolution import arms as arms_lib
from bitjax.studies.super_resolution import crops

pytest.importorskip('PIL')
pytest.importorskip('matplotlib')
DRAW = np.random.default_rng(0)


def smooth(rows, columns, seed=1):
  draw = np.random.default_rng(seed)
  coarse = draw.integers(0, 256, (rows // 4, columns // 4, 3), np.uint8)
  return data.bicubic_on_host(coarse, shape=(rows, columns))


@pytest.fixture(scope='module')
def network():
  model = nn.light_sr(blocks=1, width=3)
  images = np.zeros((1, 8, 8, 3), np.float32)
  variables = jax.jit(model.init)(jax.random.key(0, impl='rbg'), images)
  return super_resolve.Network('1 bit', model, variables)


@pytest.fixture
def found(network, monkeypatch):
  """A network in the place of that of a run."""
  monkeypatch.setattr(super_resolve, 'find', lambda *_, **__: [network])
  return network


def test_an_image_in_tiles_is_the_image_as_a_whole(
  found, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  image = smooth(20, 44)
  pictures.write(tmp_path / 'mine.png', image)
  told = ['super_resolve', 'run', 'mine.png', '--out=out', '--tile=18']
  assert command.main([*told, '--scale=2']) == 0
  out, err = capsys.readouterr()
  assert out == 'out/mine_x2.png\n' and '28/28 tiles' in err
  whole = training.enlarge(found.model, found.variables, image)
  written = pictures.read(tmp_path / 'out' / 'mine_x2.png')
  assert np.abs(whole.astype(int) - written).max() <= 1
  assert np.mean(whole != written) < 0.002


def test_crops_show_bicubic_every_network_and_the_truth(found, capsys):
  image = smooth(41, 45)  # One row and column too many.
  with pytest.warns(UserWarning, match='cropped to sides that 2 divides'):
    shown = super_resolve.compare([found], image, (4, 6, 20))
  assert [crop.name for crop in shown] == ['bicubic', '1 bit', 'truth']
  truth = image[:40, :44]
  low = data.bicubic_on_host(truth, shape=(20, 22))
  for crop, whole in zip(
    shown,
    (
      data.bicubic_on_host(low, 2),
      training.enlarge(found.model, found.variables, low),
      truth,
    ),
    strict=True,
  ):
    np.testing.assert_array_equal(crop.pixels, whole[4:24, 6:26])
    if crop.name == 'truth':
      assert crop.psnr is None
    else:
      psnr = measures.psnr(whole, truth, border=2)
      np.testing.assert_allclose(crop.psnr, psnr, rtol=1e-6)


def test_crops_are_made_in_tiles_of_the_given_size(found, tmp_path, capsys):
  pictures.write(tmp_path / 'a.png', smooth(40, 88))
  told = ['super_resolve', 'run', str(tmp_path / 'a.png'), '--crop=0,0,6']
  told += [f'--out={tmp_path / "out"}', '--tile=18']
  assert command.main(told) == 0
  # Of 20 x 44 pixels at the low resolution.
  assert '28/28 tiles' in capsys.readouterr().err


def test_crops_are_written_as_figures(tmp_path, found, monkeypatch):
  pixels = np.zeros((6, 6, 3), np.uint8)
  monkeypatch.setattr(
    super_resolve,
    'compare',
    lambda *_: [crops.Crop('bicubic', pixels, 30.0), crops.Crop('t', pixels)],
  )
  pictures.write(tmp_path / 'a.png', smooth(40, 40))
  out = tmp_path / 'out'
  told = ['super_resolve', 'run', str(tmp_path / 'a.png'), f'--out={out}']
  assert command.main([*told, '--crop=0,0,6']) == 0
  written = sorted(path.name for path in out.iterdir())
  assert written == ['a_crops.pdf', 'a_crops.png']


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    (
      ['good.png', '--scale=3'],
      'run was trained for the scale 2; got --scale=3',
    ),
    (['good.png', '--tile=16'], '--tile must be more than 16'),
    (['good.png', '--tile=x'], '--tile must be an integer; got x'),
    (['good.png', '--crop=1,2'], '--crop must be ROW,COLUMN,SIDE'),
    (['good.png', '--crop=30,30,20'], 'inside of 40 x 40 pixels; got 30,30,20'),
    (['good.png', 'cut.png'], 'cut.png: expected a PNG or JPEG'),
    (['good.png', 'absent.png'], 'absent.png: expected a PNG or JPEG'),
    (['good.png', 'text.png'], 'text.png: expected a PNG or JPEG'),
    (['good.png', 'more/good.png'], 'would both be written to'),
    (['good.png', '--to=x'], 'there is no option --to'),
    (['good.png', '--out=text.png'], '--out=text.png must be a folder'),
    (['good.png', '--out=text.png/in'], 'text.png is a file'),
    (
      ['good.png', 'good_x2.png', '--out=.'],
      'good_x2.png would replace good_x2.png; choose another --out',
    ),
    (['good.png', 'tiny.png', '--crop=0,0,1'], 'tiny.png: expected an image'),
  ],
)
def test_bad_input_is_one_line_and_writes_nothing(
  found, tmp_path, monkeypatch, capsys, options, words
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'more').mkdir()
  for path in ('good.png', 'more/good.png', 'cut.png', 'good_x2.png'):
    pictures.write(tmp_path / path, smooth(40, 40))
  pictures.write(tmp_path / 'tiny.png', smooth(8, 8)[:5, :5])
  whole = (tmp_path / 'cut.png').read_bytes()
  (tmp_path / 'cut.png').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'text.png').write_text('no image')
  if not any(option.startswith('--out') for option in options):
    options = [*options, '--out=out']
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  assert command.main(['super_resolve', 'run', *options]) == 2
  out, err = capsys.readouterr()
  assert out == '' and err.count('\n') == 1 and words in err
  after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  assert after == before


def test_what_is_no_run(tmp_path, capsys):
  image = tmp_path / 'a.png'
  pictures.write(image, smooth(8, 8))
  told = ['super_resolve', str(tmp_path), str(image), f'--out={tmp_path / "o"}']
  stored = {'study': 'train_cifar', 'config': {}}
  for content, words in (
    (None, 'is not the directory of a run'),
    (stored, 'a run of train_cifar, which keeps no trained networks of this'),
    (stored | {'study': 'super_resolution'}, 'holds no such checkpoint'),
  ):
    if content is not None:
      (tmp_path / 'config.json').write_text(json.dumps(content))
    assert command.main(told) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.count('\n') == 1 and words in err
  assert not (tmp_path / 'o').exists()


def test_how_it_is_used(capsys):
  assert command.main(['super_resolve', '--help']) == 0
  assert 'usage: bitjax super_resolve RUN' in capsys.readouterr().out
  for argv in ([], ['run', '--out=o'], ['run', 'a.png']):
    assert command.main(['super_resolve', *argv]) == 2
    assert 'usage: bitjax super_resolve RUN' in capsys.readouterr().err


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The directory of a finished run on tiny images."""
  home = tmp_path_factory.mktemp('data')
  for part, names in (('train', 'abc'), ('Set5', 'd')):
    (home / part).mkdir()
    for index, name in enumerate(names):
      pictures.write(home / part / f'{name}.png', smooth(40, 48, index))
  folder = tmp_path_factory.mktemp('run') / 'run'
  flags = ['--preset=smoke', f'--out={folder}', '--images=folder']
  flags += [f'--data_dir={home}', '--validation_images=1', '--seeds=3,4']
  assert cli.launch(super_resolution.STUDY, flags) == 0
  return folder


@pytest.mark.slow
class TestARun:
  """A run of tiny trainings."""

  def test_it_finds_the_network_that_was_tested(self, run):
    one, block = arms_lib.PRIMARY
    (found,) = super_resolve.find(run, {'arm': block, 'seed': '4'})
    assert found.arm == block and found.model.shortcut == 'block'
    pairs = data.make_pairs({'d': smooth(40, 48, 0)}, 2)
    scores = training.image_scores(
      lambda low: training.enlarge(found.model, found.variables, low), pairs
    )
    xarray = pytest.importorskip('xarray')
    results = xarray.load_dataset(run / 'results.nc', engine='h5netcdf')
    stored = results.psnr.sel(arm=block, seed=4).values
    np.testing.assert_allclose(scores.psnr, stored, rtol=1e-5)
    # By default it is the first seed; a checkpoint is one arm of one seed.
    (first,) = super_resolve.find(run, {'arm': one})
    folder = run / 'lanes' / 'trainings' / '1-0'
    (same,) = super_resolve.find(folder, {'seed': '3'})
    assert same.arm == one
    for a, b in zip(
      jax.tree.leaves(first.variables),
      jax.tree.leaves(same.variables),
      strict=True,
    ):
      np.testing.assert_array_equal(a, b)
    every = super_resolve.find(run, {}, every=True)
    assert [each.arm for each in every] == [arms_lib.FULL, one, block]

  @pytest.mark.parametrize(
    ('options', 'words'),
    [
      (
        [],
        'choose one by --arm=... of full precision; 1 bit; 1 bit with block',
      ),
      (['--arm=3 bits'], 'arm must be one of 1 bit; 1 bit with block shortcut'),
      (['--arm=1 bit', '--seed=7'], 'seed must be one of 3; 4; got 7'),
      (['--arm=1 bit', '--which=last'], 'which must be one of latest, best'),
    ],
  )
  def test_bad_choices(self, run, tmp_path, capsys, options, words):
    image, out = tmp_path / 'a.png', tmp_path / 'out'
    pictures.write(image, smooth(8, 8))
    told = ['super_resolve', str(run), str(image), f'--out={out}', *options]
    assert command.main(told) == 2
    said, err = capsys.readouterr()
    assert said == '' and err.count('\n') == 1 and words in err
    assert not out.exists()

  def test_a_run_of_another_network_than_its_checkpoints(
    self, run, tmp_path, capsys
  ):
    other, image = tmp_path / 'run', tmp_path / 'a.png'
    pictures.write(image, smooth(8, 8))
    shutil.copytree(run, other)
    stored = json.loads((run / 'config.json').read_text())
    stored['config'] |= {'scale': 3}
    (other / 'config.json').write_text(json.dumps(stored))
    told = ['super_resolve', str(other), str(image), f'--out={tmp_path / "o"}']
    assert command.main([*told, '--arm=1 bit']) == 2
    assert 'holds a network with scale = 2' in capsys.readouterr().err
