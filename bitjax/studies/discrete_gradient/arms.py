r"""Declares and runs the arms of the study, each of which is one sweep.

All arms report alike. Each starts at the same kernel, stays in the same ball, and
reports losses on A, which it may look at, and on B, which it may not. The losses lie
along an axis of its own: the moves made so far, the rounds, the learning rates or the
steps. Where an arm spends the whole budget, it does so in the last entry of its axis.

An arm moves the weights of the first layer, or of all layers together in one ball.
Only `coordinate` is confined to the first layer, because in all layers each of its
moves would cost a forward pass, and `factorial`, because the last layer feeds no sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bitjax import measures
from bitjax import sweeps
from bitjax.evidence import protocols
from bitjax.studies import toy
from bitjax.studies.toy import promises
from bitjax.studies.toy import searches

if TYPE_CHECKING:
  import xarray

__all__ = [
  'Arm',
  'collect',
  'coordinate',
  'declared',
  'discrete',
  'factorial',
  'multi',
  'random',
  'reliability',
  'rounds',
  'ste',
]

Axes = Mapping[str, Sequence[Any]]

CHUNK = 10  # Lanes that are saved together, as one chunk.


@dataclasses.dataclass(frozen=True)
class Arm:
  """One sweep of the study.

  Attributes:
    name: prefix of the names of the arm's results.
    search: a function of `toy.searches` or `toy.promises`.
    static: axes of static values, such as balls and layers.
    axis: the axis along which losses are read, with its labels; empty for none.
    search_axes: further axes, over which the search itself runs, with their labels.
    scalar_outputs: outputs that do not vary along ``axis``.
    outputs: outputs that vary along ``axis``.
    lanes: axes of traced values, besides states and seeds.
    options: further keyword arguments of the search.
  """

  name: str
  search: Callable[..., toy.Outputs]
  static: Axes
  axis: Axes
  search_axes: Axes = dataclasses.field(default_factory=dict)
  scalar_outputs: Sequence[str] = ()
  outputs: Sequence[str] = ('search', 'holdout')
  lanes: Axes = dataclasses.field(default_factory=dict)
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def declared(problems: toy.Problems[Any]) -> list[Arm]:
  """Returns all arms of the study.

  Args:
    problems: the toy problems of all seeds, with the configuration of the study.
  """
  config = problems.config
  cells = {'ball': config.balls, 'layers': config.layers}
  return [
    discrete(problems, cells),
    factorial(problems, cells),
    rounds(
      cells, config.round_signals, config.round_rankings, config.num_rounds
    ),
    ste(cells, config.learning_rates.values),
    multi(cells, config.optimizers, config.step_sizes, config.num_rounds[-1]),
    coordinate(cells, config.num_candidates),
    random(cells),
    reliability(config.batch_size),
  ]


def collect(
  networks: toy.States, sweep: sweeps.Sweep, arms: Sequence[Arm]
) -> xarray.Dataset:
  """Runs the arms and merges their results into one dataset.

  Args:
    networks: the networks of all seeds, in all states.
    sweep: runs the sweeps.
    arms: the arms to run.

  Returns:
    A dataset with the losses ``<arm>_search`` and ``<arm>_holdout`` in nats, over
    (the arm's static axes, state, seed, its lanes, its search axes, its axis), and
    with whatever else an arm reports; and ``tuning_<arm>_holdout``, the losses on B
    of the tuning seeds.
  """
  import xarray

  results = []
  for arm in arms:
    dims = dict.fromkeys(arm.outputs, (*arm.search_axes, *arm.axis))
    coords = {
      name: np.asarray(v) for name, v in {**arm.search_axes, **arm.axis}.items()
    }
    found = sweep(
      functools.partial(searches.lane, arm.search, networks, dict(arm.options)),
      name=arm.name,
      static=arm.static,
      lanes={**networks.lanes, **arm.lanes},
      shared=networks.shared,
      dims=dims | dict.fromkeys(arm.scalar_outputs, tuple(arm.search_axes)),
      coords=coords,
      chunk=CHUNK,
    )
    names = {name: f'{arm.name}_{name}' for name in found.data_vars}
    results.append(found.rename(names))
  merged = xarray.merge(results, join='outer', combine_attrs='drop')
  # Where arms differ in their labels, an outer merge sorts these.
  layers = next(arm.static['layers'] for arm in arms if 'layers' in arm.static)
  merged = networks.label(merged.reindex(layers=list(layers)))
  problems = networks.problems
  return protocols.apart(
    merged.assign_attrs(examples=len(problems.dataset.labels)),
    problems.config.tuning_seeds,
    [f'{arm.name}_holdout' for arm in arms if 'holdout' in arm.outputs],
  )


def discrete(problems: toy.Problems[toy.BallConfig], cells: Axes) -> Arm:
  """Returns the arm that makes the best single moves all at once.

  It does so for every signal and ranking.

  Args:
    problems: the toy problems of all seeds.
    cells: static axes ``ball`` and ``layers``.
  """
  return Arm(
    'discrete',
    searches.discrete,
    cells,
    search_axes={'signal': searches.SIGNALS, 'ranking': searches.RANKINGS},
    **_at_once(problems, cells),
  )


def factorial(problems: toy.Problems[toy.BallConfig], cells: Axes) -> Arm:
  """Returns the arm that tells apart why STE's prediction is another signal.

  Crossings are true or smoothed, and the effect behind them exact or linear. It moves
  the first layer only, as no crossing lies behind the last.

  Args:
    problems: the toy problems of all seeds.
    cells: static axes ``ball`` and ``layers``.
  """
  return Arm(
    'factorial',
    promises.factorial,
    {**cells, 'layers': cells['layers'][:1]},
    search_axes={'crossing': promises.CROSSINGS, 'behind': promises.BEHIND},
    **_at_once(problems, cells),
  )


def rounds(
  cells: Axes,
  signals: Sequence[str],
  rankings: Sequence[str],
  num_rounds: Sequence[int],
) -> Arm:
  """Returns the arm that makes the best single moves in rounds.

  Each round scores all moves again. Signals that do not depend on the loss gain no
  information by that; they show what rounds by themselves do to the budget.

  Args:
    cells: static axes ``ball`` and ``layers``.
    signals: some of `searches.SIGNALS`.
    rankings: some of `searches.RANKINGS`, in that order.
    num_rounds: the numbers of rounds to compare.
  """
  return Arm(
    'rounds',
    searches.rounds,
    {
      **cells,
      'signal': signals,
      'split': searches.SPLITS,
      'num_rounds': num_rounds,
    },
    axis={'share': searches.SHARES},
    search_axes={'ranking': rankings},
    scalar_outputs=('used', 'moves', 'returns'),
    options={'rankings': tuple(rankings)},
  )


def ste(cells: Axes, rates: Sequence[float]) -> Arm:
  """Returns the arm that scans learning rates of one step along each direction.

  Args:
    cells: static axes ``ball`` and ``layers``.
    rates: learning rates, as fractions of `descent.reach`.
  """
  return Arm(
    'ste',
    searches.ste,
    cells,
    axis={'learning_rate': rates},
    search_axes={'direction': searches.DIRECTIONS},
    options={'rates': rates},
  )


def multi(
  cells: Axes,
  optimizers: Sequence[str],
  step_sizes: Sequence[float],
  num_steps: int,
) -> Arm:
  """Returns the arm that takes several steps of STE, projected onto the ball.

  Args:
    cells: static axes ``ball`` and ``layers``.
    optimizers: some of `toy.OPTIMIZERS`.
    step_sizes: learning rates, as fractions of `descent.reach`.
    num_steps: number of updates.
  """
  return Arm(
    'multi',
    searches.multi,
    {**cells, 'optimizer': optimizers},
    axis={'step': range(num_steps + 1)},
    lanes={'step_size': step_sizes},
    options={'num_steps': num_steps},
  )


def coordinate(cells: Axes, num_candidates: int) -> Arm:
  """Returns the arm that tries moves of the first layer one by one.

  A move is kept if it lowers the loss and the budget pays for it.

  Args:
    cells: static axes ``ball`` and ``layers``.
    num_candidates: moves to try.
  """
  return Arm(
    'coordinate',
    searches.coordinate,
    {**cells, 'layers': cells['layers'][:1]},
    axis={},
    search_axes={'order': searches.ORDERS},
    scalar_outputs=('used', 'moves'),
    options={'num_candidates': num_candidates},
  )


def random(cells: Axes) -> Arm:
  """Returns the arm that visits random points of the ball.

  Args:
    cells: static axes ``ball`` and ``layers``.
  """
  return Arm(
    'random',
    searches.random,
    cells,
    axis={'control_draw': range(searches.NUM_DRAWS)},
  )


def reliability(batch_sizes: Sequence[int]) -> Arm:
  """Returns the arm that measures how well promised gains on A and B agree.

  The promises are exact gains, STE's linear prediction, and what lies between them; see
  `promises.PAIRS`.

  Args:
    batch_sizes: examples in A, and in B.
  """
  return Arm(
    'reliability',
    promises.reliability,
    {'batch_size': sorted(batch_sizes)},
    axis={'pair': promises.PAIRS},
    outputs=measures.Agreement._fields,
  )


def _at_once(problems, cells) -> dict[str, Any]:
  """Returns what arms share that make all their moves at once."""
  prefixes = _prefixes(problems, cells['layers'])
  return {
    'axis': {'prefix': prefixes},
    'scalar_outputs': ('used', 'moves', 'predicted', 'true'),
    'options': {'prefixes': prefixes},
  }


def _prefixes(
  problems: toy.Problems[toy.BallConfig], layers: Sequence[str]
) -> list[int]:
  """Returns 0, 1, 2, 4, ... and last the number of all moves of the largest layer."""
  first = problems.config.seeds[0]
  sizes = []
  for name in layers:
    posed = jax.eval_shape(
      lambda arrays, name=name: searches.pose_layers(
        problems, problems.trial(first, arrays), name
      ),
      problems.arrays,
    )
    sizes.append(posed.search.kernel.size)
  size = max(sizes)
  return [0, *(2**power for power in range((size - 1).bit_length())), size]
