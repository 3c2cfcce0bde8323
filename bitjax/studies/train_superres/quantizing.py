"""The quantizers of kernels and of inputs that published recipes name."""

from __future__ import annotations

from typing import Any, NamedTuple

from bitjax import quantizers

__all__ = ['INPUTS', 'KERNELS', 'Kernels']


class Kernels(NamedTuple):
  """A quantizer of kernels, and their scale."""

  quantizer: Any
  scaling: str = 'none'


def _sign(estimator: quantizers.Estimator) -> quantizers.Quantize:
  return quantizers.attach(quantizers.sign(), estimator)


def _largest(bits: int) -> quantizers.Quantize:
  """Returns a grid up to the largest magnitude of a kernel, as PAMS has it."""
  grid = quantizers.uniform(bits, narrow=True, step='unit')
  return quantizers.calibrated(
    quantizers.attach(grid, quantizers.identity()), quantizers.max_abs('tensor')
  )


KERNELS = {
  'none': Kernels(None),
  # E2FIF: signs alone, since a normalisation follows.
  'signs': Kernels(_sign(quantizers.identity())),
  # ReActNet, BBCU: signs times the mean magnitude of each filter.
  'scaled': Kernels(_sign(quantizers.window()), 'mean_abs'),
  'max4': Kernels(_largest(4)),
  'max8': Kernels(_largest(8)),
  'lsq2': Kernels(quantizers.lsq(2, narrow=True)),
  'lsq3': Kernels(quantizers.lsq(3, narrow=True)),
  'lsq4': Kernels(quantizers.lsq(4, narrow=True)),
}

INPUTS = {
  'none': None,
  'window': _sign(quantizers.window()),
  'bireal': _sign(quantizers.polynomial()),
  # A learned largest magnitude.
  'pams2': quantizers.lsq(2, narrow=True, batch_axes=1),
  'pams4': quantizers.lsq(4, narrow=True, batch_axes=1),
  'pams8': quantizers.lsq(8, narrow=True, batch_axes=1),
  # Both ends of the range learned.
  'ddtb2': quantizers.lsq(2, offset=True, batch_axes=1),
  'ddtb3': quantizers.lsq(3, offset=True, batch_axes=1),
  'ddtb4': quantizers.lsq(4, offset=True, batch_axes=1),
}
