"""Draws how much of its limit each measurement of the benchmark uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import targets
from bitjax.studies.benchmark import limits

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_LABELS = {
  'multi-step, full precision': 'several steps, full precision',
  'multi-step, binary': 'several steps, binary',
  'line scan, binary, l2': r'line scan, binary, $\ell_2$',
  'line scan, binary, linf': r'line scan, binary, $\ell_\infty$',
  'flip descent, a flip': 'flip descent, one flip',
  'ResNet step': 'ResNet-20 step',
  "ResNet step, over XLA's own": "ResNet-20 step, against XLA's own",
  'ResNet step, W1A1 over full precision': 'ResNet-20 step, W1A1',
  'seeds together': 'seeds of a ResNet-20',
  'flips of a convolution together': 'flips of a convolution',
  'project l2': r'projection, $\ell_2$',
  'project linf': r'projection, $\ell_\infty$',
  'project l1': r'projection, $\ell_1$',
  'project flips': 'projection, flips',
  'estimator overhead': 'sign with an estimator, the worst',
  'import': 'import of bitjax',
}
_UNITS = {
  'multi-step, full precision': 'of the GEMM peak',
  'multi-step, binary': 'of the GEMM peak',
  'line scan, brute force': 'passes a point',
  'flip gains, any convolution': '× as fast as brute force',
  'flip gains, four times the examples': '× the time an example',
  'flip gains, four times the units': '× the time a unit',
  'flip gains, four layers before': '× the time of one layer',
  'ResNet step': 'of the GEMM peak',
  "ResNet step, over XLA's own": '× the time',
  'ResNet step, W1A1 over full precision': '× full precision',
  'seeds together': '× the fastest way',
  'flips of a convolution together': '× the fastest way',
  'estimator overhead': '× fused by hand',
  'import': '× jax + flax + optax',
}


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws each measurement relative to its target."""
  wanted = limits.of(results.attrs.get('device_kind', 'cpu'))
  return targets.bars(wanted, results, labels=_LABELS, units=_UNITS)
