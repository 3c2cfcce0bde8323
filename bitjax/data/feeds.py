r"""Where the batches of training come from: memory of the device, or any source.

Step ``s`` belongs to epoch ``s // steps_per_epoch``. Every epoch goes once
through the examples in an order of its own, a function of the seed and its
number; the last examples of an order that fill no batch are left out, others in
every epoch. So a batch is a function of seed and step, whatever was asked for
before: training that begins in the middle of an epoch sees what it would have
seen, and both feeds give the same batches.

A loop takes ``chunk(start, num_steps)`` from the host, what so many steps need,
hands it to the compiled chunk of steps with ``feed.arrays``, and in there a
scan hands every step's slice to ``take``::

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

from bitjax import types
from bitjax.data import batches
from bitjax.data import datasets
from bitjax.data import embedded
from bitjax.data import indexing
from bitjax.data import reading

__all__ = ['Feed', 'Source', 'device_feed', 'device_feeds', 'host_feed']

_FOREVER = 1 << 40  # Steps: more than anybody trains.


@dataclasses.dataclass(frozen=True, eq=False)
class Feed:
  """Batches by the number of the step.

  Attributes:
    num_examples: how many examples an epoch draws from.
    batch_size: examples of a step.
    arrays: pytree of large arrays on the device: an argument of what is jitted.
    chunk: ``(start, num_steps) -> pytree``, on the host: what the steps from
      ``start`` on need; its leaves have a leading axis ``num_steps``. Answers
      depend on nothing but the arguments.
    take: ``(arrays, fed) -> Batch``, pure, inside ``jit``: the batch of one step
      (uint8 [B, H, W, C], int32 [B]) from that step's slice of a chunk.
  """

  num_examples: int
  batch_size: int
  arrays: types.PyTree
  chunk: Callable[[int, int], types.PyTree]
  take: Callable[[types.PyTree, types.PyTree], batches.Batch]

  @property
  def steps_per_epoch(self) -> int:
    """Steps of an epoch: whole batches."""
    return self.num_examples // self.batch_size


class Source(Protocol):
  """Examples by number, read from wherever they are, in any thread."""

  def __len__(self) -> int:
    """Returns how many examples there are."""
    ...

  def __getitem__(self, index: int, /) -> tuple[Any, Any]:
    """Returns an image, uint8 [H, W, C], and its label."""
    ...


def device_feed(dataset: datasets.Dataset, batch_size: int, seed: int) -> Feed:
  """Returns a feed of a data set that the device's memory holds.

  The host sends indices, int32 [num_steps, B], and a step gathers its rows.

  Args:
    dataset: the data, uint8 as they are.
    batch_size: examples of a step.
    seed: of the orders, an integer >= 0.

  Raises:
    ValueError: for a batch size that is not in [1, number of examples].
  """
  return device_feeds(dataset, batch_size, [seed])[0]


def device_feeds(
  dataset: datasets.Dataset, batch_size: int, seeds: Sequence[int]
) -> list[Feed]:
  """Returns a feed for each seed; the data are on the device once.

  Args:
    dataset: the data, uint8 as they are.
    batch_size: examples of a step.
    seeds: of the orders, integers >= 0.

  Raises:
    ValueError: for a batch size that is not in [1, number of examples].
  """
  size = len(dataset.labels)
  orders = [_order(size, batch_size, seed) for seed in seeds]
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
  _check_chunk(start, num_steps)
  return np.stack([order(step) for step in range(start, start + num_steps)])


def host_feed(
  source: Source, batch_size: int, seed: int, *, num_threads: int = 2
) -> Feed:
  """Returns a feed of examples that no memory holds, read while training runs.

  Threads (of the package ``grain``) read ahead of the last chunk as many steps
  as the longest so far had: the host's memory holds two chunks. A chunk that
  does not follow the last one waits for its own reading.

  Args:
    source: anything with ``len(source)`` and ``source[i] -> (image, label)``,
      all images uint8 of one shape [H, W, C]; slices of a memory map will do.
    batch_size: examples of a step.
    seed: of the orders, an integer >= 0: those of :func:`device_feed`.
    num_threads: how many read at the same time.

  Returns:
    The feed. Its chunks are images, uint8 [num_steps, B, H, W, C], and labels,
    int32 [num_steps, B]; ``arrays`` is empty.

  Raises:
    ValueError: for a batch size that is not in [1, number of examples], or a
      missing package; from ``chunk``, for an example that is not as above.
  """
  try:
    import grain
  except ImportError as error:
    raise reading.missing_package('host_feed', 'grain') from error
  types.check_integer('num_threads', num_threads, 1)
  size = len(source)
  order = _order(size, batch_size, seed)
  shape = np.shape(source[0][0])

  def read(step: int) -> reading.Arrays:
    images = np.empty((batch_size, *shape), np.uint8)
    labels = np.empty(batch_size, np.int32)
    for place, index in enumerate(order(step).tolist()):
      images[place], labels[place] = _example(source, index, shape)
    return images, labels

  def reader(start: int, depth: int):
    options = grain.ReadOptions(
      num_threads=num_threads, prefetch_buffer_size=max(depth, num_threads)
    )
    steps = grain.MapDataset.range(start, _FOREVER).map(read)
    return iter(steps.to_iter_dataset(options))

  # What is read ahead, by whom, up to where: it saves time, and is never seen.
  position, depth, ahead = -1, 0, None

  def chunk(start: int, num_steps: int) -> reading.Arrays:
    nonlocal position, depth, ahead
    _check_chunk(start, num_steps)
    if ahead is None or start != position or num_steps > depth:
      if ahead is not None:
        ahead.close()
      depth = max(depth, num_steps)
      ahead = reader(start, depth)
    position = -1  # Until all has been read: an error leaves nothing behind.
    steps = [next(ahead) for _ in range(num_steps)]
    position = start + num_steps
    images, labels = zip(*steps, strict=True)
    return np.stack(images), np.stack(labels)

  return Feed(size, batch_size, (), chunk, _as_batch)


# Functions of the module, the same for all feeds: what is compiled for one of them
# serves the others.
def _gather(arrays: batches.Batch, fed: types.Array) -> batches.Batch:
  return batches.Batch(*(indexing.take(array, fed) for array in arrays))


def _as_batch(
  arrays: tuple[()], fed: tuple[types.Array, types.Array]
) -> batches.Batch:
  del arrays
  return batches.Batch(*fed)


def _order(
  num_examples: int, batch_size: int, seed: int
) -> Callable[[int], np.ndarray]:
  """Returns the function from a step to its examples, int32 [B]."""
  types.check_integer('batch_size', batch_size, 1)
  types.check_integer('seed', seed, 0)
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
    epoch, place = divmod(step, steps_per_epoch)
    return epoch_order(epoch)[place * batch_size : (place + 1) * batch_size]

  return order


def _check_chunk(start: int, num_steps: int) -> None:
  """Raises unless these name some steps."""
  types.check_integer('start', start, 0)
  types.check_integer('num_steps', num_steps, 1)


def _example(
  source: Source, index: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, int]:
  """Returns an example of a source, checked."""
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
