r"""Disjoint pairs of batches for experiments: one to search on, one to judge by.

Search batch ``A`` and held-out batch ``B`` are disjoint by construction. Every
example gets an independent random number; the examples with the ``m`` largest
make ``A``, those with the next ``m`` make ``B``. Together they are the head of a
uniformly random permutation, at the cost of a partial sort.

Without augmentation ``m`` is the batch size. With ``augment='shift'`` it is at
most half of the data: the *base images* are divided before anything is
shifted, so no image has copies on both sides. A batch larger than its half
repeats the base images in turn (counts differ by at most one), each copy
shifted by its own offset. Such examples are not independent, and results that
rest on them should say so.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
from jax import lax
import jax.numpy as jnp

from bitjax import types
from bitjax.data import indexing

__all__ = [
  'AUGMENTS',
  'MAX_SHIFT',
  'Augment',
  'Batch',
  'check_batch_size',
  'remainder',
  'search_and_holdout',
]

Augment: TypeAlias = Literal['none', 'shift']

AUGMENTS: tuple[str, ...] = get_args(Augment)

MAX_SHIFT = 2  # Pixels, in both directions of both axes.


class Batch(NamedTuple):
  """A batch of images and what belongs to each: a label, or a larger image."""

  inputs: types.Array  # shape=[B, H, W, C], uint8.
  labels: types.Array  # shape=[B], int32; or shape=[B, s H, s W, C], uint8.


def search_and_holdout(
  key: types.Array,
  images: types.Array,
  labels: types.Array,
  batch_size: int,
  *,
  augment: Augment = 'none',
) -> tuple[Batch, Batch]:
  """Draws a search batch and a held-out batch that share no base image.

  Pure; ``jit`` it with ``batch_size`` and ``augment`` static, ``vmap`` it over
  ``key``.

  Args:
    key: typed key (``jax.random.key``).
    images: uint8 [N, H, W, C]; pass it to a jitted function as an argument, do
      not close over it.
    labels: int32 [N].
    batch_size: examples in each of the two batches.
    augment: ``'none'`` draws without replacement; ``'shift'`` moves every
      example by an offset uniform on ``{-2, ..., 2}^2`` pixels, filled with
      zeros, and reaches any batch size.

  Returns:
    The search batch ``A`` and the held-out batch ``B``.

  Raises:
    BadInput: for a raw key, shapes that do not match, or a batch that the
      data cannot supply (see :func:`check_batch_size`).
  """
  if not (
    isinstance(key, jax.Array)
    and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    and key.ndim == 0
  ):
    raise types.BadInput(
      'key must be one typed key, jax.random.key(seed); got '
      f'{getattr(key, "dtype", type(key).__name__)} of shape '
      f'{getattr(key, "shape", ())}.'
    )
  if images.ndim != 4 or labels.shape != images.shape[:1]:
    raise types.BadInput(
      'images must be [N, H, W, C] and labels [N]; got shapes '
      f'{images.shape} and {labels.shape}.'
    )
  num_examples = images.shape[0]
  check_batch_size(num_examples, batch_size, augment=augment)

  if augment == 'none':
    numbers = jax.random.bits(key, (num_examples,), jnp.uint32)
    chosen = _distinct(numbers, 2 * batch_size)
    inputs = indexing.take(images, chosen)
  else:
    # One draw serves both purposes: two would take twice as long to compile.
    size = num_examples + 2 * batch_size
    numbers = jax.random.bits(key, (size,), jnp.uint32)
    num_bases = min(batch_size, num_examples // 2)
    bases = _distinct(numbers[:num_examples], 2 * num_bases)
    turns = jnp.arange(batch_size) % num_bases
    chosen = jnp.concatenate([bases[turns], bases[num_bases + turns]])
    inputs = _shift(
      indexing.take(images, chosen), _offsets(numbers[num_examples:])
    )
  targets = indexing.take(labels, chosen)
  return (
    Batch(inputs[:batch_size], targets[:batch_size]),
    Batch(inputs[batch_size:], targets[batch_size:]),
  )


def remainder(
  key: types.Array, num_examples: int, batch_size: int
) -> types.Array:
  """Returns the indices of the examples that `search_and_holdout` leaves out.

  This holds for the same key and batch size, without augmentation. A model may be
  trained on these examples while both batches stay unseen.

  Args:
    key: the key of the two batches.
    num_examples: how many examples the data has.
    batch_size: examples in each of the two batches.

  Returns:
    int32 [num_examples - 2 * batch_size], in random order.

  Raises:
    BadInput: if no example would be left.
  """
  types.check_integer('num_examples', num_examples, 0)
  types.check_integer('batch_size', batch_size, 1)
  most = (num_examples - 1) // 2
  if batch_size > most:
    way_out = f', or a batch of at most {most}' if most > 0 else ''
    raise types.BadInput(
      f'Two batches of {batch_size} leave none of the {num_examples} examples to '
      f'train on. Use data with more examples{way_out}.'
    )
  numbers = jax.random.bits(key, (num_examples,), jnp.uint32)
  return _distinct(numbers, num_examples)[2 * batch_size :]


def check_batch_size(
  num_examples: int, batch_size: int, *, augment: Augment = 'none'
) -> None:
  """Raises unless two disjoint batches can be drawn from the data.

  Args:
    num_examples: how many examples the data has.
    batch_size: examples in each of the two batches.
    augment: how examples are augmented; one of ``AUGMENTS``.

  Raises:
    BadInput: for a batch size that is not an integer >= 1, an unknown
      ``augment``, or too few examples (the message then names the ways out).
  """
  types.check_choice('augment', augment, AUGMENTS)
  types.check_integer('num_examples', num_examples, 0)
  types.check_integer('batch_size', batch_size, 1)
  if augment == 'shift':
    if num_examples < 2:
      raise types.BadInput(
        'A search and a held-out batch need at least 2 examples to start '
        f'from; the data has {num_examples}. Use other data.'
      )
  elif 2 * batch_size > num_examples:
    smaller = num_examples // 2
    way_out = f'a batch of at most {smaller}, ' if smaller else ''
    raise types.BadInput(
      f'A search batch and a disjoint held-out batch of {batch_size} need '
      f'{2 * batch_size} examples; the data has {num_examples}. Use data with '
      f'more examples, {way_out}or augment=shift (shifted copies, marked in '
      'the results as not independent).'
    )


def _distinct(numbers: types.Array, count: int) -> types.Array:
  """Returns the indices of the ``count`` largest of the random ``numbers``."""
  # top_k is several times faster than a permutation if `count` is small. It
  # breaks ties by index; ties of 32 random bits are too rare to matter.
  return lax.top_k(numbers, count)[1]


def _offsets(numbers: types.Array) -> types.Array:
  """Maps random uint32 [N] to offsets, int32 [N, 2], each one of 25 pairs."""
  side = 2 * MAX_SHIFT + 1
  # 2^32 is no multiple of 25; the bias, below 1e-8, is too small to matter.
  pair = (numbers % (side * side)).astype(jnp.int32)
  return jnp.stack([pair // side, pair % side], axis=1) - MAX_SHIFT


def _shift(images: types.Array, offsets: types.Array) -> types.Array:
  """Moves image ``i`` down and right by ``offsets[i]``, filling in zeros."""
  return indexing.crop(images, MAX_SHIFT - offsets, MAX_SHIFT)
