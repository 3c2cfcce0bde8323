"""A quantized convolution that can replace ``flax.linen.Conv``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import functools
import math
import operator
from typing import Any, TypeAlias

from flax import linen as nn
import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import scans
from bitjax import sums
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _convolution
from bitjax.nn import _silence

__all__ = ['PADDINGS', 'Product', 'QuantConv']

PADDINGS = ('SAME', 'SAME_LOWER', 'VALID', 'CIRCULAR', 'REFLECT', 'CAUSAL')

_Sizes: TypeAlias = int | Sequence[int]
_Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]


class QuantConv(nn.Module):
  r"""A convolution that quantizes its kernel and, optionally, its inputs.

  .. math:: z = s \, (q_x(x) * q(W)) + b

  Sums are accumulated before they are scaled. The layer can replace
  ``flax.linen.Conv`` as `QuantDense` can replace ``Dense``. Inputs are padded after
  they are quantized, with ``pad_values``: zeros even if they are binary, unless it is
  +1 or -1 (``'CIRCULAR'`` and ``'REFLECT'`` pad with inputs).

  Attributes:
    features: number of output channels.
    kernel_size: size in each spatial dimension; an integer for one dimension.
    strides: one integer for all dimensions, or one for each; None for 1.
    padding: one of ``'SAME'``, ``'SAME_LOWER'`` (where it cannot be equal on both
      sides, more at the beginning), ``'VALID'``, ``'CIRCULAR'``, ``'REFLECT'``,
      ``'CAUSAL'`` (one dimension), in capitals or not, or an amount: an integer, or
      an integer or a pair (low, high) for each dimension.
    input_dilation: dilation of the inputs, as ``strides``.
    kernel_dilation: dilation of the kernel, as ``strides``.
    feature_group_count: number of groups of channels; for a depthwise convolution,
      the number of input channels.
    kernel_quantizer: quantizer of the kernel, learned or not, whose channels are
      axis -1; None for none.
    input_quantizer: quantizer of the inputs, learned or not; None for none.
    scaling: the scale s, as in `QuantDense`; fan_in is the number of weights of an
      output channel.
    use_bias: whether to add b.
    dtype: dtype of what is multiplied and of the outputs, as in `QuantDense`.
    param_dtype: dtype of the parameters.
    precision: precision of the convolution, as in ``jax.lax``.
    kernel_init: initialiser of the latent kernel.
    bias_init: initialiser of the bias.
    pad_values: what inputs are padded with, as in larq; 1 or -1 keeps binary inputs
      binary.
  """

  features: int
  kernel_size: _Sizes
  strides: _Sizes | None = 1
  padding: _Padding = 'SAME'
  input_dilation: _Sizes | None = 1
  kernel_dilation: _Sizes | None = 1
  feature_group_count: int = 1
  kernel_quantizer: _binding.AnyQuantizer = None
  input_quantizer: _binding.AnyQuantizer = None
  scaling: str | quantizers.Scaling = 'none'
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = 'highest'
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  bias_init: nn.initializers.Initializer = nn.initializers.zeros
  pad_values: float = 0.0

  def __post_init__(self):
    _binding.check_fields(self)
    super().__post_init__()

  def stage(
    self, in_features: int, *, progress: types.Scalar = 1.0
  ) -> scans.Conv:
    """Returns what follows the input quantizer as a `scans.Conv`.

    Args:
      in_features: number of input channels.
      progress: progress of training, in [0, 1], for the quantizer.
    """
    _, layer = self._bind(in_features, None, progress)
    _silence.check(self, layer)
    return scans.Conv(layer, self._product())

  def __call__(
    self, x: types.Array, *, progress: types.Scalar = 1.0
  ) -> types.Array:
    """Maps [..., *spatial, in_features] to [..., *spatial', features]."""
    x_q, layer, product = self.parts(x, progress=progress)
    z = _binding.as_dtype(scans.Conv(layer, product)(x_q), self.dtype)
    _silence.check(self, layer, x, x_q, z)
    return z

  def parts(
    self, x: types.Array, *, progress: types.Scalar = 1.0
  ) -> tuple[types.Array, scans.Dense, Product]:
    """Returns the quantized inputs, the kernel with its scales, and the product."""
    return (*self._bind(x.shape[-1], x, progress), self._product())

  @nn.compact
  def _bind(self, in_features, x, progress):
    size = self._product().kernel_size
    groups = self.feature_group_count
    if in_features % groups or self.features % groups:
      raise types.BadInput(
        'feature_group_count must divide the numbers of channels, '
        f'{in_features} and {self.features}; got {groups}.'
      )
    shape = (*size, in_features // groups, self.features)
    return _binding.bind_layer(self, shape, x, 1.0, progress)

  def _product(self):
    size: Any = self.kernel_size
    size = size if isinstance(size, (tuple, list)) else (size,)
    size = tuple(map(operator.index, size))
    rank = len(size)

    def spread(name):
      value = getattr(self, name)
      value = 1 if value is None else value
      value = value if isinstance(value, (tuple, list)) else (value,) * rank
      value = tuple(map(operator.index, value))
      if len(value) != rank:
        raise types.BadInput(
          f'{name} must be an integer or {rank} of them; got {value}.'
        )
      return value

    product = Product(
      size,
      spread('strides'),
      _padding(self.padding, rank),
      spread('input_dilation'),
      spread('kernel_dilation'),
      self.feature_group_count,
      sums.Arithmetic(self.precision, self.dtype),
      float(self.pad_values),
    )
    _check_padding(product)
    return product


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Product:
  """A convolution ``(inputs, weights) -> z``: a static callable without arrays.

  If it is ``plain``, XLA's own convolution is used (see `plain_convolutions`).
  """

  kernel_size: tuple[int, ...]
  strides: tuple[int, ...]
  padding: str | tuple[tuple[int, int], ...]
  input_dilation: tuple[int, ...]
  kernel_dilation: tuple[int, ...]
  groups: int
  arithmetic: sums.Arithmetic
  pad_value: float = 0.0
  plain: bool = False

  def __call__(self, x: types.Array, kernel: types.Array) -> types.Array:
    """Maps [..., *spatial, in] to [..., *spatial', out]."""
    rank = len(self.kernel_size) + 1
    if x.ndim < rank:
      raise types.BadInput(
        f'x must have {rank} axes or more, [..., *spatial, channels]; got shape '
        f'{x.shape}.'
      )
    leading, inner = x.shape[: x.ndim - rank], x.shape[x.ndim - rank :]
    z = self._convolve(x.reshape(math.prod(leading), *inner), kernel)
    return z.reshape(*leading, *z.shape[1:])

  def patches(self, x: types.Array) -> types.Array:
    """Maps [examples, *spatial, in] to [examples, *spatial', places, in].

    Places are those of the kernel, flattened; ``x`` is padded, and not rounded.
    """
    size, count = self.kernel_size, math.prod(self.kernel_size)
    x, padding = self._padded(x)
    spatial = tuple(range(len(size)))
    found = jax.lax.conv_general_dilated_patches(
      x.astype(types.promoted(x)),
      size,
      self.strides,
      padding,
      lhs_dilation=self.input_dilation,
      rhs_dilation=self.kernel_dilation,
      dimension_numbers=self._dimensions(spatial),
      precision=jax.lax.Precision.HIGHEST,
    )
    found = found.reshape(*found.shape[:-1], x.shape[-1], count)
    return jnp.swapaxes(found, -1, -2)

  def window(self, spatial: tuple[int, ...]) -> scans.Window | None:
    """Returns the window that slides over images of these sizes, if it is plain."""
    dilations = (*self.input_dilation, *self.kernel_dilation)
    if (
      len(self.kernel_size) != 2
      or self.groups > 1
      or set(dilations) != {1}
      or self.padding in ('CIRCULAR', 'REFLECT')
    ):
      return None
    pads = self.padding
    if isinstance(pads, str):
      pads = jax.lax.padtype_to_pads(
        spatial, self.kernel_size, self.strides, pads
      )
    rows, columns = ((int(low), int(high)) for low, high in pads)
    height, width = self.strides
    return scans.Window((height, width), (rows, columns), self.pad_value)

  def _convolve(self, x, kernel):
    x, padding = self._padded(x)
    if self.arithmetic.dtype is None:
      dtype = types.promoted(x, kernel)
      x, kernel = x.astype(dtype), kernel.astype(dtype)
    multiply = functools.partial(self._multiply, padding)
    return self.arithmetic.product(multiply, x, kernel)

  def _multiply(self, padding, x, kernel, total):
    precision = self.arithmetic.precision
    dilations = (*self.input_dilation, *self.kernel_dilation)
    plain = self.plain or self.groups > 1 or set(dilations) != {1}
    # Sums in another dtype are never differentiated, and are left to XLA.
    own = total is None and not plain and _convolution.applies(x, kernel)
    if own:
      return _convolution.convolve(x, kernel, self.strides, padding, precision)
    spatial = tuple(range(len(self.kernel_size)))
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      self.strides,
      padding,
      lhs_dilation=self.input_dilation,
      rhs_dilation=self.kernel_dilation,
      dimension_numbers=self._dimensions(spatial),
      feature_group_count=self.groups,
      precision=precision,
      preferred_element_type=total,
    )

  @staticmethod
  def _dimensions(spatial):
    rank = len(spatial) + 2
    outer = (0, rank - 1, *(1 + a for a in spatial))
    return jax.lax.ConvDimensionNumbers(
      outer, (rank - 1, rank - 2, *spatial), outer
    )

  def _padded(self, x):
    """Returns ``x``, padded if XLA's convolution cannot do it, and what is left to pad."""
    given = self.padding
    reach = [
      (k - 1) * d
      for k, d in zip(self.kernel_size, self.kernel_dilation, strict=True)
    ]
    if given in ('CIRCULAR', 'REFLECT'):
      around = [(0, 0), *((r // 2, (r + 1) // 2) for r in reach), (0, 0)]
      mode = 'wrap' if given == 'CIRCULAR' else 'reflect'
      return jnp.pad(x, around, mode=mode), 'VALID'
    if given == 'CAUSAL':
      given = tuple((r, 0) for r in reach)
    if not self.pad_value:
      return x, given
    if isinstance(given, str):
      window = [r + 1 for r in reach]
      given = jax.lax.padtype_to_pads(
        x.shape[1:-1], window, self.strides, given
      )
    value = jnp.asarray(self.pad_value, x.dtype)
    around = [(0, 0, 0), *((*pair, 0) for pair in given), (0, 0, 0)]
    return jax.lax.pad(x, value, around), 'VALID'


def _padding(padding, rank):
  """Returns a name in capitals, or a pair for each dimension."""
  wanted = types.BadInput(
    f'padding must be one of {", ".join(PADDINGS)}, an integer, or an integer '
    f'or a pair for each of {rank} dimensions; got {padding!r}.'
  )
  if isinstance(padding, str):
    if (name := padding.upper()) not in PADDINGS:
      raise wanted
    if name == 'CAUSAL' and rank != 1:
      raise types.BadInput(
        f"padding must not be 'CAUSAL' in {rank} dimensions; it is for one."
      )
    return name
  try:
    sizes = (
      tuple(padding) if isinstance(padding, Iterable) else (padding,) * rank
    )
    pairs = tuple(
      tuple(map(operator.index, p if isinstance(p, Iterable) else (p, p)))
      for p in sizes
    )
  except TypeError:
    raise wanted from None
  if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
    raise wanted
  return pairs


def _check_padding(product):
  named, dilated = product.padding, set(product.input_dilation) != {1}
  if dilated and isinstance(named, str):
    raise types.BadInput(
      'padding must be an amount where inputs are dilated; got '
      f'{named!r} with input_dilation {product.input_dilation}.'
    )
  if product.pad_value and (dilated or named in ('CIRCULAR', 'REFLECT')):
    raise types.BadInput(
      "pad_values must be 0 where inputs are dilated, and with 'CIRCULAR' and "
      f"'REFLECT', which pad with inputs; got {product.pad_value}."
    )
