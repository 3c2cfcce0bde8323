"""Generates artificial images of ten classes, so that no files are needed.

Every class has three prototypes, which are smooth random blobs. An image mixes one
of them with a blob from a pool that all classes share, and adds triangular noise. So
no single template defines a class, and no single pixel decides. Everything is
computed in integers from a raw PCG64 stream, so the images are the same on every
machine.
"""

from __future__ import annotations

import numpy as np

from bitjax.data import embedded
from bitjax.data import reading

__all__ = ['NUM_CLASSES', 'SIZES', 'read']

NUM_CLASSES = 10
SIZES = {'train': 40_000, 'test': 10_000}

_SEED = 2025
_STREAMS = {'train': 1, 'test': 2}
_SIDE = 28  # Pixels.
_NUM_MODES = 3  # Prototypes of a class.
_NUM_SHARED = 32  # Blobs that belong to no class.
_CHUNK = 5_000  # Examples generated at a time, which bounds the memory.


def read(part: str) -> reading.Arrays:
  """Generates the training or the test part.

  Args:
    part: ``'train'`` or ``'test'``.

  Returns:
    Images uint8 [N, 28, 28, 1] (N from ``SIZES``) and labels int32 [N], with
    equally many examples of all classes.
  """
  size = SIZES[part]
  own, shared = np.split(_blobs(), [NUM_CLASSES * _NUM_MODES])
  own = own.reshape(NUM_CLASSES, _NUM_MODES, _SIDE, _SIDE)
  order = embedded.permutation(size, _SEED, _STREAMS[part])
  labels = (order % NUM_CLASSES).astype(np.int32)
  stream = np.random.PCG64([_SEED, _STREAMS[part], 1])
  chunks = [
    _mix(stream, own, shared, labels[start : start + _CHUNK])
    for start in range(0, size, _CHUNK)
  ]
  return np.concatenate(chunks)[..., np.newaxis], labels


def _mix(
  stream: np.random.PCG64,
  own: np.ndarray,
  shared: np.ndarray,
  labels: np.ndarray,
) -> np.ndarray:
  """Mixes prototypes with shared blobs and adds noise: uint8 [N, 28, 28]."""
  size = len(labels)
  mode, other, share = _bytes(stream, (3, size))
  share = 64 + share[:, np.newaxis, np.newaxis] // 4  # In units of 1 / 256.
  prototypes = own[labels, mode % _NUM_MODES]
  distractors = shared[other % _NUM_SHARED]
  clean = (share * prototypes + (256 - share) * distractors) // 256
  first, second = _bytes(stream, (2, size, _SIDE, _SIDE))
  noisy = clean + (first - second) // 2
  return np.clip(noisy, 0, 255).astype(np.uint8)


def _blobs() -> np.ndarray:
  """Returns smooth patterns, integers [M, 28, 28], each spanning 0 to 255."""
  count = NUM_CLASSES * _NUM_MODES + _NUM_SHARED
  coarse = _bytes(np.random.PCG64([_SEED, 0]), (count, 7, 7))
  blobs = coarse.repeat(4, axis=1).repeat(4, axis=2)
  for axis in (1, 2, 1, 2):  # Apply a box filter of width 5, twice.
    shifted = [np.roll(blobs, shift, axis) for shift in range(-2, 3)]
    blobs = np.sum(shifted, axis=0)
  low = blobs.min(axis=(1, 2), keepdims=True)
  high = blobs.max(axis=(1, 2), keepdims=True)
  return (blobs - low) * 255 // (high - low)


def _bytes(stream: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
  """Draws integers from 0 to 255, as int32 of the given shape."""
  size = int(np.prod(shape))
  words = stream.random_raw(-(-size // 8)).astype('<u8')
  return words.view(np.uint8)[:size].reshape(shape).astype(np.int32)
