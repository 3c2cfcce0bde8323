"""Published recipes: what the presets are made of, and what is refused."""

import jax
import numpy as np
import pytest

from bitjax import cli
from bitjax import data
from bitjax import nn
from bitjax.data import pictures
from bitjax.studies import train_superres
from bitjax.studies.recipes import pairs as pairs_lib
from bitjax.studies.train_superres import config as config_lib
from bitjax.studies.train_superres import quantizing
from bitjax.studies.train_superres import study
from bitjax.studies.train_superres import trainings

PUBLISHED = [name for name in study.PRESETS if name not in ('smoke', 'quick')]
DIV2K = 800  # Images.


def configured(preset, **values):
  return config_lib.Config(**study.PRESETS[preset] | values)


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_preset_is_a_recipe(name):
  config, doc = configured(name), study.STUDY.doc
  assert name in doc
  if config.target is None:
    assert name == 'e2fif_w1a1'
  else:
    assert f'{config.target:g}' in doc
  assert (config.blocks, config.channels) == (16, 64)
  updates = config.num_steps(DIV2K)
  assert updates == 1000 * config.epochs
  # The rate halves at the same shares of a training that is cut short.
  for steps in (updates, 120):
    rate = config.rate(steps)
    for number, share in enumerate(config.milestones, 1):
      before, after = (float(rate(round(share * steps) + at)) for at in (-1, 1))
      np.testing.assert_allclose(after, config.learning_rate / 2**number)
      np.testing.assert_allclose(before, 2 * after)
  # Patches have the published size at the high resolution.
  wanted = {'bbcu_w1a1': 64, 'react_w1a1': 64}
  high = config.side * config.scale
  assert high == wanted.get(name, {2: 96, 4: 192}[config.scale])


def test_the_length_follows_from_epochs_and_images():
  assert configured('bbcu_w1a1').num_steps(DIV2K) == 300_000
  assert configured('bbcu_w1a1', epochs=3.0).num_steps(DIV2K) == 3000
  assert configured('bbcu_w1a1', epochs=3.0).num_steps(80) == 300


@pytest.mark.parametrize(
  ('name', 'bits'),
  [
    ('edsr_baseline', (32, 32)),
    ('srresnet', (32, 32)),
    ('e2fif_w1a1', (1, 1)),
    ('bbcu_w1a1', (1, 1)),
    ('react_w1a1', (1, 1)),
    ('pams_w8a8', (8, 8)),
    ('pams_w4a4', (4, 4)),
    ('ddtb_w4a4', (4, 4)),
    ('ddtb_w3a3', (3, 3)),
    ('ddtb_w2a2', (2, 2)),
  ],
)
def test_what_is_quantized(name, bits):
  model = configured(name, blocks=1, channels=4).model()
  counted = nn.summary(model, jax.ShapeDtypeStruct((1, 6, 5, 3), 'float32'))
  macs = {layer.path: set(layer.macs) for layer in counted.layers if layer.macs}
  for path in ('Block_0/Conv_0', 'Block_0/Conv_1', 'Conv_body'):
    assert macs[path] == {bits}
  for path in ('Conv_head', 'Conv_tail'):
    assert macs[path] == {(32, 32)}


def test_every_preset_is_listed():
  assert sorted(study.STUDY.presets) == sorted([*PUBLISHED, 'smoke', 'quick'])
  kernels = {configured(name).kernels for name in PUBLISHED}
  assert kernels <= set(quantizing.KERNELS)


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--images=folder'], 'needs --data_dir'),
    (['--scale=5'], 'scale must be one of 2, 3, 4'),
    (['--kernels=sign'], 'kernels must be one of none, signs'),
    (['--inputs=pams3'], 'inputs must be one of none, window'),
    (['--quantized=body'], 'quantized must be one of head, upsampler, tail'),
    (
      ['--quantized=upsampler', '--kernels=scaled', '--upsampler=direct'],
      'quantize_upsampler=True needs an upsampler with convolutions',
    ),
    (['--target=0'], 'target must be > 0'),
    (['--shortcut=all'], 'shortcut must be one of block, each'),
  ],
)
def test_flags(refused, flags, words):
  refused(train_superres.STUDY, ['--preset=smoke', *flags], words)


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--validation_images=3'], 'must leave some of the 3 training images'),
    (['--side=13'], 'hold no patch of 13'),
    (['--pretrained=nowhere'], 'nowhere'),
    (['--test_set=Set14'], 'Set14: expected a folder of PNG'),
    (['--batch_size=50'], 'Use a batch_size of at most 32'),
  ],
)
def test_images(refused, pairs_folder, flags, words):
  given = ['--preset=smoke', '--images=folder', f'--data_dir={pairs_folder}']
  given.append('--validation_images=1')
  names = {flag.partition('=')[0] for flag in flags}
  given = [flag for flag in given if flag.partition('=')[0] not in names]
  refused(train_superres.STUDY, [*given, *flags], words)


def test_images_that_are_too_many_are_read_from_files(
  pairs_folder, monkeypatch
):
  pytest.importorskip('grain')
  config = config_lib.Config(
    images='folder', data_dir=str(pairs_folder), validation_images=1, side=6,
    batch_size=4, repeats=4,
  )  # fmt: skip
  parts, records = config.load()
  (kept,) = pairs_lib.feeds(config, parts.train, (3,))
  monkeypatch.setattr(pairs_lib, '_HELD', 100)
  parts, others = config.load()
  (read,) = pairs_lib.feeds(config, parts.train, (3,))
  assert records == others
  assert not read.arrays and kept.arrays
  for start in (0, 1):
    one, other = (
      feed.take(
        feed.arrays, jax.tree.map(lambda leaf: leaf[0], feed.chunk(start, 1))
      )
      for feed in (kept, read)
    )
    for a, b in zip(one, other, strict=True):
      np.testing.assert_array_equal(a, b)


def smooth(rows, columns, seed):
  draw = np.random.default_rng(seed)
  coarse = draw.integers(0, 256, (rows // 4, columns // 4, 3), np.uint8)
  return data.bicubic_on_host(coarse, shape=(rows, columns))


@pytest.mark.slow
def test_a_low_bit_training_starts_from_full_precision(tmp_path, capsys):
  pytest.importorskip('PIL')
  home = tmp_path / 'data'
  for part, names in (('train', 'abc'), ('Set5', 'd')):
    (home / part).mkdir(parents=True)
    for index, name in enumerate(names):
      pictures.write(home / part / f'{name}.png', smooth(40, 48, index))
  shared = ['--images=folder', f'--data_dir={home}', '--validation_images=1']
  shared += ['--seeds=0', '--blocks=1', '--channels=4', '--side=8']
  shared += ['--batch_size=4', '--repeats=4', '--nocompilation_cache']
  first, second = tmp_path / 'first', tmp_path / 'second'
  told = ['--preset=edsr_baseline', '--epochs=10', f'--out={first}', *shared]
  assert cli.launch(train_superres.STUDY, told) == 0
  told = ['--preset=ddtb_w4a4', '--epochs=0.5', '--learning_rate=1e-6']
  told += [f'--out={second}', *shared]
  told.append(f'--pretrained={first / "lanes" / "train" / "0-0"}')
  assert cli.launch(train_superres.STUDY, told) == 0
  xarray = pytest.importorskip('xarray')
  full, low = (
    xarray.load_dataset(run / 'results.nc', engine='h5netcdf')
    for run in (first, second)
  )
  # It begins where full precision ended, but for the rounding to four bits.
  assert abs(float((full.psnr - low.psnr).mean())) < 1.5
  assert full.attrs['target'] == 38.02
  assert low.attrs['bit_operations'] > 0 == full.attrs['bit_operations']
  # Another network does not fit.
  told = [
    '--preset=smoke',
    '--channels=5',
    f'--pretrained={first}/lanes/train/0-0',
  ]
  told.append(f'--out={tmp_path / "third"}')
  capsys.readouterr()
  assert cli.launch(train_superres.STUDY, told) == 2
  assert capsys.readouterr().err.count('\n') == 1


def test_whole_images_are_measured_as_papers_do():
  """Of a network whose tail is 0, what is left is the base."""
  config = config_lib.Config(blocks=1, channels=4, base='bicubic')
  model = config.model()
  pairs = data.make_pairs({'a': smooth(40, 44, 0), 'b': smooth(36, 36, 1)}, 2)
  images = np.zeros((1, 8, 8, 3), np.float32)
  variables = jax.jit(model.init)(jax.random.key(0, impl='rbg'), images)
  tail = variables['params']['Conv_tail']
  variables['params']['Conv_tail'] = jax.tree.map(np.zeros_like, tail)
  found = trainings._measured(model, variables, pairs)
  for pair, psnr in zip(pairs, found.psnr, strict=True):
    enlarged = data.bicubic_on_host(pair.low.astype(np.float64), 2)
    weights = np.array([65.481, 128.553, 24.966]) / 255
    error = (np.round(np.clip(enlarged, 0, 255)) - pair.high) @ weights
    error = error[2:-2, 2:-2]
    np.testing.assert_allclose(
      psnr, 10 * np.log10(255**2 / np.mean(error**2)), atol=0.02
    )
