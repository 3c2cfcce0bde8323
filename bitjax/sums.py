r"""How products are summed: with which precision, in which dtype, and whether exactly.

A layer computes :math:`z_{bj} = \sum_i x_{bi} w_{ij}`. Accelerators have fast units for
such sums that round x and w first, to 11 binary digits (TF32) or 8 (bfloat16), multiply
exactly, and add in float32. `Arithmetic` says what may be rounded: the ``precision`` of
a product of float32 numbers, which JAX leaves to the device, and the ``dtype`` of what
is multiplied. Where that has 16 bits, products are accumulated and returned in float32,
and only the gradients, which are sums of the same kind, are rounded to 16 bits, once
each. Only reverse-mode derivatives are defined there. (Without a dtype, arrays of 16
bits have sums of 16 bits, as in JAX.)

Signs (+1 and -1) and bytes (0 to 255) have 8 binary digits or fewer. They are the same
in bfloat16 and in TF32, so sums of bytes by signs, and of signs by signs, are exact at
every option while they stay below 2^24, if the device really accumulates in float32.
`check` computes some such sums on the device, with those of NumPy to compare. It is a
test, no proof: XLA chooses an algorithm for each shape.

Where these operands are rounded depends on the device for ``precision`` (a CPU rounds
nothing) and not for ``dtype``, which is a part of the function that a network computes.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, TypeAlias

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from bitjax import types

__all__ = ['DTYPES', 'PRECISIONS', 'Arithmetic', 'check', 'unrounded']

PRECISIONS = ('default', 'high', 'highest')
DTYPES = ('float32', 'bfloat16')
_SIGNS = np.array([-1, 1], np.float32)

# A product of two arrays, whose sums have the given dtype; None for that of the arrays.
Multiply: TypeAlias = Callable[[types.Array, types.Array, Any], types.Array]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Arithmetic:
  """How products are computed: what may be rounded before it is multiplied.

  Attributes:
    precision: ``'default'`` (TF32 on recent GPUs, bfloat16 on TPUs), ``'high'`` (TF32,
      or three passes of bfloat16 on TPUs) or ``'highest'`` (float32); any other that
      ``jax.lax`` takes, or None for what JAX is configured to.
    dtype: dtype to which both arrays are rounded before they are multiplied, whose
      sums are float32 at least; None for that of the arrays and of their sums.

  Raises:
    BadInput: for an unknown precision or a dtype that is not floating.
  """

  precision: Any = 'highest'
  dtype: Any = None

  def __post_init__(self):
    _check_precision(self.precision)
    if self.dtype is not None:
      object.__setattr__(self, 'dtype', _dtype(self.dtype))

  @property
  def rounds(self) -> bool:
    """Whether the dtype has fewer digits than float32."""
    wanted = jnp.finfo(jnp.float32).nmant
    return self.dtype is not None and jnp.finfo(self.dtype).nmant < wanted

  @property
  def total(self) -> Any:
    """The dtype of the sums; None for that of the arrays."""
    return jnp.float32 if self.rounds else self.dtype

  @property
  def roundoff(self) -> float:
    """A bound on how far a device may round what it multiplies, relative to its size.

    It is zero in ``'highest'``, and for a dtype of 16 bits, in which nothing is left to
    round. Signs and bytes are not rounded whatever it is (`unrounded`).
    """
    pair = (
      self.precision if isinstance(self.precision, tuple) else (self.precision,)
    )
    kinds = {lax.Precision(p) for p in pair if _is_lax_precision(p)}
    if self.rounds or kinds == {lax.Precision.HIGHEST}:
      return 0.0
    return 2.0**-10 if kinds == {lax.Precision.HIGH} else 2.0**-7

  def rounded(self, x: types.Array) -> types.Array:
    """Returns ``x`` with the values that are multiplied, in a dtype of its own."""
    if not self.rounds:
      return x
    if not jnp.issubdtype(x.dtype, jnp.floating):
      x = types.widened(x)
    # XLA would leave out a conversion to 16 bits and back.
    info = jnp.finfo(self.dtype)
    return lax.reduce_precision(x, info.nexp, info.nmant)

  def matmul(self, x: types.Array, weights: types.Array) -> types.Array:
    """Returns the matrix product of [..., n] and [n, m]."""
    return self.product(_Matmul(self.precision), x, weights)

  def product(
    self, multiply: Multiply, x: types.Array, weights: types.Array
  ) -> types.Array:
    """Returns a product of two arrays, such as a convolution, in this arithmetic.

    Args:
      multiply: ``(x, weights, dtype) -> z``, linear in both arrays, which names this
        ``precision``; ``dtype`` is its ``preferred_element_type``, or None.
      x: inputs.
      weights: weights.
    """
    if self.dtype is not None:
      x, weights = (
        jnp.asarray(self.rounded(a), self.dtype) for a in (x, weights)
      )
    if not self.rounds:
      return multiply(x, weights, None)
    return _accumulated(multiply, self.total, x, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _accumulated(multiply, total, x, weights):
  """Returns a product of 16-bit arrays in a wider dtype; its gradients have 16 bits.

  JAX's own gradient would multiply wide numbers, which takes several times as long.
  """
  return multiply(x, weights, total)


def _forward(multiply, total, x, weights):
  return _accumulated(multiply, total, x, weights), (x, weights)


def _backward(multiply, total, residuals, z_bar):
  del total
  _, vjp = jax.vjp(lambda x, w: multiply(x, w, None), *residuals)
  return vjp(z_bar.astype(residuals[0].dtype))


_accumulated.defvjp(_forward, _backward)


@dataclasses.dataclass(frozen=True)
class _Matmul:
  precision: Any

  def __call__(self, x, weights, dtype):
    return jnp.matmul(
      x, weights, precision=self.precision, preferred_element_type=dtype
    )


@dataclasses.dataclass(frozen=True)
class _Convolve:
  """A convolution of images, padded by 1, with a kernel of 3 x 3."""

  precision: Any

  def __call__(self, x, weights, dtype):
    return lax.conv_general_dilated(
      x,
      weights,
      (1, 1),
      ((1, 1), (1, 1)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=self.precision,
      preferred_element_type=dtype,
    )


def unrounded(*arrays: types.Array) -> types.Array:
  """Returns whether bfloat16, and so every precision, holds all entries exactly.

  Args:
    *arrays: floating arrays, at least one.

  Raises:
    BadInput: for other arrays.
  """
  given = [jnp.asarray(x) for x in arrays]
  for x in given:
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise types.BadInput(
        f'arrays must be floating; got {types.shown(x)}: convert it first.'
      )
  info = jnp.finfo(jnp.bfloat16)
  same = [
    jnp.all(x == lax.reduce_precision(x, info.nexp, info.nmant)) for x in given
  ]
  return functools.reduce(jnp.logical_and, same)


def check(
  precision: Any = 'highest',
  dtype: Any = 'float32',
  *,
  convolutions: bool = False,
) -> None:
  """Refuses an arithmetic in which this device does not sum bytes by signs exactly.

  It computes some thousand sums on the default device, up to 255 * 2^16 in magnitude,
  once in a process for each arithmetic and kind of device. Studies that claim exact
  sums call it before they compute anything.

  Args:
    precision: as for `Arithmetic`.
    dtype: as for `Arithmetic`.
    convolutions: whether to check convolutions too.

  Raises:
    BadInput: if a sum is wrong; or from `Arithmetic`.
  """
  arithmetic = Arithmetic(precision, dtype)
  kind = jax.devices()[0].device_kind
  kinds = ('product', 'convolution')[: 1 + convolutions]
  for name in kinds:
    if wrong := _wrong(arithmetic, name, kind):
      raise types.BadInput(
        f'precision={precision} with dtype={arithmetic.dtype} is not '
        f'exact on this device ({kind}): {wrong} sums of a {name} of bytes or signs '
        "by signs are wrong; use precision='highest' and dtype='float32', or another "
        'device.'
      )


@functools.cache
def _wrong(arithmetic, name, kind):
  """Returns how many sums of bytes or signs by signs are wrong on the default device."""
  del kind  # Of the device, for which the answer is kept.
  pairs, multiply, exact = {
    'product': (_matrices, _Matmul, np.matmul),
    'convolution': (_images, _Convolve, _convolved),
  }[name]

  @jax.jit
  def compute(pairs):
    product = functools.partial(
      arithmetic.product, multiply(arithmetic.precision)
    )
    return [product(jnp.float32(x), jnp.float32(w)) for x, w in pairs]

  given = list(pairs())
  with jax.ensure_compile_time_eval():  # A caller may be traced.
    found = compute(given)
  wrong = 0
  for (x, w), got in zip(given, found, strict=True):
    wanted = exact(x.astype(np.float64), w.astype(np.float64))
    wrong += np.count_nonzero(np.asarray(got) != wanted)
  return wrong


def _matrices():
  """Yields pairs of matrices, in whose first sums all terms are largest and equal."""
  rng = np.random.default_rng(0)
  for rows, size in ((32, 1024), (2, 2**16)):
    signs = rng.choice(_SIGNS, (size, rows))
    signs[:, 0] = 1
    x = rng.integers(0, 256, (rows, size)).astype(np.float32)
    x[0] = 255
    yield x, signs
    yield signs.T, signs


def _images():
  rng = np.random.default_rng(0)
  signs = rng.choice(_SIGNS, (3, 3, 64, 32))
  signs[..., 0] = 1
  x = rng.integers(0, 256, (2, 8, 8, 64)).astype(np.float32)
  x[0] = 255
  yield x, signs
  yield rng.choice(_SIGNS, x.shape), signs


def _convolved(x, weights):
  """Returns what `_Convolve` does."""
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  height, width = x.shape[1:3]
  return sum(
    padded[:, i : i + height, j : j + width] @ weights[i, j]
    for i, j in np.ndindex(3, 3)
  )


def _check_precision(precision):
  pair = isinstance(precision, tuple) and len(precision) == 2
  if all(map(_is_precision, precision if pair else (precision,))):
    return
  raise types.BadInput(
    f'precision must be one of {", ".join(PRECISIONS)}, another that jax.lax takes, '
    f'or None; got {types.shown(precision)}.'
  )


def _is_precision(value):
  if value is None or _is_lax_precision(value):
    return True
  kinds = (lax.DotAlgorithm, lax.DotAlgorithmPreset)
  named = isinstance(value, str) and value in lax.DotAlgorithmPreset.__members__
  return named or isinstance(value, kinds)


def _is_lax_precision(value):
  if not isinstance(value, (str, lax.Precision)):
    return False
  try:
    lax.Precision(value)
  except ValueError:
    return False
  return True


def _dtype(dtype):
  try:
    found = jnp.dtype(dtype)
  except TypeError:
    found = None
  if found is None or not jnp.issubdtype(found, jnp.floating):
    raise types.BadInput(
      'dtype must be a floating dtype, such as float32 or bfloat16, or None; got '
      f'{types.shown(dtype)}.'
    )
  return found
