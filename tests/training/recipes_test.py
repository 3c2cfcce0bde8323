"""Recipes: their phases, their outcomes, and what they refuse."""

import dataclasses
import types

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import quantizers
from bitjax import training
from bitjax import types as bitjax_types
from bitjax.training import _task


def recipe(**options):
  options = {
    'epochs': 1.5,
    'batch_size': 8,
    'optimizer': 'adam',
    'learning_rate': 0.05,
    'augmentation': (),
  } | options
  return training.Recipe(**options)


@pytest.mark.parametrize(
  ('epochs', 'num', 'steps'),
  [(1.0, 21, 2), (1.5, 21, 3), (0.01, 21, 1), (10.0, 8, 10), (0.75, 21, 2)],
)
def test_number_of_updates(epochs, num, steps):
  assert recipe(epochs=epochs).num_steps(num) == steps


def test_more_updates_than_can_be_counted():
  made = recipe(epochs=2.0**31)
  with pytest.raises(bitjax_types.BadInput, match='at most 1073741823 with'):
    made.num_steps(16)


def test_phases(tiny):
  made = recipe(
    epochs=5.0, warmup=0.2, smoothing=0.1, average=0.9, progress='cosine'
  ).phases([(0.25, tiny.Net(weights=None)), (1.0, tiny.Net())], tiny.dataset())
  assert [phase.until for phase in made] == [2, 10]
  first, last = (phase.task for phase in made)
  assert first.model.weights is None and last.model == tiny.Net()
  for task in (first, last):  # Both schedules cover all updates.
    assert (task.smoothing, task.average, task.num_classes) == (0.1, 0.9, 3)
    np.testing.assert_allclose(
      task.progress(jnp.arange(10)),
      (1 - np.cos(np.pi * np.arange(10) / 9)) / 2,
      atol=1e-6,
    )
  params = {'kernel': jnp.zeros(2)}
  state, rates = last.tx.init(params), []
  for _ in range(10):
    updates, state = last.tx.update({'kernel': jnp.ones(2)}, state, params)
    rates.append(-float(updates['kernel'][0]))
  after = [0.025 * (1 + np.cos(np.pi * t / 8)) for t in range(8)]
  rise = [0.05 / 3, 0.05 / 3 * 2]
  np.testing.assert_allclose(rates, [*rise, *after], rtol=1e-3, atol=1e-8)


def test_images_are_augmented_before_they_are_normalised(tiny):
  part = tiny.dataset()
  (phase,) = recipe(augmentation=('crop', 'flip')).phases(tiny.Net(), part)
  images = jnp.asarray(part.images[:8])
  targets = jax.nn.one_hot(jnp.asarray(part.labels[:8]), 3)
  seen = np.asarray(phase.task.prepare(jnp.asarray(part.images)))
  np.testing.assert_allclose(seen.mean(), 0, atol=1e-5)
  np.testing.assert_allclose(seen.std(), 1, rtol=1e-5)
  augment = jax.jit(phase.task.augment)
  found, same = augment(jax.random.key(0), images, targets)
  np.testing.assert_array_equal(same, targets)
  # What a crop adds is black, which is not 0 once normalised.
  black = phase.task.prepare(jnp.zeros((1, 1, 1, 1), jnp.uint8)).item()
  values = np.append(np.unique(phase.task.prepare(images)), black)
  found = np.asarray(found)
  assert np.abs(found[..., None] - values).min(-1).max() < 1e-5
  assert np.any(found == np.float32(black))


def test_the_crop_of_a_recipe(tiny):
  part = tiny.dataset()
  images = jnp.asarray(part.images[:8])
  mean = round(part.images.mean())

  def cropped(**options):
    made = recipe(augmentation=('crop',), **options)
    (phase,) = made.phases(tiny.Net(), part)
    found, _ = phase.task.augment(jax.random.key(1), images, jnp.zeros((8, 3)))
    return np.asarray(found), phase.task.prepare

  for options, drawn in (
    ({}, {}),
    ({'border': 'mean'}, {'fill': mean}),
    ({'offsets': 'batch'}, {'shared': True}),
    ({'border': 'mean', 'offsets': 'batch'}, {'fill': mean, 'shared': True}),
  ):
    found, prepare = cropped(**options)
    key = jax.random.split(jax.random.key(1), 1)[0]
    wanted = prepare(data.random_crop(key, images, **drawn))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
  black, filled = cropped()[0], cropped(border='mean')[0]
  border = filled != black
  assert border.any()
  # The mean is 0 once normalised, but for the rounding of a pixel's value.
  half = 0.5 / part.images.std()
  assert np.abs(filled[border]).max() <= half + 1e-5


def test_mixed_targets_and_smoothing_reach_the_loss(tiny):
  part = tiny.dataset()

  def blend(key, images, targets):
    share = jax.random.uniform(key)
    images = tiny.prepare(images)
    return (
      share * images + (1 - share) * images[::-1],
      share * targets + (1 - share) * targets[::-1],
    )

  task = tiny.task(augment=blend, smoothing=0.3)
  state = jax.tree.map(lambda leaf: leaf[0], tiny.start(task, 0))
  after = jax.jit(task.update)(state, tiny.probe(part), None)
  key = jax.random.split(jax.random.fold_in(state.key, 0))[0]
  smooth = 0.7 * np.eye(3, dtype=np.float32)[part.labels[:8]] + 0.1

  @jax.jit
  def forward(key, images, targets):
    images, targets = blend(key, images, targets)
    logits, _ = task.model.apply(
      training.variables_of(state),
      images,
      train=True,
      progress=0.0,
      mutable=['batch_stats'],
    )
    return jax.nn.log_softmax(logits), targets

  z, targets = forward(key, jnp.asarray(part.images[:8]), jnp.asarray(smooth))
  assert not np.allclose(targets, smooth)
  z = np.asarray(z, np.float64)
  np.testing.assert_allclose(
    after.totals.loss, -np.mean(np.sum(targets * z, -1)), rtol=1e-5
  )
  right = np.asarray(targets)[np.arange(8), z.argmax(-1)].sum()
  np.testing.assert_allclose(after.totals.accuracy, right / 8, rtol=1e-5)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'epochs': 0.0}, 'epochs must be > 0'),
    ({'epochs': float('nan')}, 'epochs must be > 0'),
    ({'batch_size': 0}, 'batch_size must be an integer >= 1'),
    ({'alpha': 0.0}, 'alpha must be > 0'),
    ({'alpha': -1.0}, 'alpha must be > 0'),
    ({'warmup': 1.0}, r'warmup must be in \[0, 1\); got 1.0'),
    ({'warmup': -0.1}, r'warmup must be in \[0, 1\); got -0.1'),
    ({'optimizer': 'lamb'}, 'optimizer must be one of sgd, adam, adamw, bop'),
    ({'schedule': 'poly'}, 'schedule must be one of cosine, step, linear'),
    ({'progress': 'slow'}, 'progress must be one of linear, cosine, hard'),
    ({'smoothing': 1.0}, r'smoothing must be in \[0, 1\)'),
    ({'momentum': 1.0}, 'momentum must be'),
    ({'quantizer_decay': -1.0}, 'quantizer_decay must be >= 0'),
    ({'clip_latent': 1.0, 'binary': ()}, 'binary must name the binary layers'),
    ({'frozen': ('(',)}, 'is no regular expression'),
    ({'border': 'white'}, "border must be one of black, mean; got 'white'"),
    ({'offsets': 'pixel'}, 'offsets must be one of image, batch'),
    ({'augmentation': ('zoom',)}, 'augmentation must be one of crop, flip'),
    ({'augmentation': ('mixup', 'cutmix')}, 'one of mixup and cutmix at most'),
  ],
)
def test_bad_recipes(options, message):
  with pytest.raises(bitjax_types.BadInput, match=message):
    recipe(**options)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'batch_size': 22}, 'batch_size must be at most 21, the examples'),
  ],
)
def test_bad_phases(tiny, options, message):
  with pytest.raises(bitjax_types.BadInput, match=message):
    recipe(**options).phases(tiny.Net(), tiny.dataset())


@pytest.mark.parametrize(
  'shares', [(), (0.5,), (1.0, 0.5), (0.5, 0.5, 1.0), (0.0, 1.0), (0.5, 1.5)]
)
def test_bad_shares(tiny, shares):
  stages = [(share, tiny.Net()) for share in shares]
  with pytest.raises(bitjax_types.BadInput, match='shares must grow to 1'):
    recipe().phases(stages, tiny.dataset())


def test_shares_without_an_update(tiny):
  stages = [(0.1, tiny.Net(weights=None)), (0.2, tiny.Net()), (1, tiny.Net())]
  with pytest.raises(
    bitjax_types.BadInput, match=r'every phase needs an update; .* 3'
  ):
    recipe().phases(stages, tiny.dataset())


class TestOutcome:
  """Shapes agree with the labels, and numbers with separate computations."""

  @pytest.fixture
  def parts(self, tiny):
    part = tiny.dataset(21, 0)
    return part, tiny.dataset(11, 1), tiny.dataset(10, 2)

  @pytest.mark.slow
  def test_numbers(self, tiny, parts, tmp_path):
    phases = recipe(average=0.5).phases(tiny.Net(), parts[0])
    dims, coords = training.layout(phases, parts[0], 8)
    found = training.outcome(
      phases, *parts, batch_size=8, seeds=[0, 4], folder=tmp_path
    )
    np.testing.assert_array_equal(coords['epoch'], [1.0, 1.5])
    assert coords['layer'] == ['Block_0', 'Dense_0', 'Dense_1']
    sizes = {name: len(values) for name, values in coords.items()}
    assert set(dims) <= set(found)
    packed = found.pop('test_right')
    assert packed.dtype == np.uint8 and dims.pop('test_right') == ('test_byte',)
    for name, values in found.items():
      own = tuple(sizes[axis] for axis in dims.get(name, ()))
      assert values.shape == (2, *own) and values.dtype == np.float32, name
      assert np.isfinite(values).all()
    assert set(dims) == {
      *('train_loss', 'train_accuracy', 'flip_ratio'),
      *('validation_loss', 'validation_accuracy', *training.STATISTICS),
    }

    @jax.jit
    def forward(variables, images):
      images = phases[0].task.prepare(images)
      return jax.nn.log_softmax(tiny.Net().apply(variables, images))

    for lane in (0, 1):
      variables = training.load_variables(
        tmp_path / 'checkpoints', seed=lane, average=True
      )
      for name, part in (('test', parts[2]), ('clean_train', parts[0])):
        z = np.asarray(forward(variables, jnp.asarray(part.images)))
        right = z.argmax(-1) == part.labels
        np.testing.assert_allclose(
          found[f'{name}_accuracy'][lane], np.mean(right), rtol=1e-5
        )
        if name == 'test':
          np.testing.assert_array_equal(
            np.unpackbits(packed[lane], count=len(right)), right
          )
        loss = -np.mean(z[np.arange(len(part.labels)), part.labels])
        np.testing.assert_allclose(found[f'{name}_loss'][lane], loss, rtol=1e-4)
    rows = (tmp_path / 'history.csv').read_text().splitlines()
    header = rows[0].split(',')
    assert len(rows) == 1 + 2 * 2
    last = dict(zip(header, rows[-1].split(','), strict=True))
    assert (last['step'], last['seed']) == ('3', '1')
    np.testing.assert_allclose(
      found['flip_ratio'][1, 1, 2], float(last['flip_ratio/Dense_1'])
    )
    np.testing.assert_allclose(
      found['validation_loss'][1, 1], float(last['validation_loss'])
    )

  @pytest.mark.parametrize(
    ('epochs', 'wanted'),
    [(1.0, [1]), (2.0, [1, 2]), (2.5, [1, 2, 2.5]), (0.5, [0.5])],
  )
  def test_epochs(self, tiny, parts, epochs, wanted):
    phases = recipe(epochs=epochs).phases(tiny.Net(), parts[0])
    _, coords = training.layout(phases, parts[0], 8)
    np.testing.assert_array_equal(coords['epoch'], wanted)

  def test_layers_are_in_the_order_of_the_network(self, parts):
    from bitjax import nn

    model = nn.resnet20(stages=(6, 6), widths=(2, 2))
    phases = recipe().phases(model, parts[0])
    layers = training.layout(phases, parts[0], 8)[1]['layer']
    assert layers[:3] == ['Conv_0', 'Block_0/Conv_0', 'Block_0/Conv_1']
    assert layers[-1] == 'Dense_0'
    assert layers.index('Block_10/Conv_0') > layers.index('Block_9/Conv_1')

  def test_patterns_that_match_nothing_are_found_early(self, tiny, parts):
    phases = recipe(frozen=('Conv_7',)).phases(tiny.Net(), parts[0])
    with pytest.raises(bitjax_types.BadInput, match="contains 'Conv_7'"):
      training.layout(phases, parts[0], 8)

  def test_the_data_lie_on_the_device_once(self, tiny, parts, monkeypatch):
    from bitjax.training import _fit

    seen = []

    def fit(phases, feeds, seeds, **options):
      seen.extend(feeds)
      raise KeyboardInterrupt

    monkeypatch.setattr(_fit, 'fit', fit)
    phases = recipe().phases(tiny.Net(), parts[0])
    with pytest.raises(KeyboardInterrupt):
      training.outcome(phases, *parts, batch_size=8, seeds=[0, 4])
    first, second = seen
    assert first.arrays.inputs is second.arrays.inputs
    assert np.any(first.chunk(0, 1) != second.chunk(0, 1))


@pytest.mark.slow
def test_16_samples_are_learned_by_heart(tiny):
  """A network of 1-bit weights and activations can memorise random labels."""
  draw = np.random.default_rng(0)
  labels = draw.integers(0, 3, 16).astype(np.int32)
  images = draw.integers(0, 256, (16, 4, 4, 1)).astype(np.uint8)
  part = data.Dataset('noise', 'train', images, labels, 3, 1 / 255)
  sign = quantizers.attach(quantizers.sign(), quantizers.window(1.0))
  model = tiny.Net(inputs=sign, width=64)
  made = recipe(
    epochs=120.0, batch_size=16, learning_rate=0.02, weight_decay=0.0
  ).phases(model, part)
  feed = data.device_feed(part, 16, 0)
  batches = data.padded_batches(part, 16)
  found = training.fit(
    made, [feed], [0], validation=batches, period=60, chunk=60
  )
  assert found.history['validation_accuracy'][-1] == 1.0
  assert found.history['train_loss'][-1] < found.history['train_loss'][0]


def test_preparation_is_of_the_training_set(tiny):
  part = tiny.dataset()
  prepare = training.preparation(part)
  pixels = part.images / 255
  np.testing.assert_allclose(
    prepare(jnp.asarray(part.images[:2])),
    (pixels[:2] - pixels.mean()) / pixels.std(),
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'seeds': (3, 3)}, r'seeds must differ; got \(3, 3\)'),
    ({'rates': (1.0, 1.0)}, 'one rate for each seed; got 2 and 1'),
    ({'chunk': 0}, 'chunk must be an integer >= 1; got 0'),
    ({'period': 0}, 'period must be an integer >= 1; got 0'),
    ({'tensorboard': True}, 'tensorboard needs a folder'),
  ],
)
def test_bad_fits(tiny, task, change, message):
  with pytest.raises(bitjax_types.BadInput, match=message):
    tiny.train(task, **change)


@pytest.mark.parametrize('num', [0, 6])
def test_bad_probes(tiny, task, num):
  part = tiny.dataset()
  probe = data.Batch(part.images[:num], part.labels[:num])
  feed = data.device_feed(part, tiny.BATCH, 0)
  with pytest.raises(
    bitjax_types.BadInput, match=f'probe must have .* got {num}'
  ):
    training.fit(training.Phase(task, 3), [feed], [0], probe=probe)


def test_bad_feeds(tiny, task):
  part = tiny.dataset()
  phase = training.Phase(task, 3)
  feed = data.device_feed(part, tiny.BATCH, 0)
  with pytest.raises(
    bitjax_types.BadInput, match='one feed for each seed; got 1 and 2'
  ):
    training.fit(phase, [feed], [0, 1])
  with pytest.raises(
    bitjax_types.BadInput, match='one feed for each seed; got 0 and 0'
  ):
    training.fit(phase, [], [])
  for other in (
    data.device_feed(part, 5, 1),
    data.device_feed(tiny.dataset(22), tiny.BATCH, 1),
  ):
    with pytest.raises(
      bitjax_types.BadInput, match='feeds must be of one data set and'
    ):
      training.fit(phase, [feed, other], [0, 1])


def test_batches_over_devices_that_do_not_fit(tiny, task):
  """They are refused before a device is used, so the test needs no devices."""
  feed = data.device_feed(tiny.dataset(), tiny.BATCH, 0)
  devices = types.SimpleNamespace(shape={'lanes': 1, 'batch': 3})
  with pytest.raises(
    bitjax_types.BadInput, match=r'divisible by the 3 devices .* got 4'
  ):
    training.fit(training.Phase(task, 3), [feed], [0], mesh=devices)
  foreign = dataclasses.replace(task, model=linen.Dense(3))
  cut = _task.loop.__wrapped__  # Its cache cannot hash these.
  devices = types.SimpleNamespace(shape={'lanes': 1, 'batch': 2})
  with pytest.raises(
    bitjax_types.BadInput, match=r'field axis_name.*; Dense has none'
  ):
    cut(foreign, feed.take, 1, devices)
