"""Packed images: to and from the layout NHWC, in chunks, and pooled.

Images of a chunk are computed together, so that all that happens to them stays in the
cache: a network runs for some images, and then for the next.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax import export
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.packed import _convolution
from bitjax.packed import _words

__all__ = [
  'conv_nhwc',
  'map_images',
  'max_pool',
  'pack_images',
  'unpack_images',
]


def pack_images(images: Any, *, word: Any = None) -> types.Array:
  """Packs the signs of images NHWC along their channels.

  Args:
    images: [images, height, width, channels], as in `pack`.
    word: as in `pack`.

  Returns:
    Words [height, width, words, images].

  Raises:
    BadInput: for other than four axes, and as `pack`.
  """
  images = jnp.asarray(images)
  _check_nhwc('images', images)
  return _packed('images', images, word)


def unpack_images(
  words: types.Array, channels: int, *, dtype: Any = np.float32
) -> types.Array:
  """Returns the values ±1 of packed images, [images, height, width, channels].

  Args:
    words: [height, width, words, images].
    channels: how many channels were packed.
    dtype: as in `unpack`.

  Raises:
    BadInput: for other than four axes, and as `unpack`.
  """
  words = _check_layout('words', words)
  channels = types.check_integer('channels', channels, 1)
  _words.check_length('words', words, 2, channels)
  words = words.transpose(3, 0, 1, 2)
  return _words.signs_of(words, channels, 3, _words.check_dtype(dtype))


def conv_nhwc(
  x: types.Array,
  kernel: types.Array,
  *,
  strides: _convolution.Pair = (1, 1),
  padding: _convolution.Pads = ((0, 0), (0, 0)),
  pad_value: int = 0,
  chunk: int = 32,
  path: str = 'auto',
) -> types.Array:
  """Convolves the signs of images with the signs of a kernel, both unpacked.

  Args:
    x: [images, height, width, channels], as in `pack`.
    kernel: [kernel height, kernel width, channels, features], as in `pack`.
    strides: as in `conv`.
    padding: as in `conv`.
    pad_value: as in `conv`.
    chunk: as in `map_images`.
    path: as in `matmul`.

  Returns:
    int32 sums [images, height', width', features].

  Raises:
    BadInput: as `conv`.
  """
  x, kernel = jnp.asarray(x), jnp.asarray(kernel)
  _check_nhwc('x', x)
  if kernel.ndim != 4 or kernel.shape[2] != x.shape[3]:
    raise types.BadInput(
      f'kernel must have shape [height, width, {x.shape[3]}, features]; got '
      f'shape {kernel.shape} (groups are not supported).'
    )
  w = _words.pack_named('kernel', kernel, 2, None)
  conv = functools.partial(
    _convolution.conv,
    w=w,
    channels=x.shape[3],
    strides=strides,
    padding=padding,
    pad_value=pad_value,
    path=path,
  )
  return map_images(conv, _packed('x', x, None), chunk=chunk).transpose(
    3, 0, 1, 2
  )


def map_images(
  fn: Callable[[Any], Any], x: types.PyTree, *, chunk: int = 32
) -> types.PyTree:
  """Returns ``fn(x)``, computed for ``chunk`` images at a time.

  Args:
    fn: a function of each image by itself, such as a packed network. It is traced
      once. Arrays that it uses should be arguments of a jitted function around it.
    x: a pytree of arrays with the images along the last axis.
    chunk: images of a step. 16 to 64 keep a network's layers in the cache.

  Returns:
    The pytree that ``fn`` returns, with the images along the last axis of each leaf.

  Raises:
    BadInput: for a chunk below 1, or leaves without or with different images.
  """
  chunk = types.check_integer('chunk', chunk, 1)
  counts = {jnp.shape(leaf)[-1:] for leaf in jax.tree.leaves(x)}
  if len(counts) != 1 or counts == {()}:
    raise types.BadInput(
      'x must have the same number of images along the last axis of each leaf; '
      f'got {sorted(counts)}.'
    )
  ((count,),) = counts
  if export.is_symbolic_dim(count):  # Known when the program is compiled.
    few = jnp.asarray(count) <= chunk
    return lax.cond(few, fn, functools.partial(_chunks, fn, count, chunk), x)
  return fn(x) if count <= chunk else _chunks(fn, count, chunk, x)


def _chunks(fn, count, chunk, x):
  steps = (count + chunk - 1) // chunk

  def split(leaf):
    edges = [(0, 0, 0)] * (leaf.ndim - 1) + [(0, steps * chunk - count, 0)]
    leaf = lax.pad(leaf, jnp.zeros((), leaf.dtype), edges)
    leaf = leaf.reshape(*leaf.shape[:-1], steps, chunk)
    return jnp.moveaxis(leaf, -2, 0)

  def joined(leaf):
    leaf = jnp.moveaxis(leaf, 0, -2)
    leaf = leaf.reshape(*leaf.shape[:-2], steps * chunk)
    return lax.slice_in_dim(leaf, 0, count, axis=-1)

  x = jax.tree.map(lambda leaf: split(jnp.asarray(leaf)), x)
  return jax.tree.map(joined, lax.map(fn, x))


def max_pool(
  x: types.Array,
  window: _convolution.Pair,
  *,
  strides: _convolution.Pair | None = None,
  padding: _convolution.Pads = ((0, 0), (0, 0)),
) -> types.Array:
  """Returns the largest of the values ±1 in each window: an OR of words.

  Args:
    x: words [height, width, words, images].
    window: its height and width.
    strides: strides of rows and columns; None for those of the window.
    padding: as in `conv`; padded values are never the largest.

  Returns:
    Words [height', width', words, images].

  Raises:
    BadInput: for what are no packed images, a window larger than the padded image,
      padding that fills a window, or other values of the options.
  """
  x = _check_layout('x', x)
  window = _convolution.pair('window', window, 1)
  strides = window if strides is None else strides
  strides = _convolution.pair('strides', strides, 1)
  padding = _convolution.pads(padding)
  sizes = [
    (x.shape[i] + sum(padding[i]) - window[i]) // strides[i] + 1 for i in (0, 1)
  ]
  if any(max(padding[i]) >= window[i] for i in (0, 1)):
    raise types.BadInput(
      f'padding must be less than the window, or a window may hold nothing else; got '
      f'{padding} for {window}.'
    )
  if min(sizes) < 1:
    raise types.BadInput(
      f'window must not be larger than the padded image; got {window} for an '
      f'image {x.shape[:2]} with padding {padding}.'
    )
  return _max_pool(x, window, strides, padding)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _max_pool(x, window, strides, padding):
  x = _convolution.padded(x, padding, 0)
  sizes = [(x.shape[i] - window[i]) // strides[i] + 1 for i in (0, 1)]
  patches = (
    _convolution.patch(x, place, sizes, strides)
    for place in np.ndindex(*window)
  )
  return functools.reduce(lax.bitwise_or, patches)


def _packed(name, images, word):
  return _words.pack_named(name, images, 3, word).transpose(1, 2, 3, 0)


def _check_nhwc(name, value):
  if value.ndim != 4:
    raise types.BadInput(
      f'{name} must have shape [images, height, width, channels]; got shape '
      f'{value.shape}.'
    )


def _check_layout(name, value):
  value = _words.check_words(name, value)
  if value.ndim != 4:
    raise types.BadInput(
      f'{name} must have shape [height, width, words, images]; got shape '
      f'{value.shape}.'
    )
  return value
