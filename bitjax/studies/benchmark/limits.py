"""The targets of the benchmark: what is measured, in which unit, and its limit.

Those of a CPU were met when they were set. Those of GPUs and TPUs were not measured
yet: they follow from the number of launches, of about five microseconds each, which
cost more forward passes where a forward pass takes a tenth of a millisecond.
"""

from __future__ import annotations

import dataclasses

from bitjax.evidence import targets

__all__ = ['CASES', 'of']

_SHARE = 'share of GEMM peak'
_PASSES = 'forward passes'
_MS = 'ms per lane'
_CPU = {
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
  'flip gains, last convolution': targets.Target(_PASSES, 1),
  'flip gains, convolution before a sign': targets.Target(_PASSES, 100),
  'flip gains, any convolution': targets.Target(
    'times as fast as brute force', 6, higher_is_better=True
  ),
  'flip descent, a flip': targets.Target(_PASSES, 2),
  'ResNet step': targets.Target(_SHARE, 0.35, higher_is_better=True),
  "ResNet step, over XLA's own": targets.Target('times', 0.9),
  'ResNet step, W1A1 over full precision': targets.Target('times', 1.3),
  'seeds together': targets.Target('times the fastest of three ways', 1.2),
  'flips of a convolution together': targets.Target(
    'times the fastest of three ways', 1.2
  ),
  'project l2': targets.Target(_MS, 10),
  'project linf': targets.Target(_MS, 10),
  'project l1': targets.Target(_MS, 10),
  'project flips': targets.Target(_MS, 10),
  'estimator overhead': targets.Target('times fused by hand, the worst', 1.25),
  'import': targets.Target('times jax + flax + optax', 1.2),
}
CASES = tuple(_CPU)
# Other limits than a CPU's; None for what says nothing there: convolutions are XLA's
# own, and the import is the host's.
_GPU = {
  'multi-step, full precision': 0.4,
  'multi-step, binary': 0.4,
  'line scan, binary, l2': 60,
  'line scan, binary, linf': 2000,
  'line scan, full precision': 2000,
  'line scan, peak memory': 16,
  'flip gains, binary': 60,
  'flip gains, full precision, both signs': 3000,
  'flip gains, peak memory': 16,
  'flip gains, last convolution': 10,
  'flip gains, convolution before a sign': 1000,
  'flip gains, any convolution': 1,
  'flip descent, a flip': 20,
  'ResNet step': 0.1,
  "ResNet step, over XLA's own": None,
  'project l2': 1,
  'project linf': 1,
  'project l1': 1,
  'project flips': 1,
  'import': None,
}
# A second process, whose memory is measured, cannot have the same TPU.
_TPU = _GPU | {
  'line scan, peak memory': None,
  'flip gains, peak memory': None,
}
_OTHER = {'cpu': {}, 'gpu': _GPU, 'tpu': _TPU}


def of(kind: str) -> dict[str, targets.Target]:
  """Returns the targets for a kind of device, as `jax.default_backend` names it."""
  found = {}
  for case, target in _CPU.items():
    limit = _OTHER.get(kind, _GPU).get(case, target.limit)
    if limit is not None:
      found[case] = dataclasses.replace(target, limit=limit)
  return found
