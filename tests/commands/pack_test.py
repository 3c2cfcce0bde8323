"""A run's network is packed, and the file predicts what the network computes."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest

from bitjax import __main__ as command
from bitjax import cli
from bitjax import data
from bitjax import deploy
from bitjax import nn
from bitjax import types
from bitjax.commands import pack
from bitjax.commands import predict
from bitjax.commands import trained
from bitjax.studies import train_cifar

RNG = np.random.default_rng(0)
DIGITS = RNG.integers(0, 256, (7, 5, 4), dtype=np.uint8)


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
  """A file of a packed MLP, and its network."""
  model = nn.binary_mlp(hidden=(9,), batch_norm=True, num_classes=5)
  variables = model.init(jax.random.key(0), DIGITS)
  network = deploy.pack_network(model, variables, DIGITS)
  folder = tmp_path_factory.mktemp('digits')
  return deploy.save(network, folder / 'digits.bitjax'), network


def test_predictions_are_printed_and_written(digits, tmp_path, capsys):
  file, network = digits
  logits = np.asarray(network(DIGITS))
  np.save(tmp_path / 'first.npy', DIGITS[:3])
  np.save(tmp_path / 'rest.npy', DIGITS[3:, ..., None] / np.float32(255))
  told = ['predict', str(file), *map(str, sorted(tmp_path.glob('*.npy')))]
  assert command.main(told) == 0
  printed = capsys.readouterr().out.split()
  assert printed == [str(each) for each in logits.argmax(1)]
  for name in ('out.csv', 'out.npz'):
    assert command.main([*told, f'--to={tmp_path / name}']) == 0
    assert capsys.readouterr().out == f'{tmp_path / name}: 7 images\n'
  with np.load(tmp_path / 'out.npz') as found:
    np.testing.assert_array_equal(found['logits'], logits)
    np.testing.assert_array_equal(found['classes'], logits.argmax(1))
  rows = list(csv.reader((tmp_path / 'out.csv').read_text().splitlines()))
  assert rows[0][:3] == ['image', 'class', 'logit_0'] and len(rows) == 8
  found = np.asarray([row[2:] for row in rows[1:]], np.float32)
  np.testing.assert_array_equal(found, logits)
  assert [row[1] for row in rows[1:]] == printed


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    (['wide.npy'], 'images of shape [images, 5, 4]; found [7, 5, 5]'),
    (['large.npy'], 'expected floats from 0 to 1'),
    (['absent.npy'], 'there is none'),
    (['good.npy', '--to=out.txt'], '--to must be NAME.csv or NAME.npz'),
    (['good.npy', '--out=out.csv'], 'there is no option --out'),
    (['good.npy', '-v'], 'an option is --name=value; got -v'),
    (['good.npy', '--to=a.csv', '--to=b.csv'], '--to is given twice'),
  ],
)
def test_bad_input_is_one_line(
  digits, tmp_path, monkeypatch, capsys, options, words
):
  monkeypatch.chdir(tmp_path)
  np.save('wide.npy', np.zeros((7, 5, 5), np.uint8))
  np.save('large.npy', np.full((7, 5, 4), 2.0))
  np.save('good.npy', DIGITS)
  before = sorted(tmp_path.iterdir())
  told = ['predict', str(digits[0]), *options]
  if '--to=out.txt' not in told and '--to=a.csv' not in told:
    told.append('--to=result.csv')
  assert command.main(told) == 2
  out, err = capsys.readouterr()
  assert out == '' and err.count('\n') == 1 and words in err
  assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('name', ['pack', 'predict'])
def test_how_they_are_used(name, capsys):
  assert command.main([name, '--help']) == 0
  assert f'usage: bitjax {name} ' in capsys.readouterr().out
  for argv in ([], ['--to=a.npz']):
    assert command.main([name, *argv]) == 2
    out, err = capsys.readouterr()
    assert out == '' and f'usage: bitjax {name} ' in err


def test_float_images_are_finite(digits, tmp_path):
  model = nn.binary_mlp(hidden=(3,))
  images = np.ones((2, 5, 4), np.float32)
  variables = model.init(jax.random.key(0), images)
  network = deploy.pack_network(model, variables, images)
  np.save(tmp_path / 'good.npy', images)
  np.save(tmp_path / 'nan.npy', np.full_like(images, np.nan))
  np.save(tmp_path / 'bytes.npy', DIGITS)
  found = predict.images_for(network, [tmp_path / 'good.npy'])
  assert found.dtype == np.float32
  for name in ('nan', 'bytes'):
    with pytest.raises(types.BadInput, match='takes finite float32'):
      predict.images_for(network, [tmp_path / f'{name}.npy'])


def test_what_is_no_run_of_trainings(tmp_path, capsys):
  assert command.main(['pack', str(tmp_path)]) == 2
  assert 'is not the directory of a run' in capsys.readouterr().err
  stored = {'study': 'variant_ste', 'config': {}}
  (tmp_path / 'config.json').write_text(json.dumps(stored))
  assert command.main(['pack', str(tmp_path)]) == 2
  assert 'keeps no trained networks' in capsys.readouterr().err
  stored = {'study': 'train_cifar', 'config': {'epoch': 1}}
  (tmp_path / 'config.json').write_text(json.dumps(stored))
  assert command.main(['pack', str(tmp_path)]) == 2
  said = capsys.readouterr().err
  assert 'another version of train_cifar: there is no flag epoch' in said
  stored = {'study': 'train_cifar', 'config': {}}
  (tmp_path / 'config.json').write_text(json.dumps(stored))
  assert command.main(['pack', str(tmp_path)]) == 2
  assert 'holds no such checkpoint' in capsys.readouterr().err


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The directory of a finished run of two seeds."""
  folder = tmp_path_factory.mktemp('run')
  cli.launch(train_cifar.STUDY, ['--preset=smoke', f'--out={folder}'])
  return folder


@pytest.mark.slow
class TestARun:
  """A run of two tiny trainings."""

  def test_the_file_computes_what_the_network_does(self, run, tmp_path, capsys):
    test = data.load('digits', split='test')
    np.save(tmp_path / 'digits.npy', test.images)
    for seed in (0, 1):
      file, out = tmp_path / f'{seed}.bitjax', tmp_path / f'{seed}.npz'
      told = ['pack', str(run), f'--seed={seed}', f'--to={file}']
      assert command.main(told) == 0
      said = capsys.readouterr().out
      size = file.stat().st_size
      assert said.startswith(f'{file}: train_cifar, seed {seed}, sweep train,')
      assert f'; {size} bytes, ' in said and said.count('\n') == 1
      told = ['predict', str(file), str(tmp_path / 'digits.npy')]
      assert command.main([*told, f'--to={out}']) == 0
      capsys.readouterr()
      network = trained.find(run, {'seed': str(seed)})
      with jax.disable_jit():
        want = network.model.apply(
          network.variables, network.prepare(test.images), train=False
        )
      with np.load(out) as found:
        np.testing.assert_array_equal(found['logits'], want)

  def test_by_default_it_is_the_first_seed(self, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = pack.pack(trained.find(run, {}, which='best'))
    assert str(done.path) == 'train_cifar.seed0.bitjax'
    assert done.size == (tmp_path / done.path).stat().st_size

  @pytest.mark.parametrize(
    ('options', 'words'),
    [
      (['--seed=7'], 'seed must be one of 0; 1; got 7'),
      (['--seed=x'], 'seed must be one of 0; 1; got x'),
      (['--arm=x'], 'told apart by seed, sweep; got arm'),
      (['--which=last'], 'which must be one of latest, best'),
      (['--keep=all'], 'keep must be one of none, float'),
    ],
  )
  def test_bad_choices(self, run, tmp_path, capsys, options, words):
    file = tmp_path / 'a.bitjax'
    assert command.main(['pack', str(run), f'--to={file}', *options]) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.count('\n') == 1 and words in err
    assert not file.exists()

  @pytest.mark.parametrize(
    ('changed', 'words'),
    [
      ({'variant': 'plain'}, 'holds a network with variant = bireal'),
      ({'dataset': 'digits32'}, 'is not the data that'),
      ({'seeds': []}, 'seeds needs at least one value'),
    ],
  )
  def test_runs_that_do_not_fit_their_checkpoints(
    self, run, tmp_path, capsys, changed, words
  ):
    other = tmp_path / 'run'
    shutil.copytree(run, other)
    stored = json.loads((run / 'config.json').read_text())
    stored['config'] |= changed
    (other / 'config.json').write_text(json.dumps(stored))
    assert command.main(['pack', str(other)]) == 2
    assert words in capsys.readouterr().err
