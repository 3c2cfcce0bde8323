"""The targets of the benchmark: what is measured, in which unit, and its limit."""

from __future__ import annotations

from bitjax.evidence import targets

__all__ = ['TARGETS']

_SHARE = 'share of GEMM peak'
_PASSES = 'forward passes'
_MS = 'ms per lane'
TARGETS = {
  'multi-step, full precision': targets.Target(
    _SHARE, 0.70, higher_is_better=True
  ),
  'multi-step, binary': targets.Target(_SHARE, 0.70, higher_is_better=True),
  'line scan, brute force': targets.Target(f'{_PASSES} per point', 1.15),
  'line scan, binary, l2': targets.Target(_PASSES, 20),
  'line scan, binary, linf': targets.Target(_PASSES, 800),
  'line scan, full precision': targets.Target(_PASSES, 500),
  'line scan, peak memory': targets.Target('GiB', 1.5),
  'flip gains, binary': targets.Target(_PASSES, 15),
  'flip gains, binary weights, ReLU': targets.Target(_PASSES, 1500),
  'flip gains, full precision, both signs': targets.Target(_PASSES, 2000),
  'flip gains, peak memory': targets.Target('GiB', 2),
  'flip gains, four times the examples': targets.Target('times per one', 1.2),
  'flip gains, four times the units': targets.Target('times per one', 1.2),
  'flip gains, four layers before': targets.Target('times one before', 1.2),
  'flip descent, a flip': targets.Target(_PASSES, 2),
  'ResNet step': targets.Target(_SHARE, 0.35, higher_is_better=True),
  "ResNet step, over XLA's own": targets.Target('times', 0.9),
  'ResNet step, W1A1 over full precision': targets.Target('times', 1.3),
  'project l2': targets.Target(_MS, 10),
  'project linf': targets.Target(_MS, 10),
  'project l1': targets.Target(_MS, 10),
  'project flips': targets.Target(_MS, 10),
  'estimator overhead': targets.Target('times fused by hand, the worst', 1.25),
  'import': targets.Target('times jax + flax + optax', 1.2),
}
