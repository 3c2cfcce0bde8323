"""Defines what scans know of a convolution, whoever computes it."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from bitjax import sums
from bitjax import types

__all__ = ['Convolution', 'Window']


class Window(NamedTuple):
  """A plain convolution of images: without groups, and without dilations.

  Attributes:
    strides: strides of rows and columns.
    padding: how much is added before and after rows, and columns.
    pad_value: what is added.
  """

  strides: tuple[int, int]
  padding: tuple[tuple[int, int], tuple[int, int]]
  pad_value: float


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
    """Maps ``[examples, *spatial, in]`` and a kernel to ``[examples, *spatial, out]``."""
    ...

  def patches(self, x: types.Array) -> types.Array:
    """Returns what each place of the kernel meets, ``[examples, *spatial, places, in]``.

    Places are those of the kernel's spatial axes, flattened; padding is included.
    """
    ...

  def window(self, spatial: tuple[int, ...]) -> Window | None:
    """Returns the window that slides over images of these sizes.

    It is None for a convolution of another kind: of other than two spatial axes, with
    groups or dilations, or with padding that repeats inputs.
    """
    ...
