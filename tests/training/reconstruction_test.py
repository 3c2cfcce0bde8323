"""Networks that enlarge images: the problem, its training, and whole images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import measures
from bitjax import nn
from bitjax import quantizers
from bitjax import training
from bitjax import types

SIGN = quantizers.attach(quantizers.sign(), quantizers.window())
SIDE, STEPS, CHUNK = 6, 12, 4


def smooth(rows, columns, seed):
  """An image that is not noise: a coarse one, enlarged."""
  draw = np.random.default_rng(seed)
  coarse = draw.integers(0, 256, (rows // 4, columns // 4, 3), np.uint8)
  return data.bicubic_on_host(coarse, shape=(rows, columns))


PAIRS = data.make_pairs({'a': smooth(32, 40, 1), 'b': smooth(28, 24, 2)}, 2)
TEST = data.make_pairs({'c': smooth(36, 28, 3)}, 2)
MODEL = nn.light_sr(
  blocks=1,
  width=4,
  shortcut='each',
  kernel_quantizer=SIGN,
  input_quantizer=SIGN,
  scaling='mean_abs',
)


def task(model=MODEL, **options):
  tx = training.optimizer('adam', 0.02)
  options = {'progress': training.progress('linear', STEPS)} | options
  return training.reconstruction(model, tx, border=2, **options)


TASK = task()


def train(folder=None, report=None, **options):
  (feed,) = data.patch_feeds(PAIRS, 4, [5], side=SIDE, repeats=8)
  options = {'feeds': [feed]} | options
  validation = data.padded_tiles(TEST, 4, side=SIDE)
  low, high = data.padded_tiles(PAIRS, 4, side=SIDE)[:2]
  return training.fit(
    training.Phase(TASK, STEPS),
    seeds=[5],
    validation=validation,
    probe=data.Batch(low[0], high[0]),
    folder=folder,
    report=report,
    chunk=CHUNK,
    **options,
  )


@pytest.fixture(scope='module')
def whole():
  return train()


def one_of(state):
  return jax.tree.map(lambda leaf: leaf[0], training.variables_of(state))


def luma(x):
  return 16 + np.asarray(x, np.float64) @ [65.481, 128.553, 24.966] / 255


def errors(x, truth):
  x, truth = luma(x)[..., 2:-2, 2:-2], luma(truth)[..., 2:-2, 2:-2]
  return np.mean((x - truth) ** 2, axis=(-2, -1))


def test_the_problem_is_absolute_errors_and_decibels():
  draw = np.random.default_rng(0)
  labels = draw.integers(0, 256, (3, 9, 8, 3), np.uint8)
  noise = draw.normal(0, 0.1, labels.shape)
  outputs = (labels / 255 + noise).astype(np.float32)
  problem = training.Reconstruction(border=2)
  targets = problem.targets(labels)
  np.testing.assert_allclose(targets, labels / 255, rtol=1e-6)
  absolute = 255 * np.abs(noise).mean(axis=(1, 2, 3))
  found = problem.loss(outputs, targets)
  np.testing.assert_allclose(found, absolute.mean(), rtol=1e-5)
  total = problem.total(outputs, targets)
  np.testing.assert_allclose(
    total, errors(255 * outputs, labels).sum(), rtol=1e-4
  )
  losses, values = problem.each(outputs, labels)
  np.testing.assert_allclose(losses, absolute, rtol=1e-5)
  grey_levels = np.rint(np.clip(255 * outputs, 0, 255))
  np.testing.assert_allclose(values, errors(grey_levels, labels), rtol=1e-4)
  np.testing.assert_allclose(
    problem.summary(values[0]), 10 * np.log10(255**2 / values[0])
  )
  assert problem.shown(31.456) == '31.46 dB'


@pytest.mark.slow
def test_history_is_of_decibels_and_agrees_with_numpy(whole):
  history = whole.history
  assert not [name for name in history if 'accuracy' in name]
  # Two epochs of four updates, and four updates more.
  assert history['train_psnr'].shape == (3, 1)
  low, high, weights = data.padded_tiles(TEST, 4, side=SIDE)
  variables = one_of(whole.state)
  tiles = low.reshape(-1, SIDE, SIDE, 3)[: int(weights.sum())]
  truth = high.reshape(-1, 2 * SIDE, 2 * SIDE, 3)[: len(tiles)]
  outputs = jax.jit(MODEL.apply)(variables, tiles / np.float32(255))
  grey_levels = np.rint(np.clip(255 * np.asarray(outputs), 0, 255))
  expected = 10 * np.log10(255**2 / np.mean(errors(grey_levels, truth)))
  np.testing.assert_allclose(
    history['validation_psnr'][-1], expected, rtol=1e-4
  )
  expected = np.mean(np.abs(255 * np.asarray(outputs) - truth))
  np.testing.assert_allclose(
    history['validation_loss'][-1], expected, rtol=1e-4
  )
  # The network learns: patches are nearer to the truth in the last epoch.
  assert history['train_loss'][-1] < history['train_loss'][0]
  assert 'flip_ratio/Block_0/Conv_0' in history
  assert np.all(history['gradient_sparsity/Block_0/Conv_0'] < 1)


class Stop:
  """Raises after some chunks, as a killed run ends."""

  def __init__(self, chunks):
    self.left, self.labels = chunks, []

  def begin(self, total, done, unit):
    del total, done, unit

  def compiling(self, label):
    del label

  def advance(self, images, label):
    del images
    self.labels.append(label)
    self.left -= 1
    if not self.left:
      raise KeyboardInterrupt


@pytest.mark.slow
def test_it_resumes_to_the_same_bits(whole, tmp_path):
  stop = Stop(2)
  with pytest.raises(KeyboardInterrupt):
    train(tmp_path, stop)
  assert 'dB' in stop.labels[-1] and 'validation' in stop.labels[-1]
  resumed = train(tmp_path)
  same = jax.tree.map(
    np.array_equal,
    training.variables_of(resumed.state),
    training.variables_of(whole.state),
  )
  assert all(jax.tree.leaves(same))
  for name, values in whole.history.items():
    np.testing.assert_array_equal(resumed.history[name], values)
  # The best checkpoint has the most decibels.
  best = training.load_variables(tmp_path, which='best')
  best = jax.tree.map(lambda leaf: leaf[None], best)
  scores = training.evaluator(TASK, 1)(
    best, data.padded_tiles(TEST, 4, side=SIDE)
  )
  np.testing.assert_allclose(
    scores.accuracy[0], whole.history['validation_psnr'].max(), rtol=1e-6
  )


@pytest.mark.slow
def test_files_that_are_read_ahead_train_the_same_network(whole):
  pytest.importorskip('grain')
  feed = data.patch_host_feed(PAIRS, 4, 5, side=SIDE, repeats=8)
  found = train(feeds=[feed])
  for a, b in zip(
    jax.tree.leaves(found.state.params),
    jax.tree.leaves(whole.state.params),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_network_enlarges_measured_as_papers_do(whole):
  variables = one_of(whole.state)
  found = training.image_scores(
    lambda low: training.enlarge(MODEL, variables, low), TEST
  )
  assert found.names == ('c',)
  low, high = TEST[0].low, TEST[0].high
  output = jax.jit(MODEL.apply)(variables, low[None] / np.float32(255))[0]
  expected = np.rint(np.clip(255 * np.asarray(output), 0, 255))
  image = training.enlarge(MODEL, variables, low)
  assert image.dtype == np.uint8
  np.testing.assert_allclose(image, expected, atol=1)
  psnr = 10 * np.log10(255**2 / errors(image, high))
  np.testing.assert_allclose(found.psnr, [psnr], rtol=1e-5)
  ssim = jax.jit(measures.ssim, static_argnames='border')(image, high, border=2)
  np.testing.assert_allclose(found.ssim, [ssim], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('sides', [(23, 40), (9, 31), (14, 14), (5, 6)])
@pytest.mark.parametrize('bits', [32, 1])
def test_tiles_change_nothing(sides, bits):
  # Five convolutions.
  model = nn.light_sr(blocks=1, width=3) if bits == 32 else MODEL
  image = smooth(40, 40, 7)[: sides[0], : sides[1]]
  variables = jax.jit(model.init)(
    jax.random.key(2), image[None] / np.float32(255)
  )
  whole = training.enlarge(model, variables, image).astype(int)
  tiles = training.enlarge(model, variables, image, tile=14, overlap=5)
  assert tiles.shape == whole.shape == (2 * sides[0], 2 * sides[1], 3)
  assert np.abs(whole - tiles).max() <= 1  # Halves may be rounded otherwise.
  assert np.mean(whole != tiles) < 0.002
  if sides[0] > 20:  # What a tile does not see is missed.
    short = training.enlarge(model, variables, image, tile=14, overlap=0)
    assert np.abs(whole - short).max() > 1


def test_whole_images_are_measured_with_a_border_of_the_scale():
  repeated = lambda low: low.repeat(2, 0).repeat(2, 1)
  found = training.image_scores(repeated, TEST)
  image, high = repeated(TEST[0].low), TEST[0].high
  psnr = 10 * np.log10(255**2 / errors(image, high))
  np.testing.assert_allclose(found.psnr, [psnr], rtol=1e-5)
  assert found.names == ('c',) and 0 < found.ssim[0] < 1


def test_another_scale_and_other_images_are_refused():
  pairs = data.make_pairs({'a': smooth(36, 36, 1)}, 3)
  with pytest.raises(
    types.BadInput, match=r'a: expected .* Is it of another scale'
  ):
    training.image_scores(lambda low: data.bicubic_on_host(low, 2), pairs)
  small = data.make_pairs({'b': smooth(16, 12, 1)}, 2)  # SSIM needs 15 pixels.
  with pytest.raises(types.BadInput, match='b: images must have 15 pixels'):
    training.image_scores(lambda low: data.bicubic_on_host(low, 2), small)
  with pytest.raises(types.BadInput, match='image must be uint8'):
    training.enlarge(MODEL, {}, np.zeros((4, 4, 3)))
  with pytest.raises(types.BadInput, match=r'none of them 0; got .*0, 4, 3'):
    training.enlarge(MODEL, {}, np.zeros((0, 4, 3), np.uint8), tile=40)
  image = np.zeros((4, 4, 3), np.uint8)
  with pytest.raises(types.BadInput, match='more than twice the overlap, 32'):
    training.enlarge(MODEL, {}, image, tile=32)
  with pytest.raises(types.BadInput, match='border must be'):
    training.image_scores(lambda low: low, pairs, border=-1)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'num_classes': 3}, 'num_classes is for classifications'),
    ({'smoothing': 0.1}, 'smoothing is for classifications'),
    (
      {'distillation': training.Distillation(MODEL, {})},
      'distillation is for classifications',
    ),
  ],
)
def test_a_problem_has_no_classes(fields, message):
  given = {'num_classes': None, 'prepare': jnp.asarray} | fields
  with pytest.raises(types.BadInput, match=message):
    training.Task(MODEL, TASK.tx, problem=training.Reconstruction(), **given)


def test_bad_problems():
  with pytest.raises(types.BadInput, match='border must be'):
    training.Reconstruction(border=-1)
  with pytest.raises(types.BadInput, match='channels must be one of'):
    task(channels='y')
  with pytest.raises(types.BadInput, match='num_classes must be'):
    training.Task(MODEL, TASK.tx, None, jnp.asarray)


@pytest.mark.slow
@pytest.mark.optimised
def test_photographs_end_above_bicubic():
  pytest.importorskip('skimage')
  with pytest.warns(UserWarning, match='are cropped'):
    train_part, test_part = (
      data.load_pairs('photographs', 2, split=split)
      for split in data.PAIR_SPLITS
    )
  model, steps = nn.light_sr(), 200
  tx = training.optimizer('adam', training.learning_rate('cosine', 2e-3, steps))
  fitted = training.fit(
    training.Phase(training.reconstruction(model, tx, border=2), steps),
    data.patch_feeds(train_part, 8, [0], side=16, repeats=64),
    [0],
    period=steps,
  )
  variables = one_of(fitted.state)
  ours = training.image_scores(
    lambda low: training.enlarge(model, variables, low), test_part
  )
  bicubic = training.image_scores(
    lambda low: data.bicubic_on_host(low, 2), test_part
  )
  assert np.all(ours.psnr > bicubic.psnr)
  assert np.mean(ours.psnr - bicubic.psnr) > 0.4
  assert np.all(ours.ssim > bicubic.ssim)
