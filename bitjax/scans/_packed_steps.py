r"""The steps of a network with images innermost: packed where they are binary.

A sign activation, directly in front of a convolution whose kernel is binary, leaves
sums of products of ±1 values, which `bitjax.packed` computes exactly in integers: the
signs and the kernel are packed, and the layer's own scales are applied to the sums.
All other stages compute what they always do. Arrays have the layout of packed images,
[*spatial, channels, images].

A compiler would fuse layers, and compute sums again for each of the many places where
they are used. So what several places need is computed in a *pass* of its own: a branch
of which only the program knows that it is always taken.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import packed
from bitjax import quantizers
from bitjax import types
from bitjax.scans import _convolution
from bitjax.scans import _held
from bitjax.scans import _innermost
from bitjax.scans import _packed_distinct
from bitjax.scans import _stages

__all__ = [
  'Binary',
  'Branches',
  'Plain',
  'Plus',
  'Value',
  'applies',
  'innermost',
  'is_binary',
  'outermost',
  'prepared',
  'run',
  'signs',
]


def innermost(x: types.Array) -> types.Array:
  """Moves images from the first axis to the last."""
  return jnp.moveaxis(x, 0, -1)


def outermost(x: types.Array) -> types.Array:
  """Moves images from the last axis to the first."""
  return jnp.moveaxis(x, -1, 0)


def applies(stages: tuple[_stages.Stage, ...]) -> bool:
  """Returns whether stages are faster with images innermost; a static fact.

  They are unless all of their convolutions are of floats.
  """
  convolves = any(isinstance(s, _stages.Conv) for s in _stages.flat(stages))
  return not convolves or _packs(stages)


def _packs(stages):
  branches = (
    branch
    for stage in stages
    if isinstance(stage, _stages.Residual)
    for branch in (stage.body, stage.shortcut)
  )
  pairs = itertools.pairwise(stages)
  return any(is_binary(*pair) for pair in pairs) or any(map(_packs, branches))


def is_binary(activation: _stages.Stage, conv: _stages.Stage) -> bool:
  """Returns whether two stages are a sign and a convolution that are packed."""
  return (
    isinstance(activation, _stages.Activation)
    and activation.kind == 'sign'
    and quantizers.is_sign(activation.quantizer)
    and isinstance(conv, _stages.Conv)
    and quantizers.is_sign(conv.layer.quantizer)
    and conv.layer.kernel.ndim == 4
    and _window(conv, (8, 8)) is not None
  )


def _window(conv, spatial):
  """Returns the window of a convolution; None if it is of another kind."""
  find = getattr(conv.product, 'window', None)
  window = None if find is None else find(spatial)
  whole = window is not None and window.pad_value in (-1, 0, 1)
  return window if whole else None


class Value:
  """An array that is computed where it is used, or before in a pass of its own."""

  def __init__(self, make: Callable[[], types.Array]):
    self._make = make
    self._made: types.Array | None = None

  def __call__(self) -> types.Array:
    """Returns the array, for a use that is fused with what computes it."""
    return self._make() if self._made is None else self._made

  def made(self, always: types.Array) -> types.Array:
    """Returns the array after a pass of its own; ``always`` is true when it runs."""
    if self._made is None:
      shape = jax.eval_shape(self._make)
      self._made = jax.lax.cond(
        always, self._make, lambda: jnp.zeros(shape.shape, shape.dtype)
      )
    return self._made


@dataclasses.dataclass(frozen=True)
class Plain:
  """A stage that computes what it always does."""

  stage: Any
  entrywise: bool

  def __call__(self, x: Value, always: types.Array) -> Value:
    if not self.entrywise:
      x.made(always)
    return Value(lambda: self.of(x()))

  def of(self, x: types.Array) -> types.Array:
    """Applies the stage to an array."""
    if isinstance(self.stage, _stages.Examplewise):
      return _innermost.mapped(self.stage.fn, x)
    return innermost(self.stage(outermost(x)))


@dataclasses.dataclass(frozen=True)
class Plus:
  """An `Add` whose value has images innermost."""

  value: types.Array

  def __call__(self, x: Value, always: types.Array) -> Value:
    del always
    return Value(lambda: self.of(x()))

  def of(self, x: types.Array) -> types.Array:
    """Adds the value to an array."""
    return x + self.value


@dataclasses.dataclass(frozen=True)
class Branches:
  """A `Residual`."""

  body: tuple[Any, ...]
  shortcut: tuple[Any, ...]

  def __call__(self, x: Value, always: types.Array) -> Value:
    x.made(always)
    body, shortcut = run(self.body, x, always), run(self.shortcut, x, always)
    return Value(lambda: body() + shortcut())


@dataclasses.dataclass(frozen=True)
class Binary:
  """The sign of its inputs, and a binary convolution of the signs.

  Attributes:
    layer: the kernel and the scales.
    window: what slides over the images.
    dtype: dtype of the network's sums.
    words: the packed kernel.
    padding: what the padding adds to sums with a padding of -1, [height', width',
      features, 1].
  """

  layer: _stages.Dense
  window: _convolution.Window
  dtype: Any
  words: types.Array
  padding: types.Array

  def __call__(self, x: Value, always: types.Array) -> Value:
    x.made(always)
    words = Value(lambda: signs(x()))
    words.made(always)
    return Value(lambda: self.rescale(self.sums(words())))

  def sums(self, words: types.Array) -> types.Array:
    """Returns the sums of packed signs, int32 [height', width', features, images]."""
    return self.convolve(words, -1) + self.padding

  def shared(self, words: types.Array) -> Callable[[types.Array], types.Array]:
    """Returns the sums of images, as a function of their numbers, as `sums` does.

    Equal patches of all images are multiplied once.
    """
    found = _packed_distinct.convolve(
      words, self.words, self.layer.kernel.shape[2], self.window
    )

    def of(images):
      sums = found.table[found.number[..., images]].astype(jnp.int32)
      return jnp.swapaxes(sums, 2, 3) + self.padding

    return of

  def convolve(self, words: types.Array, pad_value: int) -> types.Array:
    """Returns the sums of packed signs, with another value of the padding."""
    return packed.conv(
      words,
      self.words,
      self.layer.kernel.shape[2],
      strides=self.window.strides,
      padding=self.window.padding,
      pad_value=pad_value,
    )

  def rescale(self, sums: types.Array) -> types.Array:
    """Applies the layer's scales to integer sums, as the network does."""
    sums = outermost(sums).astype(self.dtype)
    return innermost(self.layer.rescale(sums))

  def change(self, turned: types.Array, unit: types.Array) -> types.Array:
    """Returns how sums change with one channel.

    Args:
      turned: changes of the channel, integers [height, width, images].
      unit: its number.
    """
    window, kernel = self.window, self.layer.kernel
    weights = jax.lax.dynamic_index_in_dim(kernel, unit, 2, keepdims=False)
    ones = jnp.ones((), turned.dtype)
    weights = jnp.where(weights >= 0, ones, -ones)
    edges = [(low, high, 0) for low, high in (*window.padding, (0, 0))]
    padded = jax.lax.pad(turned, np.array(0, turned.dtype), edges)
    sizes = [
      (padded.shape[axis] - kernel.shape[axis]) // window.strides[axis] + 1
      for axis in (0, 1)
    ]
    total = jnp.zeros((), turned.dtype)
    for place in np.ndindex(*kernel.shape[:2]):
      ends = [
        start + (size - 1) * stride + 1
        for start, size, stride in zip(
          place, sizes, window.strides, strict=True
        )
      ]
      met = jax.lax.slice(
        padded, (*place, 0), (*ends, padded.shape[2]), (*window.strides, 1)
      )
      total = total + met[:, :, None] * weights[place][None, None, :, None]
    return total


def signs(x: types.Array) -> types.Array:
  """Returns the packed signs of floats [height, width, channels, images]."""
  if x.shape[2] != 16:
    return packed.pack(x, 2)
  # One pass over floats; `packed.pack` takes two for 16 channels, which is faster
  # behind integer sums only.
  powers = np.array([1 << i for i in range(16)], np.uint16)[:, None]
  zero = np.uint16(0)
  set_bits = jnp.where(x >= 0, powers[None, None], zero)
  return jax.lax.reduce(set_bits, zero, jax.lax.bitwise_or, (2,))[:, :, None]


def prepared(
  stages: tuple[_stages.Stage, ...], x: jax.ShapeDtypeStruct
) -> tuple[tuple[Any, ...], jax.ShapeDtypeStruct]:
  """Returns stages for images innermost, with what they hold laid out and packed.

  Args:
    stages: the stages.
    x: shape and dtype of their inputs, images outermost.

  Returns:
    The prepared stages, and the shape and dtype of their outputs.
  """
  found: list[Any] = []
  index = 0
  while index < len(stages):
    stage = stages[index]
    index += 1
    if index < len(stages) and is_binary(stage, stages[index]):
      x = jax.eval_shape(stage, x)
      stage = stages[index]
      index += 1
      found.append(_binary(stage, x))
    elif isinstance(stage, _stages.Residual):
      body, _ = prepared(stage.body, x)
      shortcut, _ = prepared(stage.shortcut, x)
      found.append(Branches(body, shortcut))
    elif isinstance(stage, _stages.Add):
      found.append(Plus(innermost(stage.value)))
    else:
      (held,) = _held.stages((stage,))
      found.append(Plain(held, _stages.is_entrywise(stage)))
    x = jax.eval_shape(stage, x)
  return tuple(found), x


def _binary(conv, x):
  """Returns a binary convolution, for signs like ``x``."""
  window = _window(conv, x.shape[1:3])
  assert window is not None
  layer = _held.scale(conv.layer)
  sums = jax.eval_shape(lambda c, x: c.product(x, c.layer.quantized), conv, x)
  words = packed.pack(layer.kernel, 2)
  found = Binary(layer, window, sums.dtype, words, jnp.zeros((), jnp.int32))
  # Whatever the signs are, and once: it is a gather.
  words_of = jnp.zeros((*x.shape[1:3], words.shape[2], 1), words.dtype)
  padded = found.convolve(words_of, int(window.pad_value))
  return dataclasses.replace(
    found, padding=padded - found.convolve(words_of, -1)
  )


def run(steps: tuple[Any, ...], x: Value, always: types.Array) -> Value:
  """Applies prepared steps, one after another; ``always`` as for `Value.made`."""
  for step in steps:
    x = step(x, always)
  return x
