"""Runs the arms of a study that spends a ball in many ways, each of which is one sweep.

All arms report alike: losses on A, which an arm may look at, and on B, which it may not,
along an axis of its own, such as the moves made so far. Lanes are the networks of all
seeds, in all states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bitjax import sweeps
from bitjax.evidence import protocols
from bitjax.studies.toy import config
from bitjax.studies.toy import moves
from bitjax.studies.toy import searches
from bitjax.studies.toy import states

if TYPE_CHECKING:
  import xarray

__all__ = ['Arm', 'Axes', 'collect', 'prefixes']

Axes = Mapping[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Arm:
  """One sweep of the study.

  Attributes:
    name: prefix of the names of the arm's results.
    search: a function of a pose, as those of `searches` and `promises`.
    static: axes of static values, such as balls and layers.
    axis: the axis along which losses are read, with its labels; empty for none.
    search_axes: further axes, over which the search itself runs, with their labels.
    scalar_outputs: outputs that do not vary along ``axis``.
    outputs: outputs that vary along ``axis``.
    lanes: axes of traced values, besides states and seeds.
    options: further keyword arguments of the search.
  """

  name: str
  search: Callable[..., moves.Outputs]
  static: Axes
  axis: Axes
  search_axes: Axes = dataclasses.field(default_factory=dict)
  scalar_outputs: Sequence[str] = ()
  outputs: Sequence[str] = ('search', 'holdout')
  lanes: Axes = dataclasses.field(default_factory=dict)
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def collect(
  networks: states.States,
  sweep: sweeps.Sweep,
  arms: Sequence[Arm],
  *,
  chunk: int,
) -> xarray.Dataset:
  """Runs the arms and merges their results into one dataset.

  Args:
    networks: the networks of all seeds, in all states.
    sweep: runs the sweeps.
    arms: the arms to run.
    chunk: lanes that are saved together.

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
      chunk=chunk,
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


def prefixes(
  problems: config.Problems[config.BallConfig],
  layers: Sequence[str],
  *,
  first: int = 1,
) -> list[int]:
  """Returns 0, powers of 2, and last the number of all moves of the largest layer.

  Args:
    problems: the toy problems of all seeds.
    layers: names in `searches.LAYERS`.
    first: the first of the powers.
  """
  seed = problems.config.seeds[0]
  sizes = []
  for name in layers:
    posed = jax.eval_shape(
      lambda arrays, name=name: searches.pose_layers(
        problems, problems.trial(seed, arrays), name
      ),
      problems.arrays,
    )
    sizes.append(posed.search.kernel.size)
  size = max(sizes)
  powers = range(first.bit_length() - 1, (size - 1).bit_length())
  return [0, *(2**power for power in powers), size]
