r"""Two-dimensional convolutions whose gradients are fast on the CPU as well.

.. math::
  y_p = \sum_k x_{s p + k} W_k, \qquad
  \bar W_k = \sum_{n, p} x_{n, s p + k}^\top \, \bar y_{n, p}, \qquad
  \bar x_i = \sum_{k \,:\, s p + k = i} \bar y_p W_k^\top

Here p are positions of the output, k positions of the kernel, s the strides, and n
the images. XLA computes all three well on accelerators. On the CPU it is slow in
three cases, which this module computes differently:

- *The gradient of the kernel.* XLA transposes all images, once for each convolution,
  in loops that it merges with whatever computes them. Here groups of images, small
  enough for the cache, are laid out as patches [n p, k] and multiplied, and the
  products are summed.
- *The gradient of the inputs of a strided convolution.* XLA multiplies by the zeros
  that strides leave. Here each of the s phases of :math:`i \bmod s` is a convolution
  without strides; all of them are computed as one convolution with s times the
  channels, and then interleaved.
- *Convolutions of 16 channels or fewer.* XLA does not give them to the library that
  it uses for more channels. Here two neighbouring columns are folded into one of
  twice the channels, at the cost of 4/3 as many products for a kernel of width 3.

The results equal XLA's up to rounding (and exactly for sums of integers below 2^24),
but a value that is not finite also reaches positions next to those that it reaches in
XLA's. The platform is chosen when the program is lowered, so exported programs stay
portable. Where nothing is differentiated, the convolution is XLA's own. Only
reverse-mode derivatives are defined, as for quantizers.
"""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = ['applies', 'convolve']

_Pair: TypeAlias = tuple[int, int]
_Pads: TypeAlias = tuple[_Pair, _Pair]

# The patches of a group of images, and the rows that they are made from, should stay
# in the caches of two cores. Half or twice this size takes as long.
_GROUP_BYTES = 5 * 2**19
_NARROW = 16  # Neighbouring columns are folded up to this number of channels.
_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def applies(x: types.Array, kernel: types.Array) -> bool:
  """Returns whether `convolve` can take these arrays.

  They must have four axes, one floating dtype, and no axis of size zero.
  """
  return (
    x.ndim == kernel.ndim == 4
    and x.dtype == kernel.dtype
    and jnp.issubdtype(x.dtype, jnp.floating)
    and 0 not in (*x.shape, *kernel.shape)
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolve(
  x: types.Array,
  kernel: types.Array,
  strides: _Pair,
  padding: str | _Pads,
  precision: Any = None,
) -> types.Array:
  """Convolves images, as ``jax.lax.conv_general_dilated`` does.

  Args:
    x: [examples, height, width, in_features].
    kernel: [kernel height, kernel width, in_features, features].
    strides: strides of rows and columns.
    padding: ``'SAME'``, ``'VALID'``, or a pair (low, high) each for rows and columns.
    precision: as in ``jax.lax``.

  Returns:
    [examples, height', width', features].
  """
  return lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=_LAYOUT, precision=precision
  )


def _forward(x, kernel, strides, padding, precision):
  z = lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: _correlate(
      x, kernel, strides, _pads(x, kernel, strides, padding), precision
    ),
    default=lambda x, kernel: convolve(x, kernel, strides, padding, precision),
  )
  return z, (x, kernel)


def _backward(strides, padding, precision, residuals, z_bar):
  x, kernel = residuals
  pads = _pads(x, kernel, strides, padding)

  def grouped(x, kernel, z_bar):
    x_bar = _input_gradient(kernel, z_bar, x.shape, strides, pads, precision)
    kernel_bar = _kernel_gradient(
      x, z_bar, kernel.shape, strides, pads, precision
    )
    return x_bar.astype(x.dtype), kernel_bar.astype(kernel.dtype)

  def by_xla(x, kernel, z_bar):
    def product(x, kernel):
      return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=_LAYOUT, precision=precision
      )

    return jax.vjp(product, x, kernel)[1](z_bar)

  return lax.platform_dependent(x, kernel, z_bar, cpu=grouped, default=by_xla)


convolve.defvjp(_forward, _backward)


def _pads(x, kernel, strides, padding):
  if not isinstance(padding, str):
    return padding
  sizes = x.shape[1:3], kernel.shape[:2]
  return tuple(lax.padtype_to_pads(*sizes, strides, padding))


def _correlate(x, kernel, strides, pads, precision):
  """Convolves images, with columns folded in pairs if there are few channels."""
  width = x.shape[2] + sum(pads[1]) - kernel.shape[1] + 1
  narrow = max(kernel.shape[2:]) <= _NARROW and kernel.shape[1] >= 3
  folds = narrow and strides[1] == 1 and width > 0 and width % 2 == 0
  if folds:
    (low, high), odd = pads[1], kernel.shape[1] % 2
    x = _pad(x, (0, 0), (low, high + 1 - odd))
    x = x.reshape(*x.shape[:2], x.shape[2] // 2, -1)
    right = [
      jnp.pad(kernel, ((0, 0), (p, 2 - odd - p), (0, 0), (0, 0)))
      for p in (0, 1)
    ]
    kernel = jnp.stack(right, 3)
    kernel = kernel.reshape(
      kernel.shape[0], kernel.shape[1] // 2, x.shape[3], -1
    )
    pads = (pads[0], (0, 0))
  z = lax.conv_general_dilated(
    x, kernel, strides, pads, dimension_numbers=_LAYOUT, precision=precision
  )
  return z.reshape(*z.shape[:2], width, -1) if folds else z


def _pad(x, rows, columns):
  zero = jnp.zeros((), x.dtype)
  return lax.pad(x, zero, ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))


def _input_gradient(kernel, z_bar, shape, strides, pads, precision):
  """Returns the gradient of x: all phases i mod s by one convolution, interleaved."""
  around = []
  for axis in (0, 1):
    size, stride = shape[1 + axis], strides[axis]
    taps, first = _taps(kernel.shape[2 * axis], stride, pads[axis][0])
    none = jnp.zeros_like(kernel, shape=_replaced(kernel.shape, 2 * axis, 1))
    kernel = jnp.take(
      jnp.concatenate([kernel, none], 2 * axis), taps, axis=2 * axis
    )
    count = -(-size // stride)
    reach = count + taps.shape[1] - 1 + first - z_bar.shape[1 + axis]
    around.append((-first, reach))
  kernel = jnp.transpose(kernel, (1, 3, 5, 0, 2, 4))
  kernel = kernel.reshape(*kernel.shape[:3], -1)
  x = _correlate(z_bar, kernel, (1, 1), tuple(around), precision)
  x = x.reshape(*x.shape[:3], *strides, shape[3])
  x = jnp.transpose(x, (0, 1, 3, 2, 4, 5))
  x = x.reshape(shape[0], x.shape[1] * strides[0], -1, shape[3])
  return x[:, : shape[1], : shape[2]]


def _taps(size, stride, low):
  """Returns ``(taps, first)``, the weights that connect outputs to each input phase.

  The gradient of input ``s q + a`` is that of outputs ``q + first + j`` times weight
  ``taps[a, j]``, summed over j. The index ``size`` stands for a weight of zero, for
  outputs that do not depend on phase a.
  """
  steps = {
    (a, (a + low - k) // stride): k
    for a in range(stride)
    for k in range(size)
    if (a + low - k) % stride == 0
  }
  reached = [step for _, step in steps]
  first = min(reached)
  taps = np.full((stride, max(reached) - first + 1), size)
  for (a, step), k in steps.items():
    taps[a, step - first] = k
  return taps, first


def _replaced(shape, axis, size):
  return (*shape[:axis], size, *shape[axis + 1 :])


def _group_size(examples, positions, window):
  """Returns the images per group: their patches fit the cache, groups are even.

  If no image is left over at half to twice that size, it is the nearest such one: empty
  images that fill the last group cost a copy of all, and their share of the products.
  """
  patches = 4 * math.prod(positions) * math.prod(window)
  most = max(1, _GROUP_BYTES // patches)
  even = -(-examples // -(-examples // most))
  sizes = range(-(-most // 2), min(2 * most, examples) + 1)
  whole = [size for size in sizes if examples % size == 0]
  if examples % even == 0 or not whole:
    return even
  return min(whole, key=lambda size: abs(math.log(size / most)))


def _kernel_gradient(x, z_bar, shape, strides, pads, precision):
  """Returns the gradient of the kernel, summed over groups that fit the cache."""
  height, width, in_features, features = shape
  examples, *positions, _ = z_bar.shape
  group = _group_size(examples, positions, shape[:3])
  steps = -(-examples // group)
  if rest := group * steps - examples:
    none = ((0, rest), (0, 0), (0, 0), (0, 0))
    x, z_bar = jnp.pad(x, none), jnp.pad(z_bar, none)
  # Each group takes images from all of the batch, which devices may hold in parts.
  x, z_bar = (a.reshape(group, steps, *a.shape[1:]) for a in (x, z_bar))
  dtype = types.promoted(x, jnp.float32)

  def windows(a, axis, size, stride):
    """Returns, for each kernel index, the slice of ``a`` that it multiplies."""
    last = (z_bar.shape[1 + axis] - 1) * stride + 1
    starts = range(size)
    return [lax.slice_in_dim(a, k, k + last, stride, axis=axis) for k in starts]

  def add(total, step):
    images, g = (
      lax.dynamic_index_in_dim(a, step, 1, keepdims=False) for a in (x, z_bar)
    )
    images = _pad(images, *pads)
    rows = jnp.stack(windows(images, 1, height, strides[0]), axis=3)
    patches = jnp.concatenate(windows(rows, 2, width, strides[1]), axis=3)
    product = lax.dot_general(
      g.reshape(-1, features),
      patches.reshape(g.size // features, -1),
      (((0,), (0,)), ((), ())),
      precision=precision,
      preferred_element_type=dtype,
    )
    return total + product, None

  zeros = jnp.zeros((features, math.prod(shape[:3])), dtype)
  total, _ = lax.scan(add, zeros, jnp.arange(steps))
  total = total.reshape(features, width, height, in_features)
  return jnp.transpose(total, (2, 1, 3, 0))
