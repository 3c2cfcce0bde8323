"""Exact sums of products of ±1 values, 16 or 32 of them in one word.

A product of two values ±1 is +1 where their bits agree, so a sum of n products is
``n - 2 * popcount(x ^ w)``: one instruction for 32 products on a CPU, in plain XLA. Sums
are int32 and equal to those of any float product, whose integers are exact as well.
Accelerators multiply 8-bit integers instead, with the same sums.

Signs are packed (`pack`, `pack_images`) and multiplied (`matmul`, `conv`), and the sums
become packed signs again (`threshold`), for the next layer. Call both in one ``jax.jit``:
XLA fuses them, and the sums are never stored. `thresholds` turns whatever stands between
two layers, such as a BatchNorm and a sign, into one integer for each channel.
"""

from bitjax.packed._convolution import conv
from bitjax.packed._images import conv_nhwc
from bitjax.packed._images import map_images
from bitjax.packed._images import max_pool
from bitjax.packed._images import pack_images
from bitjax.packed._images import unpack_images
from bitjax.packed._paths import PATHS
from bitjax.packed._product import matmul
from bitjax.packed._product import matmul_bytes
from bitjax.packed._thresholds import Thresholds
from bitjax.packed._thresholds import threshold
from bitjax.packed._thresholds import thresholds
from bitjax.packed._words import pack
from bitjax.packed._words import unpack

__all__ = [
  'PATHS',
  'Thresholds',
  'conv',
  'conv_nhwc',
  'map_images',
  'matmul',
  'matmul_bytes',
  'max_pool',
  'pack',
  'pack_images',
  'threshold',
  'thresholds',
  'unpack',
  'unpack_images',
]
