"""Defines what scans know of a convolution, whoever computes it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from bitjax import sums
from bitjax import types

__all__ = ['Convolution']


@runtime_checkable
class Convolution(Protocol):
  """A product of images and kernels, ``(inputs, weights) -> sums``.

  Attributes:
    groups: into how many groups channels are split.
    arithmetic: precision and dtype of the sums.
  """

  @property
  def groups(self) -> int:
    """Into how many groups channels are split."""
    ...

  @property
  def arithmetic(self) -> sums.Arithmetic:
    """Precision and dtype of the sums."""
    ...

  def __call__(self, x: types.Array, kernel: types.Array) -> types.Array:
    """Maps [examples, *spatial, in] and a kernel to [examples, *spatial', out]."""
    ...

  def patches(self, x: types.Array) -> types.Array:
    """Returns what each place of the kernel meets, [examples, *spatial', places, in].

    Places are those of the kernel's spatial axes, flattened; padding is included.
    """
    ...
