"""Measures exact scans in forward passes of the same network on the same batch."""

from __future__ import annotations

from collections.abc import Callable
import functools
import os
import resource
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import scans
from bitjax.studies.benchmark import race

__all__ = [
  'flip_gains',
  'line_scan',
  'peak_memory',
  'report_memory',
  'scaling',
]

RANGE = (1e-5, 1e-1)  # The lowest and the highest learning rate.
STEP = 0.01  # How far a move takes a full-precision weight.

# Case -> its network, and the norm in which the direction has length 1.
_LINES = {
  'binary, l2': ('binary', 'l2'),
  'binary, linf': ('binary', 'linf'),
  'full precision': ('full_precision', 'l2'),
}
# Case -> its network, and the step of its moves (None where moves are flips).
_FLIPS = {
  'binary': ('binary', None),
  'binary weights, ReLU': ('binary_weights', None),
  'full precision, both signs': ('full_precision', STEP),
}


def line_scan(
  batch_size: int,
  hidden: tuple[int, ...],
  num_rates: int,
  num_timed: int,
  turns: int,
) -> dict[str, float]:
  """Returns how many forward passes a scan costs; by brute force, each of its points.

  Args:
    batch_size: examples in the batch.
    hidden: units of the hidden layers.
    num_rates: points of the scan.
    num_timed: points of the scan that is timed by brute force.
    turns: timed turns of each contestant.
  """
  found = {}
  for case, (network, norm) in _LINES.items():
    view, direction = _line(batch_size, hidden, network, norm)
    rates = jnp.linspace(*RANGE, num_rates)
    found[f'line scan, {case}'] = _passes(
      view, lambda view, d=direction, r=rates: _scan(view, d, r), turns
    )
  view, direction = _line(batch_size, hidden, 'full_precision', 'l2')
  rates = jnp.linspace(*RANGE, num_timed)
  brute = _passes(
    view, lambda view: _scan(view, direction, rates, 'brute_force'), turns
  )
  return {'line scan, brute force': brute / num_timed, **found}


def flip_gains(
  batch_size: int, hidden: tuple[int, ...], turns: int
) -> dict[str, float]:
  """Returns how many forward passes the gains of all moves of the first layer cost.

  Args:
    batch_size: examples in the batch.
    hidden: units of the hidden layers.
    turns: timed turns of each contestant.
  """
  found = {}
  for case, (network, step) in _FLIPS.items():
    view, _, _ = race.problem(batch_size, hidden, network)
    found[f'flip gains, {case}'] = _passes(
      view, lambda view, s=step: _gains(view, s), turns
    )
  return found


def scaling(
  batch_size: int, hidden: tuple[int, ...], turns: int, *, num_flips: int = 64
) -> dict[str, float]:
  """Measures how the cost of binary flip gains grows, and one flip of a descent.

  Args:
    batch_size: examples in the batch.
    hidden: units of the hidden layers.
    turns: timed turns of each contestant.
    num_flips: flips of the longer one of two descents.

  Returns:
    Ratios of times: for a batch four times as large, per example; for a layer with
    four times as many units, per unit; for a layer with three more layers before it
    and the same ones behind it. And how many forward passes a flip costs.
  """
  first, *rest = hidden
  quarter = max(first // 4, 1)

  def gains(batch_size, hidden, layer='Dense_0'):
    view, _, _ = race.problem(batch_size, hidden, 'binary', layer)
    return lambda: _gains(view, None)

  few = max(batch_size // 4, 1)
  seconds = race.race(
    {
      'all': gains(batch_size, hidden),
      'few examples': gains(few, hidden),
      'few units': gains(batch_size, (quarter, *rest)),
      'one before': gains(few, (first,) * 3, 'Dense_1'),
      'four before': gains(few, (first,) * 6, 'Dense_4'),
    },
    turns,
  )
  view, _, _ = race.problem(batch_size, hidden, 'binary')
  short, long = (
    _passes(view, lambda view, n=n: _descend(view, n), turns)
    for n in (num_flips // 4, num_flips)
  )
  flips = num_flips - num_flips // 4
  return {
    'flip gains, four times the examples': (
      seconds['all'] / seconds['few examples'] * few / batch_size
    ),
    'flip gains, four times the units': (
      seconds['all'] / seconds['few units'] * quarter / first
    ),
    'flip gains, four layers before': (
      seconds['four before'] / seconds['one before']
    ),
    'flip descent, a flip': (long - short) / flips,
  }


def _line(batch_size, hidden, network, norm):
  """Returns a view, and its gradient scaled to length 1 in a norm."""
  view, _, _ = race.problem(batch_size, hidden, network)
  gradient = _gradient(view)
  size = {'l2': jnp.linalg.norm, 'linf': lambda g: jnp.max(jnp.abs(g))}[norm]
  return view, gradient / size(gradient)


@jax.jit
def _forward(view):
  return view.loss(view.kernel)


@jax.jit
def _gradient(view):
  return jax.grad(view.loss)(view.kernel)


def _scan_losses(view, direction, rates, path='auto'):
  return scans.line_scan(view, direction, rates, path=path).losses


_scan = jax.jit(_scan_losses, static_argnames=('path',))


# Compiled as a whole: what the host checks before would cost forward passes of a GPU.
@functools.partial(jax.jit, static_argnames='step')
def _gains(view, step):
  return scans.flip_gains(view, step=step)


@functools.partial(jax.jit, static_argnames='num_flips')
def _descend(view, num_flips):
  return scans.flip_descent(view, num_flips)


def _passes(
  view: scans.LayerView, scan: Callable[[scans.LayerView], Any], turns: int
) -> float:
  """Returns the time of a scan over that of a forward pass; they take turns."""
  seconds = race.race(
    {'forward': lambda: [_forward(view) for _ in range(8)],
     'scan': lambda: scan(view)},
    turns,
  )  # fmt: skip
  return 8 * seconds['scan'] / seconds['forward']


def peak_memory(
  batch_size: int, hidden: tuple[int, ...], num_rates: int, num_timed: int
) -> dict[str, float]:
  """Returns the peak memory of line scans, and that of flip gains, in GiB.

  Args:
    batch_size: examples in the batch.
    hidden: units of the hidden layers.
    num_rates: points of the scan.
    num_timed: points of the part of the scan that runs by brute force.
  """
  found = {}
  for kind in ('line scan', 'flip gains'):
    # Each kind has a process of its own, as a peak includes all that ran before.
    program = (
      'from bitjax.studies.benchmark import scans; scans.report_memory'
      f'{(kind, batch_size, hidden, num_rates, num_timed)}'
    )
    command = [sys.executable, '-c', program]
    # This process has most of an accelerator's memory already.
    own = os.environ | {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    done = subprocess.run(
      command, check=True, capture_output=True, text=True, env=own
    )
    found[f'{kind}, peak memory'] = float(done.stdout)
  return found


def report_memory(
  kind: str,
  batch_size: int,
  hidden: tuple[int, ...],
  num_rates: int,
  num_timed: int,
) -> None:
  """Prints the most memory that any scan of a kind needs in this process, in GiB.

  Args:
    kind: ``'line scan'`` or ``'flip gains'``.
    batch_size: examples in the batch.
    hidden: units of the hidden layers.
    num_rates: points of a line scan.
    num_timed: points of the part of the scan that runs by brute force.
  """
  needed = 0
  if kind == 'flip gains':
    for network, step in _FLIPS.values():
      view, _, _ = race.problem(batch_size, hidden, network)
      jax.block_until_ready(_gains(view, step))
  else:
    rates = jnp.linspace(*RANGE, num_rates)
    lines = [
      _line(batch_size, hidden, network, norm)
      for network, norm in _LINES.values()
    ]
    for view, direction in lines:
      jax.block_until_ready(_scan(view, direction, rates))
    # The last case, by brute force: the compiler tells what all of it would hold,
    # and only a part of it runs.
    view, direction = lines[-1]
    whole = _scan.lower(view, direction, rates, 'brute_force').compile()
    analysis: Any = whole.memory_analysis()
    needed = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    needed += analysis.temp_size_in_bytes
    part = _scan(view, direction, rates[:num_timed], 'brute_force')
    jax.block_until_ready(part)
  resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  if jax.default_backend() != 'cpu':
    resident = jax.local_devices()[0].memory_stats()['peak_bytes_in_use']
  print(max(resident, needed) / 2**30)
