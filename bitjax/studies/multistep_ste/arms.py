"""The arms of the study: each is one sweep, and all report the same outputs.

An *arm* is a way to move inside the ball together with the axes over which the study
varies it. It reports, along an axis of its own, the losses on A and on B, the signs
flipped and the share of the budget used. The study is a list of arms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import descent
from bitjax import sweeps
from bitjax import tree
from bitjax import types
from bitjax.evidence import protocols
from bitjax.studies import toy

if TYPE_CHECKING:
  import xarray

__all__ = [
  'Arm',
  'collect',
  'multi',
  'noisy',
  'restarts',
  'schedule',
  'single',
  'starts',
  'variant',
]

CHUNK = 8  # Lanes between two saves: at the note's sizes a lane takes seconds.


@dataclasses.dataclass(frozen=True)
class Arm:
  """One sweep of the study.

  Attributes:
    name: prefix of the arm's results.
    fn: maps keyword arguments (static values, lane values, ``data``, and ``points`` of
      the arm's own axis) to outputs.
    static: axes of static values.
    lanes: axes of traced values.
    axis: the name of the axis along which the arm reports.
    points: the points of that axis, which are its coordinates.
    starts: the noise amplitude and the draw for which each value of the lane axis
      ``start`` stands, if there is such an axis; see `starts`.
  """

  name: str
  fn: Callable[..., toy.Outputs]
  static: Mapping[str, Sequence[Any]]
  lanes: Mapping[str, Sequence[Any]]
  axis: str
  points: Any
  starts: Sequence[tuple[float, int]] = ()


def collect(
  problems: toy.Problems[toy.BallConfig],
  sweep: sweeps.Sweep,
  arms: Sequence[Arm],
) -> xarray.Dataset:
  """Runs the arms and merges their results.

  Returns:
    Variables ``<arm>_search``, ``<arm>_holdout``, ``<arm>_flips``,
    ``<arm>_used`` and whatever else an arm reports, of the tested seeds; and
    ``tuning_<arm>_holdout``, of the seeds on which settings are tuned.
  """
  import xarray

  results = []
  for arm in arms:
    points = np.asarray(arm.points)
    outcome = sweep(
      arm.fn,
      name=arm.name,
      static=arm.static,
      lanes=arm.lanes,
      shared={'data': problems.arrays, 'points': jnp.asarray(points)},
      dims=dict.fromkeys(toy.REPORTED, (arm.axis,)),
      coords={arm.axis: points},
      chunk=CHUNK,
    )
    if arm.starts:
      outcome = _by_noise(outcome, arm.starts)
    names = {name: f'{arm.name}_{name}' for name in outcome.data_vars}
    results.append(outcome.rename(names))
  # An arm that covers a part of an axis has NaN in the rest of its table.
  merged = xarray.merge(results, join='outer', combine_attrs='drop')
  tested = protocols.apart(
    merged,
    problems.config.tuning_seeds,
    [f'{arm.name}_holdout' for arm in arms],
  )
  return tested.assign_attrs(
    examples=len(problems.dataset.labels),
    independent=int(problems.config.augment == 'none'),
  )


def single(
  problems: toy.Problems[toy.BallConfig],
  rates: Sequence[float],
  *,
  steepest: bool = False,
) -> Arm:
  """Returns the arm of single-step STE, over learning rates, networks and batch sizes.

  With ``steepest`` the arm is named ``'steepest'``, and its direction is that of
  steepest descent in the budget's norm instead of the gradient.

  The arm also reports ``reachable``, the largest share of signs that a point of the
  ball has flipped: a budget that reaches all, or none, compares nothing.
  """

  def fn(network, batch_size, seed, data, points):
    posed = problems.pose(network, seed, data, batch_size=batch_size)
    flips = descent.reachable_flips(posed.kernel, problems.budget)
    outputs = toy.single_step(posed, problems.budget, points, steepest=steepest)
    return outputs | {'reachable': flips / posed.kernel.size}

  static = {
    'network': _networks(problems),
    'batch_size': problems.config.batch_size,
  }
  name = 'steepest' if steepest else 'single'
  return Arm(name, fn, static, _seeds(problems), 'learning_rate', rates)


def variant(
  problems: toy.Problems[toy.BallConfig],
  name: str,
  rates: Sequence[float],
  **estimators: Any,
) -> Arm:
  """Returns the arm of single-step STE of the binary network with other estimators.

  The arm also reports ``affected``, the share of the gradient's entries that differ
  from those of the normal STE: an arm that affects none is inert.

  Args:
    problems: the toy problems of all seeds.
    name: of the arm.
    rates: learning rates.
    **estimators: keywords of `nn.binary_mlp`.
  """

  def fn(batch_size, seed, data, points):
    normal, other = (
      problems.pose('binary', seed, data, batch_size=batch_size, **keywords)
      for keywords in ({}, estimators)
    )
    gradients = [jax.grad(p.search.loss)(p.kernel) for p in (normal, other)]
    outputs = toy.single_step(other, problems.budget, points)
    return outputs | {'affected': tree.share(gradients[0] != gradients[1])}

  static = {'batch_size': problems.config.batch_size}
  return Arm(name, fn, static, _seeds(problems), 'learning_rate', rates)


def multi(
  problems: toy.Problems[toy.BallConfig],
  num_steps: int,
  name: str,
  static: Mapping[str, Sequence[Any]],
  *,
  starts: Sequence[tuple[float, int]] = (),
  norm: types.Norm | None = None,
) -> Arm:
  """Returns an arm of several steps of STE, over step sizes.

  Args:
    problems: the toy problems of all seeds.
    num_steps: number of updates; they are reported as `schedule` says.
    name: of the arm.
    static: axes among ``batch_size`` and ``optimizer`` (default: the largest
      batch, and SGD), besides the network.
    starts: noise amplitudes and draws, as `starts` returns them; empty for no noise,
      and no such axes.
    norm: of the ball; None for that of the study.
  """

  def fn(network, seed, data, points, start=None, **options):
    if start is not None:
      noise, draw = (
        jnp.asarray(values)[start] for values in zip(*starts, strict=True)
      )
      options |= {'noise': noise, 'draw': draw}
    batch_size = options.pop('batch_size', None)
    posed = problems.pose(network, seed, data, batch_size=batch_size)
    path = toy.multi_step(posed, budget, num_steps=num_steps, **options)
    return {name: values[points] for name, values in path.items()}

  budget = problems.budget
  if norm is not None:
    budget = dataclasses.replace(budget, norm=norm)
  static = {'network': _networks(problems)} | dict(static)
  lanes = _seeds(problems) | {
    'step_size': cast(Any, problems.config).step_sizes
  }
  if starts:
    lanes |= {'start': range(len(starts))}
  steps = schedule(num_steps)
  return Arm(name, fn, static, lanes, 'step', steps, starts)


def schedule(num_steps: int) -> tuple[int, ...]:
  """Returns the numbers of updates after which several steps report.

  They are all from 0 to 10, then four in each doubling, and the last.
  """
  dense = min(num_steps, 10)
  doublings = math.log2(num_steps / dense)
  sparse = np.geomspace(dense, num_steps, 1 + math.ceil(4 * doublings))
  return tuple(sorted({*range(dense + 1), *map(round, sparse.tolist())}))


def starts(noise: Sequence[float], num_draws: int) -> list[tuple[float, int]]:
  """Returns the noise amplitude and the draw of every start that differs.

  Without noise all draws are equal, so that there is one.

  Args:
    noise: amplitudes, as fractions of the budget.
    num_draws: number of draws for each amplitude.
  """
  return [
    (float(value), draw)
    for value in noise
    for draw in range(num_draws if value > 0 else 1)
  ]


def noisy(
  problems: toy.Problems[toy.BallConfig], noise: Sequence[float], num_rates: int
) -> Arm:
  """Returns the control arm of noise followed by one scanned step.

  Args:
    problems: the toy problems of all seeds.
    noise: amplitudes, as fractions of the budget.
    num_rates: number of learning rates, evenly spaced from 0.01 to 1 on a log scale.
  """

  def fn(network, seed, noise, data, points):
    posed = problems.pose(network, seed, data)
    return toy.noisy_single_step(posed, problems.budget, points, noise)

  static = {'network': _networks(problems)}
  rates = np.geomspace(0.01, 1.0, num_rates)
  lanes = _seeds(problems) | {'noise': noise}
  return Arm('noisy', fn, static, lanes, 'control_rate', rates)


def restarts(
  problems: toy.Problems[toy.BallConfig], noise: Sequence[float], num_draws: int
) -> Arm:
  """Returns the control arm of random points of the ball, without descent.

  Args:
    problems: the toy problems of all seeds.
    noise: amplitudes, as fractions of the budget.
    num_draws: number of points for each seed and amplitude.
  """

  def fn(network, seed, noise, data, points):
    posed = problems.pose(network, seed, data)
    return toy.restarts(posed, problems.budget, noise, points)

  static = {'network': _networks(problems)}
  lanes = _seeds(problems) | {'noise': noise}
  return Arm('restarts', fn, static, lanes, 'control_draw', range(num_draws))


def _by_noise(outcome, starts):
  """Replaces the axis ``start`` by ``noise`` and ``draw``, over which starts repeat."""
  import xarray

  noise, draws = (
    list(dict.fromkeys(values)) for values in zip(*starts, strict=True)
  )
  where = [
    [starts.index((n, d if (n, d) in starts else 0)) for d in draws]
    for n in noise
  ]
  index = xarray.DataArray(where, {'noise': noise, 'draw': draws})
  return outcome.isel(start=index).drop_vars('start')


def _networks(problems):
  return cast(Any, problems.config).networks


def _seeds(problems):
  return {'seed': problems.config.all_seeds}
