"""Kernels as ONNX graphs hold them: features in front, and integer codes times a step."""

from __future__ import annotations

import numpy as np

__all__ = ['bits', 'first', 'grid']


def bits(codes: np.ndarray) -> tuple[int, int]:
  """Returns the bits of signed codes, and 1 if they lie in [-1, 1], else 0."""
  low, high, found = codes.min(), codes.max(), 2
  while not -(1 << found - 1) <= low <= high < 1 << found - 1:
    found += 1
  return found, int(low >= -1 and high <= 1)


def first(kernel: np.ndarray) -> np.ndarray:
  """Returns the kernel of a convolution with its features in front; others as they are."""
  return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel


def grid(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns integer codes of at most 8 bits and steps [features]; None if there are none."""
  columns = np.abs(weights.reshape(-1, weights.shape[-1]))
  step = np.where(columns > 0, columns, np.inf).min(0)
  step = np.where(np.isfinite(step), step, 1).astype(np.float32)
  codes = np.rint(weights / step)
  even = (codes.astype(np.float32) * step == weights).all()
  return (codes, step) if even and np.abs(codes).max() < 128 else None
