"""Feeds: every example once an epoch, the same from device and host."""

import itertools
import sys
import threading
import time

import jax
import numpy as np
import pytest

from bitjax import data
from bitjax import types

SIZE, BATCH, EPOCH, SEED = 53, 8, 6, 3


def dataset_of(size):
  """Random images, and labels that name them."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (size, 3, 2, 1), dtype=np.uint8)
  labels = np.arange(size, dtype=np.int32)
  return data.Dataset('tagged', 'train', images, labels, size, 1 / 255)


DATASET = dataset_of(SIZE)


class Source:
  """Returns examples one at a time, and counts how often each is read."""

  def __init__(self, dataset=DATASET):
    self.dataset = dataset
    self.reads = [0] * len(dataset.labels)
    self._lock = threading.Lock()

  def __len__(self):
    return len(self.reads)

  def __getitem__(self, index):
    with self._lock:
      self.reads[index] += 1
    return self.dataset.images[index], self.dataset.labels[index]


def host_feed(seed=SEED, **kwargs):
  pytest.importorskip('grain')
  return data.host_feed(Source(), BATCH, seed, **kwargs)


@pytest.fixture(scope='module')
def device():
  return data.device_feed(DATASET, BATCH, SEED)


@pytest.fixture(scope='module')
def run(device):
  """Returns a function that takes a chunk's batches as a training loop does."""

  @jax.jit
  def steps(arrays, fed):
    return jax.lax.map(lambda one: device.take(arrays, one), fed)

  return lambda start, num_steps: jax.tree.map(
    np.asarray, steps(device.arrays, device.chunk(start, num_steps))
  )


def test_a_batch_is_images_with_their_labels(device, run):
  batches = run(0, EPOCH)
  assert batches.inputs.dtype == np.uint8 and batches.labels.dtype == np.int32
  assert batches.inputs.shape == (EPOCH, BATCH, 3, 2, 1)
  np.testing.assert_array_equal(batches.inputs, DATASET.images[batches.labels])
  np.testing.assert_array_equal(batches.labels, device.chunk(0, EPOCH))


def test_every_example_is_seen_once_an_epoch_and_orders_differ(device):
  assert (device.num_examples, device.batch_size) == (SIZE, BATCH)
  assert device.steps_per_epoch == EPOCH
  orders = device.chunk(0, 40 * EPOCH).reshape(40, EPOCH * BATCH)
  assert all(len(set(order.tolist())) == EPOCH * BATCH for order in orders)
  assert len({order.tobytes() for order in orders}) == 40
  # Each epoch leaves five others out: an example is seen Binomial(40, 48/53)
  # times, mean 36.2, standard deviation 1.85.
  seen = np.bincount(orders.ravel(), minlength=SIZE)
  assert np.all(np.abs(seen - 40 * 48 / 53) < 5 * 1.85)
  # The first position of an epoch is not tied to an example.
  assert len(set(orders[:, 0].tolist())) > 20


def test_nothing_is_left_out_where_batches_fit():
  feed = data.device_feed(dataset_of(48), BATCH, 0)
  order = feed.chunk(EPOCH, EPOCH).ravel()
  assert sorted(order.tolist()) == list(range(48))
  whole = data.device_feed(dataset_of(5), 5, 0)
  assert sorted(whole.chunk(3, 1)[0].tolist()) == list(range(5))


def test_seeds_make_orders_and_the_same_seed_the_same(device):
  again = data.device_feed(DATASET, BATCH, SEED).chunk(0, 9)
  np.testing.assert_array_equal(again, device.chunk(0, 9))
  other = data.device_feed(DATASET, BATCH, SEED + 1).chunk(0, 9)
  assert not np.array_equal(other[0], again[0])


@pytest.mark.parametrize('kind', ['device', 'host'])
def test_a_step_does_not_depend_on_how_chunks_are_cut(kind, device):
  feed = device if kind == 'device' else host_feed()
  whole = jax.tree.leaves(feed.chunk(0, 20))
  rng = np.random.default_rng(1)
  for _ in range(5):
    cuts = [0, *sorted(rng.choice(np.arange(1, 20), 4, replace=False)), 20]
    parts = [
      jax.tree.leaves(feed.chunk(start, stop - start))
      for start, stop in itertools.pairwise(cuts)
    ]
    for i, leaf in enumerate(whole):
      joined = np.concatenate([part[i] for part in parts])
      np.testing.assert_array_equal(joined, leaf)
  for start in (17, 2):  # Chunks may be read out of order.
    for part, leaf in zip(
      jax.tree.leaves(feed.chunk(start, 2)), whole, strict=True
    ):
      np.testing.assert_array_equal(part, leaf[start : start + 2])


# From the start, from the middle of the first epoch, and of a later one.
@pytest.mark.parametrize('start', [0, 4, 3 * EPOCH + 2])
def test_host_and_device_give_the_same_batches(start, run):
  feed = host_feed(num_threads=3)
  for first in (start, start + 7):
    images, labels = feed.chunk(first, 7)
    batch = run(first, 7)
    np.testing.assert_array_equal(images, batch.inputs)
    np.testing.assert_array_equal(labels, batch.labels)
    assert images.dtype == np.uint8 and labels.dtype == np.int32
  one = feed.take(feed.arrays, (images[0], labels[0]))
  assert isinstance(one, data.Batch)
  np.testing.assert_array_equal(one.inputs, images[0])
  np.testing.assert_array_equal(one.labels, labels[0])
  assert feed.steps_per_epoch == EPOCH and not jax.tree.leaves(feed.arrays)


def test_the_next_chunk_is_read_while_this_one_trains():
  pytest.importorskip('grain')
  source = Source(dataset_of(80))
  feed = data.host_feed(source, BATCH, 0)
  source.reads[0] = 0  # The feed reads the first example for its shape.
  feed.chunk(0, 3)
  deadline = time.monotonic() + 30
  while sum(source.reads) < 6 * BATCH and time.monotonic() < deadline:
    time.sleep(0.01)
  # The next chunk is read before it is asked for, and nothing beyond it.
  time.sleep(0.05)
  assert sum(source.reads) == 6 * BATCH
  feed.chunk(3, 3)
  feed.chunk(6, 2)
  assert max(source.reads) == 1
  # A chunk that does not follow the last one is read again.
  feed.chunk(3, 3)
  assert max(source.reads) == 2


BAD = {
  'other size': (np.zeros((3, 3, 1), np.uint8), 1),
  'other type': (np.zeros((3, 2, 1), np.float32), 1),
  'not a label': (np.zeros((3, 2, 1), np.uint8), 0.5),
  'many labels': (np.zeros((3, 2, 1), np.uint8), [1, 2]),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_example_is_named_and_the_feed_goes_on(kind):
  pytest.importorskip('grain')

  class Damaged(Source):
    def __getitem__(self, index):
      good = super().__getitem__(index)
      return BAD[kind] if index == 11 else good

  feed = data.host_feed(Damaged(), BATCH, SEED)
  wanted = data.device_feed(DATASET, BATCH, SEED).chunk(0, 3 * EPOCH)
  steps = range(EPOCH, 3 * EPOCH)
  bad = next(i for i in steps if 11 in wanted[i] and 11 not in wanted[i - 1])
  for _ in range(2):
    # The step before is read first, so that the bad step is read ahead.
    labels = feed.chunk(bad - 1, 1)[1]
    np.testing.assert_array_equal(labels[0], wanted[bad - 1])
    for _ in range(2):
      with pytest.raises(
        types.BadInput, match=r'^Example 11: expected an'
      ) as error:
        feed.chunk(bad, 1)
      assert '\n' not in str(error.value)


@pytest.mark.parametrize('make', [data.device_feed, data.host_feed])
@pytest.mark.parametrize(
  'batch_size,seed,pattern',
  [
    (54, 0, 'A batch of 54 needs as many examples; the data has 53'),
    (0, 0, 'batch_size must be an integer >= 1; got 0'),
    (2.0, 0, 'batch_size must be an integer >= 1; got 2.0'),
    (8, -1, 'seed must be an integer >= 0; got -1'),
    (8, 2**32, r'seed must be < 2\*\*32; got 4294967296'),
  ],
)
def test_bad_sizes_are_one_line(make, batch_size, seed, pattern):
  if make is data.host_feed:
    pytest.importorskip('grain')
  with pytest.raises(types.BadInput, match=pattern) as error:
    make(DATASET if make is data.device_feed else Source(), batch_size, seed)
  assert '\n' not in str(error.value)


def test_bad_seeds_are_found_before_any_feed():
  with pytest.raises(types.BadInput, match=r'^seeds must be < 2\*\*32; got'):
    data.device_feeds(DATASET, 8, [0, 2**32])


def test_bad_steps_threads_and_a_missing_package(device, monkeypatch):
  with pytest.raises(
    types.BadInput, match='start must be an integer >= 0; got -1'
  ):
    device.chunk(-1, 2)
  for feed in (device, host_feed()):
    with pytest.raises(
      types.BadInput, match=r'num_steps must be .* >= 1; got 0'
    ):
      feed.chunk(0, 0)
  with pytest.raises(
    types.BadInput, match='num_threads must be an integer >= 1'
  ):
    host_feed(num_threads=0)
  monkeypatch.setitem(sys.modules, 'grain', None)
  with pytest.raises(
    types.BadInput, match=r'needs grain, .*bitjax\[experiments\]'
  ):
    data.host_feed(Source(), BATCH, SEED)
