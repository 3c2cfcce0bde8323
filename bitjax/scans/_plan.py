"""Says what six questions about a view would cost, before any of them is asked.

Each question's own chooser is asked for its path, so a plan cannot differ from what
a scan does. Costs are estimates, in forward passes of the view (the layer and what
follows it): where a path's cost depends on the data, they are those measured for
a layer of 784 inputs and 256 units in a 784-256-256-10 network (`docs/benchmark.md`), or
follow from the work of the stages behind a convolution (`_conv_costs`). What would take
more time or memory than stated bounds is marked.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bitjax import memory as memory_lib
from bitjax import types
from bitjax.scans import _conv_costs
from bitjax.scans import _conv_split
from bitjax.scans import _convolution
from bitjax.scans import _coordinate
from bitjax.scans import _coordinate_losses
from bitjax.scans import _discrete
from bitjax.scans import _flip_descent
from bitjax.scans import _flip_pairs
from bitjax.scans import _flips
from bitjax.scans import _flips_moves
from bitjax.scans import _line
from bitjax.scans import _paths
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['COSTS', 'Plan', 'PlannedScan', 'plan']


class Cost(NamedTuple):
  """The forward passes of a path; ``str`` of it says them in words.

  Attributes:
    words: what they are, with ``{}`` for each measured number.
    measured: the measured numbers, from few to many.
  """

  words: str
  measured: tuple[float, ...] = ()

  def __str__(self) -> str:
    return self.words.format(*(f'{number:g}' for number in self.measured))


# `docs/scans.md` has the same table, and `docs/benchmark.md` what was measured.
COSTS = {
  ('line_scan', 'steps'): Cost(
    '{} to {}, by the number of breakpoints; of a convolution, a fifth for each '
    'distinct kernel',
    (4.7, 144),
  ),
  ('line_scan', 'affine'): Cost('{}', (72,)),
  ('line_scan', 'distinct'): Cost('one for each distinct quantized kernel'),
  ('line_scan', 'brute_force'): Cost('one for each rate'),
  ('flip_gains', 'layers'): Cost('those of each layer'),
  ('flip_gains', 'sign'): Cost('{}', (10.5,)),
  ('flip_gains', 'rank_one'): Cost('{}; {} for moves up and down', (496, 630)),
  ('flip_gains', 'pooled'): Cost(
    '{}; {} for moves up and down; {} each way for inputs that are no signs',
    (9, 12, 38),
  ),
  ('flip_gains', 'masks'): Cost(
    'those of tail for each distinct mask, whose number is estimated'
  ),
  ('flip_gains', 'tail'): Cost(
    'the share of the work behind the layer for each move; a packed product is a '
    'tenth of one'
  ),
  ('flip_gains', 'brute_force'): Cost('one for each move'),
  ('discrete_gradient', '*'): Cost('those of flip_gains, and two'),
  ('coordinate_discrete_gradient', 'incremental'): Cost(
    'at most the share of the network behind the layer, for each move; of a '
    'convolution, a quarter'
  ),
  ('coordinate_discrete_gradient', 'forward_passes'): Cost('one for each move'),
  ('flip_descent', 'incremental'): Cost(
    '{} for each flip, and those of flip_gains', (0.77,)
  ),
  ('flip_descent', 'recompute'): Cost('those of flip_gains, for each flip'),
  ('pair_gains', 'incremental'): Cost('three quarters for each pair'),
  ('pair_gains', 'brute_force'): Cost('three for each pair'),
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
    memory: how many bytes the compiled scan reserves for results and all that it
      keeps on the way, beside the view; None if nothing was compiled.
    exceeds: which bounds of `plan` it exceeds, and by what; '' if none that is known.
  """

  question: str
  path: str
  reason: str
  passes: float
  seconds: float | None
  memory: int | None
  exceeds: str = ''


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
    """Returns a table: a line for each question, its reason and excess below it."""
    lines = [
      f'{"question":28}  {"path":14}  {"passes":>8}  {"seconds":>8}  {"MB":>8}'
    ]
    for scan in self.scans:
      seconds = '' if scan.seconds is None else f'{scan.seconds:.2g}'
      megabytes = '' if scan.memory is None else f'{scan.memory / 1e6:.3g}'
      lines.append(
        f'{scan.question:28}  {scan.path or "-":14}  {scan.passes:8.3g}  '
        f'{seconds:>8}  {megabytes:>8}'
      )
      if scan.reason:
        lines.append(f'  {scan.reason}')
      if scan.exceeds:
        lines.append(f'  TOO MUCH: {scan.exceeds}')
    return '\n'.join(lines)


def plan(
  view: _view.LayerView,
  *,
  num_rates: int = 1000,
  num_pairs: int = 1000,
  max_flips: int = 100,
  timed: bool = True,
  memory: bool = False,
  most_seconds: float = 3600.0,
  most_memory: int | str | None = None,
) -> Plan:
  """Says which paths questions about a view would take, and what they would cost.

  The questions are `line_scan`, `flip_gains`, `discrete_gradient`,
  `coordinate_discrete_gradient`, `flip_descent` and `pair_gains`, with their defaults.
  Nothing is scanned. One forward pass is compiled and timed. Seconds are forward passes
  times its time, without compilation: an estimate, right to a factor of a few. Memory is
  what the compiler reserves, so asking for it compiles each scan, which takes seconds.
  Scans beyond ``most_seconds`` or ``most_memory`` are planned too, and marked
  (``PlannedScan.exceeds``); what was not timed or compiled is not compared.

  Args:
    view: the layer; concrete unless ``timed`` is false and ``memory`` too.
    num_rates: how many learning rates `line_scan` is asked for.
    num_pairs: how many pairs `pair_gains` is asked for.
    max_flips: how many flips `flip_descent` is asked for.
    timed: whether to time a forward pass.
    memory: whether to compile the scans, to say how much memory they need.
    most_seconds: seconds beyond which a scan is marked; ``math.inf`` for no bound.
    most_memory: bytes beyond which a compiled scan is marked, with its view: a number, or
      as `memory.parse` reads them; None for `memory.budget`.

  Returns:
    A `Plan`.

  Raises:
    BadInput: for an empty view, numbers below 1, or bounds that are not positive.
  """
  types.check_integer('num_rates', num_rates, 1)
  types.check_integer('num_pairs', num_pairs, 1)
  types.check_integer('max_flips', max_flips, 1)
  types.check_positive('most_seconds', most_seconds)
  room = _room(most_memory)
  _view.check_filled(view)
  forward = _time(view) if timed else None
  weights = view.kernel.size
  moves = weights * (1 if _flips_moves.is_binary(view) else 2)
  missing = _no_moves(view)
  gains = _flips.choose(view)
  gain_passes = _gain_passes(view, gains.path)
  line = _line.choose('auto', [view], None, num_rates)
  along = _line_passes(view, line.path, num_rates)

  def row(
    question: str, choice: _paths.Choice, passes: float, needs: str = missing
  ) -> PlannedScan:
    if needs:
      return PlannedScan(question, '', needs, math.nan, None, None)
    seconds = None if forward is None else passes * forward
    beyond = []
    if seconds is not None and seconds > most_seconds:
      beyond.append(f'about {seconds:.2g} s, and most_seconds={most_seconds:g}')
    reserved = None
    if memory:
      taken = _taken(view, asked[question])
      if isinstance(taken, str):
        beyond.append(taken)
      elif taken is not None:
        reserved = taken.temporaries + taken.outputs
        if taken.total > room:
          size, most = map(memory_lib.shown, (taken.total, room))
          beyond.append(f'{size} with the view, and most_memory is {most}')
    exceeds = '; '.join(beyond)
    return PlannedScan(question, *choice, passes, seconds, reserved, exceeds)

  asked = _questions(view, num_rates, num_pairs, max_flips)
  tried = _coordinate_losses.choose(view)
  share = _share_behind(view) if tried.path == 'incremental' else 1.0
  descent = _flip_descent.choose(view)
  (each,) = COSTS['flip_descent', descent.path].measured or (gain_passes,)
  flips = missing
  if view.quantizer is None:
    flips = 'a descent by flips needs a quantised kernel'
  pairs = _flip_pairs.choose(view)
  of_pair = 0.75 if pairs.path == 'incremental' else 3.0
  rows = (
    row('line_scan', line, along, ''),
    row('flip_gains', gains, gain_passes),
    row('discrete_gradient', gains, gain_passes + 2),
    row('coordinate_discrete_gradient', tried, moves * share),
    row('flip_descent', descent, gain_passes + max_flips * each, flips),
    row('pair_gains', pairs, of_pair * num_pairs),
  )
  return Plan(rows, forward)


def _line_passes(view, path, num_rates):
  """Returns the forward passes of `line_scan` on a path, at most."""
  if path == 'steps' and isinstance(view.product, _convolution.Convolution):
    return num_rates / 5
  return max(COSTS['line_scan', path].measured, default=num_rates)


def _room(most_memory):
  """Returns the bytes that ``most_memory`` says."""
  if most_memory is None:
    return memory_lib.budget()
  if not isinstance(most_memory, str):
    return types.check_integer('most_memory', most_memory, 1)
  try:
    return memory_lib.parse(most_memory)
  except types.BadInput as error:
    raise types.BadInput(f'most_memory: {error}') from error


def _gain_passes(view, path):
  """Returns the forward passes of `flip_gains` on a path."""
  if path == 'layers':
    layers = list(view.product.views(view))
    return sum(_gain_passes(one, _flips.choose(one).path) for one in layers)
  ways = 1 if _flips_moves.is_binary(view) else 2
  moves = ways * view.kernel.size
  if path in ('tail', 'masks'):
    fraction = 1 if path == 'tail' else _conv_costs.distinct(view, ways)
    return max(1.0, fraction * moves * _conv_costs.passes(view))
  measured = COSTS['flip_gains', path].measured
  if path == 'pooled' and not _conv_split.has_sign_inputs(view):
    return min(moves, ways * measured[-1])
  *_, most = moves, *measured[:ways]
  return min(moves, most)


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


def _share_behind(view):
  """Returns the share of a forward pass's work that is behind a single unit."""
  if isinstance(view.product, _convolution.Convolution):
    return 0.25
  dense = [s.kernel for s in view.tail if isinstance(s, _stages.Dense)]
  width = dense[0].shape[1] if dense else 0
  behind = 1 + width + sum(kernel.size for kernel in dense[1:])
  return min(
    1.0, behind / (view.kernel.size + sum(kernel.size for kernel in dense))
  )


def _questions(view, num_rates, num_pairs, max_flips):
  """Returns each question as a function of the view, with the defaults of its function."""
  key, budget = jax.random.key(0), types.Budget(1.0)
  step = 1.0 if view.quantizer is None else None
  rates = jnp.linspace(0.0, 1.0, num_rates)
  return {
    'line_scan': lambda v: _line.line_scan(v, v.kernel, rates),
    'flip_gains': lambda v: _flips.flip_gains(v, step=step),
    'discrete_gradient': lambda v: _discrete.discrete_gradient(
      v, budget, step=step
    ),
    'coordinate_discrete_gradient': lambda v: (
      _coordinate.coordinate_discrete_gradient(v, budget, key=key, step=step)
    ),
    'flip_descent': lambda v: _flip_descent.flip_descent(v, max_flips),
    'pair_gains': lambda v: _flip_pairs.pair_gains(
      v, key, num_pairs, step=step
    ),
  }


def _taken(view, question):
  """Returns the memory of a compiled scan: what it takes, None if no compiler says so.

  If no candidate of it fits the memory budget, it is what the scan would say.
  """
  try:
    return memory_lib.of(jax.jit(question).lower(view).compile())
  except memory_lib.Exceeded as error:
    return str(error)


def _time(view):
  """Returns the seconds of one forward pass, the faster of two, compiled before."""
  loss = jax.jit(lambda view: view.loss(view.kernel))
  loss(view).block_until_ready()
  seconds = []
  for _ in range(2):
    start = time.perf_counter()
    loss(view).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return min(seconds)
