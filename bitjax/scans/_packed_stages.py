r"""Runs stages with images innermost, and with packed products where they are binary.

A sign activation, directly in front of a convolution whose kernel is binary, leaves
sums of products of ±1 values, which `bitjax.packed` computes exactly in integers: a
`Rest` packs the signs and the kernel, and applies the layer's own scales to the sums.
All other stages compute what they always do. Arrays have the layout of packed images,
[*spatial, channels, images].

A compiler would fuse layers, and compute sums again for each of the many places where
they are used. So what several places need is computed in a *pass* of its own: a branch
of which only the program knows that it is always taken.

Behind a layer of which one channel has changed, entrywise stages change one channel,
and sums of the next convolution change by the products with that channel only:

.. math::
  s'_p = s_p + \sum_k (x'_{p + k, c} - x_{p + k, c}) \, w_{k c}.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import packed
from bitjax import quantizers
from bitjax import types
from bitjax.scans import _convolution
from bitjax.scans import _innermost
from bitjax.scans import _stages

__all__ = ['Rest', 'applies', 'innermost', 'outermost']

_ENTRYWISE = (
  _stages.Affine | _stages.Activation | _stages.Pointwise | _stages.Add
)
_MOST_SMALL = 1 << 14  # Sums below this, and their changes, fit in 16 bits.


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
  pairs = zip(stages, stages[1:], strict=False)
  return any(_is_binary(*pair) for pair in pairs) or any(
    map(_packs, branches)
  )


def _is_binary(activation, conv):
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


class _Value:
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
class _Plain:
  """A stage that computes what it always does."""

  stage: Any
  entrywise: bool

  def __call__(self, x: _Value, always: types.Array) -> _Value:
    if not self.entrywise:
      x.made(always)
    return _Value(lambda: self.of(x()))

  def of(self, x: types.Array) -> types.Array:
    """Applies the stage to an array."""
    if isinstance(self.stage, _stages.Examplewise):
      return _innermost.mapped(self.stage.fn, x)
    return innermost(self.stage(outermost(x)))


@dataclasses.dataclass(frozen=True)
class _Plus:
  """An `Add` whose value has images innermost."""

  value: types.Array

  def __call__(self, x: _Value, always: types.Array) -> _Value:
    del always
    return _Value(lambda: self.of(x()))

  def of(self, x: types.Array) -> types.Array:
    """Adds the value to an array."""
    return x + self.value


@dataclasses.dataclass(frozen=True)
class _Branches:
  """A `Residual`."""

  body: tuple[Any, ...]
  shortcut: tuple[Any, ...]

  def __call__(self, x: _Value, always: types.Array) -> _Value:
    x.made(always)
    body, shortcut = _run(self.body, x, always), _run(self.shortcut, x, always)
    return _Value(lambda: body() + shortcut())


@dataclasses.dataclass(frozen=True)
class _Binary:
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

  def __call__(self, x: _Value, always: types.Array) -> _Value:
    x.made(always)
    words = _Value(lambda: _signs(x()))
    words.made(always)
    return _Value(lambda: self.rescale(self.sums(words())))

  def sums(self, words: types.Array) -> types.Array:
    """Returns the sums of packed signs, int32 [height', width', features, images]."""
    return self.convolve(words, -1) + self.padding

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
    edges = [(*pair, 0) for pair in (*window.padding, (0, 0))]
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


def _signs(x):
  """Returns the packed signs of floats [height, width, channels, images]."""
  if x.shape[2] != 16:
    return packed.pack(x, 2)
  # One pass over floats; `packed.pack` takes two for 16 channels, which is faster
  # behind integer sums only.
  powers = np.array([1 << i for i in range(16)], np.uint16)[:, None]
  zero = np.uint16(0)
  set_bits = jnp.where(x >= 0, powers[None, None], zero)
  return jax.lax.reduce(set_bits, zero, jax.lax.bitwise_or, (2,))[:, :, None]


def _prepared(stages, x):
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
    if index < len(stages) and _is_binary(stage, stages[index]):
      x = jax.eval_shape(stage, x)
      stage = stages[index]
      index += 1
      found.append(_binary(stage, x))
    elif isinstance(stage, _stages.Residual):
      body, _ = _prepared(stage.body, x)
      shortcut, _ = _prepared(stage.shortcut, x)
      found.append(_Branches(body, shortcut))
    elif isinstance(stage, _stages.Add):
      found.append(_Plus(innermost(stage.value)))
    else:
      found.append(_Plain(_held(stage), isinstance(stage, _ENTRYWISE)))
    x = jax.eval_shape(stage, x)
  return tuple(found), x


def _binary(conv, x):
  """Returns a binary convolution, for signs like ``x``."""
  window = _window(conv, x.shape[1:3])
  layer = _held(conv.layer, quantized=False)
  sums = jax.eval_shape(lambda c, x: c.product(x, c.layer.quantized), conv, x)
  words = packed.pack(layer.kernel, 2)
  found = _Binary(layer, window, sums.dtype, words, jnp.zeros((), jnp.int32))
  # Whatever the signs are, and once: it is a gather.
  signs = jnp.zeros((*x.shape[1:3], words.shape[2], 1), words.dtype)
  padded = found.convolve(signs, int(window.pad_value))
  return dataclasses.replace(
    found, padding=padded - found.convolve(signs, -1)
  )


def _held(stage, quantized=True):
  """Returns a layer whose scale, and quantized weights, are computed once.

  Unlike `_stages.Dense.freeze`, it keeps the order in which scales are applied.
  """
  if isinstance(stage, _stages.Conv):
    return dataclasses.replace(stage, layer=_held(stage.layer))
  if not isinstance(stage, _stages.Dense):
    return stage
  scaling = stage.scaling and _Held(stage.scaling(stage.kernel))
  if quantized:
    stage = dataclasses.replace(
      stage, kernel=stage.quantized, quantizer=None
    )
  return dataclasses.replace(stage, scaling=scaling)


@dataclasses.dataclass(frozen=True)
class _Held:
  """A scale that does not depend on the kernel any more."""

  value: types.Array

  def __call__(self, kernel: types.Array) -> types.Array:
    del kernel
    return self.value


def _run(stages, x, always):
  for stage in stages:
    x = stage(x, always)
  return x


@dataclasses.dataclass(frozen=True)
class _Base:
  """What is known of the unmoved network.

  Attributes:
    front: the layer's output behind the entrywise stages, [*spatial, channels, images].
    sums: sums of the convolution that follows, if it is binary and comes next; else
      None.
  """

  front: types.Array
  sums: types.Array | None


class Rest:
  """Stages behind a layer, ready to be run many times for the same images.

  Args:
    stages: the stages; what `_stages.Add` holds is for these images.
    z: shape and dtype of the layer's outputs, [images, *spatial, channels].
  """

  def __init__(self, stages: tuple[_stages.Stage, ...], z: jax.ShapeDtypeStruct):
    prepared, _ = _prepared(stages, z)
    count = 0
    while count < len(prepared) and (
      isinstance(prepared[count], _Plus)
      or (isinstance(prepared[count], _Plain) and prepared[count].entrywise)
    ):
      count += 1
    self._front, self._mean = prepared[:count], None
    if count < len(stages) and isinstance(stages[count], _stages.Mean):
      self._mean, count = stages[count], count + 1
    self._rest = prepared[count:]
    self._next, self._behind, self._shortcut = _first_binary(self._rest)

  def __call__(self, z: types.Array, always: types.Array) -> types.Array:
    """Returns the logits, [images, classes].

    Args:
      z: the layer's outputs, [*spatial, channels, images].
      always: a boolean that is true, which the compiler must not know.
    """
    mean = () if self._mean is None else (_Plain(self._mean, False),)
    stages = (*self._front, *mean, *self._rest)
    return outermost(_run(stages, _Value(lambda: z), always)())

  def base(self, z: types.Array) -> _Base:
    """Returns what `moved` needs of the unmoved outputs ``z``."""
    front = self._of_front(z)
    if self._mean is not None:
      front = innermost(self._mean(outermost(front)))
    if self._next is None:
      return _Base(front, None)
    sums = self._next.sums(_signs(front))
    small = math.prod(self._next.layer.kernel.shape[:3]) < _MOST_SMALL
    return _Base(front, sums.astype('int16' if small else 'int32'))

  def moved(
    self,
    base: _Base,
    unit: types.Array,
    whole: Callable[[], types.Array],
    always: types.Array,
  ) -> types.Array:
    """Returns the logits after a change of one channel of the layer's outputs.

    Args:
      base: that of the outputs before the change.
      unit: the number of the channel.
      whole: returns arrays of the shape of the outputs, of which this channel is what
        it becomes. The others are not computed.
      always: as for a call.
    """

    def channel():
      # Of a slice of entrywise functions, a compiler computes the slice only.
      found = _channel(self._of_front(whole()), unit)
      if self._mean is None:
        return found
      return innermost(self._mean(outermost(found[..., None, :])))[0]

    column = _Value(channel)
    column.made(always)

    def front():
      shape = base.front.shape
      number = jax.lax.broadcasted_iota(jnp.int32, shape, len(shape) - 2)
      return jnp.where(number == unit, column()[..., None, :], base.front)

    x = _Value(front)
    if self._next is None:
      return outermost(_run(self._rest, x, always)())
    assert base.sums is not None
    step, sums = self._next, base.sums
    before = _channel(base.front, unit)

    def turned():
      after, sign = column() >= 0, before >= 0
      zero, two = (jnp.asarray(n, sums.dtype) for n in (0, 2))
      return jnp.where(after == sign, zero, jnp.where(after, two, -two))

    turns = _Value(turned)
    turns.made(always)
    y = _Value(lambda: step.rescale(sums + step.change(turns(), unit)))
    if self._shortcut is not None:
      behind, shortcut = self._behind, self._shortcut
      if shortcut:
        x.made(always)
      body, other = _run(behind, y, always), _run(shortcut, x, always)
      y = _Value(lambda: body() + other())
      rest = self._rest[1:]
    else:
      rest = self._behind
    return outermost(_run(rest, y, always)())

  def _of_front(self, x):
    for stage in self._front:
      x = stage.of(x)
    return x


def _first_binary(stages):
  """Returns the binary convolution that comes next, and what follows it.

  That is what follows in its branch, and the shortcut, if it begins a branch; else all
  that follows, and None.
  """
  if stages and isinstance(stages[0], _Binary):
    return stages[0], stages[1:], None
  if stages and isinstance(stages[0], _Branches):
    body = stages[0].body
    if body and isinstance(body[0], _Binary):
      return body[0], body[1:], stages[0].shortcut
  return None, (), None


def _channel(x, unit):
  """Returns one channel of [..., channels, images]."""
  return jax.lax.dynamic_index_in_dim(x, unit, x.ndim - 2, keepdims=False)
