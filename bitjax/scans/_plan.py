"""Says what each question about a view would cost, before any of them is asked.

Each question's own chooser is asked for its path, so a plan cannot differ from what
a scan does. Costs are estimates, in forward passes of the view (the layer and what
follows it): where a path's cost depends on the data, they are those measured for
a layer of 784 inputs and 256 units in a 784-256-256-10 network (`docs/benchmark.md`).
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
import time

import jax

from bitjax import types
from bitjax.scans import _coordinate_losses
from bitjax.scans import _flip_descent
from bitjax.scans import _flips
from bitjax.scans import _flips_moves
from bitjax.scans import _line
from bitjax.scans import _paths
from bitjax.scans import _view

__all__ = ['COSTS', 'Plan', 'PlannedScan', 'plan']

# Forward passes of each path, in words; `docs/scans.md` has the same table.
COSTS = {
  ('line_scan', 'steps'): '5 to 144, by the number of breakpoints',
  ('line_scan', 'affine'): '72',
  ('line_scan', 'brute_force'): 'one for each rate',
  ('flip_gains', 'layers'): 'those of each layer',
  ('flip_gains', 'sign'): '11',
  ('flip_gains', 'rank_one'): '496; 630 for moves up and down',
  ('flip_gains', 'brute_force'): 'one for each move',
  ('discrete_gradient', '*'): 'those of flip_gains, and two',
  (
    'coordinate_discrete_gradient',
    'incremental',
  ): 'at most the share of the network behind the layer, for each move',
  ('coordinate_discrete_gradient', 'forward_passes'): 'one for each move',
  ('flip_descent', 'incremental'): '0.8 for each flip, and those of flip_gains',
  ('flip_descent', 'recompute'): 'those of flip_gains, for each flip',
  ('pair_gains', 'brute_force'): 'three for each pair',
}


@dataclasses.dataclass(frozen=True)
class PlannedScan:
  """What one question would cost.

  Attributes:
    question: name of the function that answers it.
    path: the path that it would take; '' if it cannot be answered.
    reason: why it takes no faster path, or cannot be answered; '' if neither.
    passes: about how many forward passes it costs.
    seconds: about how many seconds; None if no forward pass was timed.
    megabytes: about how much memory it needs beside the view's own arrays.
  """

  question: str
  path: str
  reason: str
  passes: float
  seconds: float | None
  megabytes: float


@dataclasses.dataclass(frozen=True)
class Plan:
  """The scans that `plan` planned; ``str`` of it is a table.

  Attributes:
    scans: one for each question.
    forward_seconds: how long one forward pass takes on this machine; None if it
      was not timed.
  """

  scans: tuple[PlannedScan, ...]
  forward_seconds: float | None

  def __str__(self) -> str:
    """Returns a table with a line for each question, and its reason below it."""
    lines = [
      f'{"question":28}  {"path":14}  {"passes":>8}  {"seconds":>8}  {"MB":>6}'
    ]
    for scan in self.scans:
      seconds = '' if scan.seconds is None else f'{scan.seconds:.2g}'
      lines.append(
        f'{scan.question:28}  {scan.path or "-":14}  {scan.passes:8.3g}  '
        f'{seconds:>8}  {scan.megabytes:6.3g}'
      )
      if scan.reason:
        lines.append(f'  {scan.reason}')
    return '\n'.join(lines)


def plan(
  view: _view.LayerView,
  *,
  num_rates: int = 1000,
  num_pairs: int = 1000,
  max_flips: int = 100,
  timed: bool = True,
) -> Plan:
  """Says which path each question about a view would take, and what it would cost.

  Nothing is scanned. One forward pass is compiled and timed. Seconds are forward
  passes times its time, without compilation: an estimate, right to a factor of a few.
  Memory is that of the arrays which grow with the question, an estimate as well.

  Args:
    view: the layer; concrete unless ``timed`` is false.
    num_rates: how many learning rates `line_scan` is asked for.
    num_pairs: how many pairs `pair_gains` is asked for.
    max_flips: how many flips `flip_descent` is asked for.
    timed: whether to time a forward pass.

  Returns:
    A `Plan`.

  Raises:
    BadInput: for an empty view, or numbers below 1.
  """
  types.check_integer('num_rates', num_rates, 1)
  types.check_integer('num_pairs', num_pairs, 1)
  types.check_integer('max_flips', max_flips, 1)
  _view.check_filled(view)
  forward = _time(view) if timed else None
  activations, behind = _sizes(view)
  weights = view.kernel.size
  moves = weights * (1 if _flips_moves.is_binary(view) else 2)
  missing = _no_moves(view)
  results = 8 * moves  # Two float32 numbers for each move.
  gains = _flips.choose(view)
  gain_passes = _gain_passes(view, gains.path)
  line = _line.choose('auto', [view], None, num_rates)
  along = {'steps': 144.0, 'affine': 72.0}.get(line.path, num_rates)

  def row(
    question: str, choice: _paths.Choice, passes: float, size: float
  ) -> PlannedScan:
    if missing and question != 'line_scan':
      return PlannedScan(question, '', missing, math.nan, None, math.nan)
    seconds = None if forward is None else passes * forward
    megabytes = (activations + size) / 1e6
    return PlannedScan(question, *choice, passes, seconds, megabytes)

  rows = [
    row('line_scan', line, along, 4 * num_rates),
    row('flip_gains', gains, gain_passes, results),
    row('discrete_gradient', gains, gain_passes + 2, 3 * results),
  ]
  tried = _coordinate_losses.choose(view)
  share = behind if tried.path == 'incremental' else 1.0
  rows.append(
    row('coordinate_discrete_gradient', tried, moves * share, 3 * results)
  )
  descent = _flip_descent.choose(view)
  each = 0.77 if descent.path == 'incremental' else gain_passes
  if view.quantizer is None:
    needs = 'a descent by flips needs a quantised kernel'
    rows.append(
      PlannedScan('flip_descent', '', needs, math.nan, None, math.nan)
    )
  else:
    passes = gain_passes + max_flips * each
    rows.append(row('flip_descent', descent, passes, results))
  pairs = _paths.Choice('brute_force', 'pairs have no faster path')
  rows.append(row('pair_gains', pairs, 3 * num_pairs, 16 * num_pairs))
  return Plan(tuple(rows), forward)


def _gain_passes(view, path):
  """Returns the forward passes of `flip_gains` on a path."""
  if path == 'layers':
    layers = list(view.product.views(view))
    return sum(_gain_passes(one, _flips.choose(one).path) for one in layers)
  moves = view.kernel.size * (1 if _flips_moves.is_binary(view) else 2)
  one_way = _flips_moves.is_binary(view)
  known = {'sign': 10.5, 'rank_one': 496.0 if one_way else 630.0}
  return min(moves, known.get(path, math.inf))


def _no_moves(view):
  """Returns why a kernel has no moves, or '' if it has."""
  try:
    step = 1.0 if view.quantizer is None else None
    jax.eval_shape(
      lambda v: _flips_moves.moves(v, step=step).destinations, view
    )
  except types.BadInput as error:
    return str(error)
  return ''


def _sizes(view):
  """Returns the bytes of all activations, and the share of the work behind u."""

  def outputs(view):
    found = [view.pre_activations(view.kernel)]
    for stage in view.tail:
      found.append(stage(found[-1]))
    return found

  shapes = jax.eval_shape(outputs, view)
  total = sum(x.size * x.dtype.itemsize for x in shapes)
  dense = [s.kernel.size for s in view.tail if isinstance(s, _view.Dense)]
  width = view.tail and next(
    (s.kernel.shape[1] for s in view.tail if isinstance(s, _view.Dense)), 0
  )
  share = (1 + (width or 0) + sum(dense[1:])) / (view.kernel.size + sum(dense))
  return total, min(1.0, share)


def _time(view, clock: Callable[[], float] = time.perf_counter):
  """Returns the seconds of one forward pass, the faster of two, compiled before."""
  loss = jax.jit(lambda view: view.loss(view.kernel))
  loss(view).block_until_ready()
  seconds = []
  for _ in range(2):
    start = clock()
    loss(view).block_until_ready()
    seconds.append(clock() - start)
  return min(seconds)
