r"""Feeds: sources of training batches, from device memory or from any host data.

Step ``s`` belongs to epoch ``s // steps_per_epoch``. Every epoch goes through the
examples once, in an order of its own, which is a function of the seed and the
epoch. The last examples of an order, too few for a batch, are left out; they differ
from epoch to epoch. So a batch is a function of seed and step, whatever was asked
for before: training that resumes in the middle of an epoch sees the batches that it
would have seen, and both kinds of feed give the same batches.

A training loop calls ``chunk(start, num_steps)`` on the host, which returns what
these steps need, and passes it with ``feed.arrays`` to a compiled function of many
steps. In there, a scan passes each step's slice to ``take``::

  def steps(params, arrays, fed):
    def step(params, fed):
      batch = feed.take(arrays, fed)
      ...
    return jax.lax.scan(step, params, fed)

  params = jax.jit(steps)(params, feed.arrays, feed.chunk(start, num_steps))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from bitjax import extras
from bitjax import types
from bitjax.data import batches
from bitjax.data import datasets
from bitjax.data import embedded
from bitjax.data import indexing
from bitjax.data import reading

__all__ = [
  'Feed',
  'Source',
  'as_batch',
  'check_chunk',
  'device_feed',
  'device_feeds',
  'host_feed',
  'ordering',
  'read_ahead',
]

_FOREVER = 1 << 40  # More steps than any training has.


@dataclasses.dataclass(frozen=True, eq=False)
class Feed:
  """A source of training batches, each of which is a function of its step.

  Attributes:
    num_examples: how many examples an epoch draws from.
    batch_size: number of examples in the batch of a step.
    arrays: pytree of large arrays on the device; pass it to a jitted function as an
      argument.
    chunk: ``(start, num_steps) -> pytree``, called on the host: returns what the
      steps from ``start`` on need; its leaves have a leading axis ``num_steps``.
      The result depends on nothing but the arguments.
    take: ``(arrays, fed) -> Batch``, pure, called inside ``jit``: returns the batch
      of one step (uint8 [B, H, W, C], int32 [B]) from that step's slice of a chunk.
  """

  num_examples: int
  batch_size: int
  arrays: types.PyTree
  chunk: Callable[[int, int], types.PyTree]
  take: Callable[[types.PyTree, types.PyTree], batches.Batch]

  @property
  def steps_per_epoch(self) -> int:
    """Number of steps in an epoch; only whole batches count."""
    return self.num_examples // self.batch_size


class Source(Protocol):
  """A collection of examples that can be read by index, from any thread."""

  def __len__(self) -> int:
    """Returns how many examples there are."""
    ...

  def __getitem__(self, index: int, /) -> tuple[Any, Any]:
    """Returns an image, uint8 [H, W, C], and its label."""
    ...


def device_feed(dataset: datasets.Dataset, batch_size: int, seed: int) -> Feed:
  """Returns a feed of a data set that is held in device memory.

  The host sends indices, int32 [num_steps, B], and each step gathers its rows.

  Args:
    dataset: the data; images stay uint8.
    batch_size: number of examples in the batch of a step.
    seed: seed of the orders, an integer in [0, 2**32).

  Raises:
    BadInput: for a batch size that is not in [1, number of examples], or a seed that
      is not in [0, 2**32).
  """
  types.check_seed('seed', seed)
  return device_feeds(dataset, batch_size, [seed])[0]


def device_feeds(
  dataset: datasets.Dataset, batch_size: int, seeds: Sequence[int]
) -> list[Feed]:
  """Returns a feed for each seed; all share one copy of the data on the device.

  Args:
    dataset: the data; images stay uint8.
    batch_size: number of examples in the batch of a step.
    seeds: seeds of the orders, integers in [0, 2**32).

  Raises:
    BadInput: for a batch size that is not in [1, number of examples], or a seed that
      is not in [0, 2**32).
  """
  for seed in seeds:
    types.check_seed('seeds', seed)
  size = len(dataset.labels)
  orders = [ordering(size, batch_size, seed) for seed in seeds]
  arrays = batches.Batch(
    jnp.asarray(dataset.images), jnp.asarray(dataset.labels)
  )
  return [
    Feed(size, batch_size, arrays, functools.partial(_indices, order), _gather)
    for order in orders
  ]


def _indices(
  order: Callable[[int], np.ndarray], start: int, num_steps: int
) -> np.ndarray:
  check_chunk(start, num_steps)
  return np.stack([order(step) for step in range(start, start + num_steps)])


def host_feed(
  source: Source, batch_size: int, seed: int, *, num_threads: int = 2
) -> Feed:
  """Returns a feed of examples too large for memory, read while training runs.

  Threads of the package ``grain`` read ahead of the last chunk, by as many steps as
  the longest chunk so far had, so the host's memory holds two chunks. A chunk that
  does not continue the last one has to wait until it is read.

  Args:
    source: anything with ``len(source)`` and ``source[i] -> (image, label)``; all
      images are uint8 and of one shape [H, W, C]. Slices of a memory map will do.
    batch_size: number of examples in the batch of a step.
    seed: seed of the orders, an integer in [0, 2**32); it gives the orders of
      :func:`device_feed`.
    num_threads: number of threads that read.

  Returns:
    The feed. Its chunks are images, uint8 [num_steps, B, H, W, C], and labels,
    int32 [num_steps, B]; ``arrays`` is empty.

  Raises:
    BadInput: for a batch size that is not in [1, number of examples], or a
      missing package. ``chunk`` raises one for an example that is not as above.
  """
  size = len(source)
  types.check_seed('seed', seed)
  order = ordering(size, batch_size, seed)
  shape = np.shape(source[0][0])

  def read(step: int) -> reading.Arrays:
    images = np.empty((batch_size, *shape), np.uint8)
    labels = np.empty(batch_size, np.int32)
    for row, index in enumerate(order(step).tolist()):
      images[row], labels[row] = _example(source, index, shape)
    return images, labels

  chunk = read_ahead(read, num_threads, 'host_feed')
  return Feed(size, batch_size, (), chunk, as_batch)


def read_ahead(
  read: Callable[[int], reading.Arrays], num_threads: int, name: str
) -> Callable[[int, int], reading.Arrays]:
  """Returns the ``chunk`` of a feed whose steps are read by threads, ahead of use.

  Args:
    read: step -> what that step needs; called in threads.
    num_threads: number of threads.
    name: what needs the package, for the message where it lacks.
  """
  try:
    import grain
  except ImportError as error:
    raise extras.missing(name, 'grain') from error
  types.check_integer('num_threads', num_threads, 1)

  def reader(start: int, depth: int):
    options = grain.ReadOptions(
      num_threads=num_threads, prefetch_buffer_size=max(depth, num_threads)
    )
    steps = grain.MapDataset.range(start, _FOREVER).map(read)
    return iter(steps.to_iter_dataset(options))

  # The state of reading ahead: it saves time and does not affect any result.
  position, depth, ahead = -1, 0, None

  def chunk(start: int, num_steps: int) -> reading.Arrays:
    nonlocal position, depth, ahead
    check_chunk(start, num_steps)
    if ahead is None or start != position or num_steps > depth:
      if ahead is not None:
        ahead.close()
      depth = max(depth, num_steps)
      ahead = reader(start, depth)
    position = -1  # After an error, the next call starts a new reader.
    steps = [next(ahead) for _ in range(num_steps)]
    position = start + num_steps
    images, labels = zip(*steps, strict=True)
    return np.stack(images), np.stack(labels)

  return chunk


# These are functions of the module, not closures, so that all feeds have the same
# ones, and what is compiled for one feed serves the others.
def _gather(arrays: batches.Batch, fed: types.Array) -> batches.Batch:
  return batches.Batch(*(indexing.take(array, fed) for array in arrays))


def as_batch(
  arrays: tuple[()], fed: tuple[types.Array, types.Array]
) -> batches.Batch:
  """Returns the batch that a step's part of a chunk is: a ``take`` without arrays."""
  del arrays
  return batches.Batch(*fed)


def ordering(
  num_examples: int, batch_size: int, seed: int
) -> Callable[[int], np.ndarray]:
  """Returns a function from a step to the indices of its examples, int32 [B]."""
  types.check_integer('batch_size', batch_size, 1)
  if batch_size > num_examples:
    raise types.BadInput(
      f'A batch of {batch_size} needs as many examples; the data has '
      f'{num_examples}. Use a batch_size of at most {num_examples}.'
    )
  steps_per_epoch = num_examples // batch_size

  @functools.lru_cache(maxsize=2)
  def epoch_order(epoch: int) -> np.ndarray:
    return embedded.permutation(num_examples, seed, epoch).astype(np.int32)

  def order(step: int) -> np.ndarray:
    epoch, batch = divmod(step, steps_per_epoch)
    return epoch_order(epoch)[batch * batch_size : (batch + 1) * batch_size]

  return order


def check_chunk(start: int, num_steps: int) -> None:
  """Raises `BadInput` unless ``start >= 0`` and ``num_steps >= 1``."""
  types.check_integer('start', start, 0)
  types.check_integer('num_steps', num_steps, 1)


def _example(
  source: Source, index: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, int]:
  """Reads and checks one example of a source."""
  image, label = source[index]
  image, label = np.asarray(image), np.asarray(label)
  if (
    image.dtype != np.uint8
    or image.ndim != 3
    or image.shape != shape
    or label.ndim
    or not np.issubdtype(label.dtype, np.integer)
  ):
    raise types.BadInput(
      f'Example {index}: expected an image uint8 [H, W, C] of the shape of '
      f'the first, {shape}, and an integer label; found {image.dtype} '
      f'{image.shape} and {label.dtype} {label.shape}.'
    )
  return image, int(label)
