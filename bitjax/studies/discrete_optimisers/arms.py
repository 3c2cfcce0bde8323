"""Runs every method on every network: tuned on some seeds, tested on others, and timed.

A program does one thing for a list of *cells*: (start, number of the seed, setting). Tuning and
testing share it. Settings have the lowest mean loss on B over the tuning seeds after
the whole budget, for each method, network and start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import itertools
import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import descent
from bitjax import lanes
from bitjax import scans
from bitjax import sweeps
from bitjax import tree
from bitjax import types
from bitjax.evidence import protocols
from bitjax.studies import toy
from bitjax.studies.discrete_optimisers import flips
from bitjax.studies.discrete_optimisers import gradients
from bitjax.studies.discrete_optimisers import methods
from bitjax.studies.discrete_optimisers import networks

if TYPE_CHECKING:
  import xarray

__all__ = [
  'DESCENT',
  'GENETIC',
  'GRADIENTS',
  'METHODS',
  'SETTINGS',
  'compare',
  'program',
]

GRADIENTS = tuple(gradients.METHODS)
METHODS: dict[str, methods.Method] = gradients.METHODS | flips.METHODS
SETTINGS = 4
DESCENT = '1-flip descent'
GENETIC = 'genetic'
CERTIFIED = ('improving', 'significant', 'holds')
_CHUNK = 8
_EFFORT = ('effort',)
_FULL = methods.EFFORTS.index(1)

Run = Callable[..., tuple[Any, float, float]]


def program(fn: Callable[..., Any]) -> Run:
  """Compiles a function when it is first called, and times it.

  Returns:
    A function of the same arguments that returns what ``fn`` returns, the processor time
    and the time that it took, in seconds, without compilation.
  """
  compiled: list[Any] = []

  def run(*args):
    if not compiled:
      compiled.append(jax.jit(fn).lower(*args).compile())
    process, wall = time.process_time(), time.perf_counter()
    found = jax.block_until_ready(compiled[0](*args))
    return found, time.process_time() - process, time.perf_counter() - wall

  return run


def compare(problems: toy.Problems, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Runs every method on every network.

  Args:
    problems: of the study; its configuration lists the networks.
    sweep: runs the sweeps.

  Returns:
    A dataset over (signs, arm, start, seed, effort), losses in nats: ``search`` on A and
    ``holdout`` on B, ``moved`` (the share of signs that differ from the start) and
    ``seconds`` of processor time for all efforts of one seed, with ``wall``, and
    ``chosen``, the number of the setting. Of 1-flip descent, without efforts:
    ``descended_search``, ``descended_holdout``, ``descended_moved``,
    ``num_flips``, ``certified``, ``descent_seconds``. Of what was reached with the
    whole budget: the shares ``improving``, ``significant`` and ``holds`` of single
    flips (`scans.flip_certificate`). Of random flips, as many as the
    genetic algorithm made: ``random_search``, ``random_holdout``. Of tuning seeds:
    ``tuning_holdout``. ``optimum`` is the lowest loss of the tiny network. Where the gains of
    all flips take too long there are no descent and no shares.
  """
  import xarray

  found = []
  dataset = problems.config.reduced(problems.dataset)
  for own in networks.opened(problems.config, dataset):
    one = _Runs(own, sweep)()
    found.append(one.expand_dims(signs=[own.network.signs]))
  merged = xarray.concat(found, 'signs', join='outer', data_vars='all')
  return merged.assign_attrs(gradients=_spent(problems.config).gradients)


def _spent(config):
  size = max(config.batch_size)
  return methods.Spent(config.updates, min(size, methods.BATCH), size)


class _Runs:
  """All sweeps of one network."""

  def __init__(self, own: Any, sweep: sweeps.Sweep):
    self._own, self._sweep = own, sweep
    self._config = own.config
    self._spent = _spent(own.config)
    self._arrays = own.arrays
    self._names = own.config.names
    self._seeds = list(self._config.all_seeds)
    self._made: dict[int, Run] = {}  # Programs of methods.

  def __call__(self) -> xarray.Dataset:
    """Returns everything about the network."""
    import xarray

    tested = list(self._config.seeds)
    tuning = list(self._config.tuning_seeds)
    trained = self._cells(
      'checkpoint', self._checkpoint, {'seed': self._seeds},
      dims={'weights': ('weight',)},
    )  # fmt: skip
    self._weights = jnp.asarray(trained.weights.values)
    options = {
      'static': {'arm': self._names},
      'dims': dict.fromkeys(('search', 'holdout', 'moved'), _EFFORT)
      | {'signs_of': ('byte',)},
      'coords': {'effort': list(methods.EFFORTS)},
    }
    axes = {'start': range(len(self._own.starts)), 'seed': tuning}
    tried = self._cells(
      'tuning', self._method, axes | {'choice': range(SETTINGS)}, **options
    )
    tried = tried[['holdout']].rename(
      seed='tuning_seed', holdout='tuning_holdout'
    )
    last = tried.isel(effort=_FULL, drop=True)
    chosen = protocols.select(last, ['choice'], 'deployable')['choice']
    # Where every setting diverged, any will do.
    self._chosen = np.nan_to_num(chosen.transpose('arm', 'start').values)
    found = self._cells(
      'methods', self._tested, axes | {'seed': tested}, **options
    )
    parts = [
      found.drop_vars('signs_of'),
      tried,
      chosen.drop_vars('choice').to_dataset(name='chosen'),
    ]
    tests = axes | {'seed': tested}
    if self._own.exact:
      parts += self._exact(found.signs_of.values, tests)
    if GENETIC in self._names:
      parts.append(self._random(found.moved.sel(arm=GENETIC), tests))
    if self._own.network.hidden == networks.TINY:
      best = self._cells('optimum', self._optimum, {'seed': tested})
      parts.append(best[['optimum']])
    found = xarray.merge(parts, join='outer', combine_attrs='drop')
    return found.assign_coords(start=list(self._own.starts))

  def _exact(self, bits, tests):
    """Descends by single flips, and looks which are left after each method."""
    descended = self._cells(
      'descent', self._descend, tests, dims={'signs_of': ('byte',)}
    )
    bits = np.concatenate([bits, descended.signs_of.values[None]])
    self._bits = jnp.asarray(bits.astype(np.uint8))
    certified = self._cells(
      'certificates', self._certify, {'arm': range(len(bits))} | tests
    )
    certified = certified.assign_coords(arm=[*self._names, DESCENT])
    return [
      descended.drop_vars(('signs_of', 'wall')).rename(
        search='descended_search', holdout='descended_holdout',
        moved='descended_moved', seconds='descent_seconds',
      ),
      certified.drop_vars(('seconds', 'wall')),
    ]  # fmt: skip

  def _random(self, moved, tests):
    """Makes as many random flips as the genetic algorithm made."""
    moved = moved.transpose('start', 'seed', 'effort')
    numbers = np.rint(moved.values * self._own.network.signs)
    self._numbers = jnp.asarray(numbers.astype(np.int32))
    found = self._cells(
      'random', self._random_flips, tests,
      dims=dict.fromkeys(('random_search', 'random_holdout'), _EFFORT),
      coords={'effort': list(methods.EFFORTS)},
    )  # fmt: skip
    return found.drop_vars(('seconds', 'wall'))

  def _cells(
    self,
    name: str,
    make: Callable[[int], Run],
    axes: Mapping[str, Sequence[int]],
    *,
    static: Mapping[str, Sequence[str]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
  ) -> xarray.Dataset:
    """Runs a program on the product of some axes, a few cells at a time."""
    axes = {key: list(values) for key, values in axes.items()}
    table = np.array([*itertools.product(*axes.values())], np.int32)
    made = functools.cache(make)

    def run(*, cell, arm=None, folder, report, mesh):
      del folder, report, mesh
      lane = made(None if arm is None else self._names.index(arm))
      parts = []
      for first in range(0, len(cell), _CHUNK):
        own = cell[first : first + _CHUNK]
        # Always as many cells, so that one program serves all.
        rows = table[np.resize(own, _CHUNK)]
        given = {key: rows[:, k] for k, key in enumerate(axes)}
        found, seconds, wall = lane(given)
        each = {'seconds': seconds / _CHUNK, 'wall': wall / _CHUNK}
        parts.append(
          {key: np.asarray(value)[: len(own)] for key, value in found.items()}
          | {
            key: np.full(len(own), value, np.float32)
            for key, value in each.items()
          }
        )
      return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}

    found = self._sweep.hosted(
      run,
      name=f'{name}_{self._own.network.signs}',
      static=static,
      lanes={'cell': range(len(table))},
      dims=dims,
      coords=coords,
      chunk=_CHUNK,
      spread=True,
    )
    shape = [len(values) for values in axes.values()]
    return _unstacked(found, axes, shape)

  def _program(self, lane: Callable[..., dict[str, Any]], **shared: Any) -> Run:
    """Returns a function of the axes, compiled when it is first called."""

    @program
    def run(given, shared):
      return lanes.each(lane, given, shared=shared)

    return lambda given: run(given, shared)

  def _posed(self, start, seed, weights, arrays):
    number = jnp.argmax(arrays['seeds'] == seed)
    return self._own.pose(start, seed, weights[number], arrays)

  def _checkpoint(self, arm):
    del arm

    def lane(seed, arrays):
      return {'weights': self._own.checkpoint(seed, arrays)}

    return self._program(lane, arrays=self._arrays)

  def _method(self, arm):
    if arm not in self._made:  # Tuning and testing share a program.
      self._made[arm] = self._searching(arm)
    return self._made[arm]

  def _searching(self, arm):
    method = METHODS[self._names[arm]]

    def lane(start, seed, choice, weights, arrays):
      posed, key = self._posed(start, seed, weights, arrays)
      chosen = {
        name: jnp.asarray([one[name] for one in method.settings])[choice]
        for name in method.settings[0]
      }
      kernels = method.run(posed.search, key, chosen, self._spent)
      kernels = jnp.concatenate([posed.kernel[None], kernels])
      found = jax.lax.map(posed.losses, kernels)
      moved = (kernels < 0) != (posed.kernel < 0)[None]
      return found | {
        'moved': jax.vmap(tree.share)(moved),
        'signs_of': _packed(kernels[_FULL]),
      }

    return self._program(lane, weights=self._weights, arrays=self._arrays)

  def _tested(self, arm):
    run = self._method(arm)
    choices = self._chosen[arm].astype(np.int32)
    return lambda given: run(given | {'choice': choices[given['start']]})

  def _descend(self, arm):
    del arm

    def lane(start, seed, weights, arrays):
      posed, _ = self._posed(start, seed, weights, arrays)
      found = scans.flip_descent(posed.search, self._config.max_flips)
      kernel = posed.kernel + found.displacement
      moved = (kernel < 0) != (posed.kernel < 0)
      return posed.losses(kernel) | {
        'moved': tree.share(moved),
        'num_flips': found.num_flips,
        'certified': found.certified.astype(jnp.float32),
        'signs_of': _packed(kernel),
      }

    return self._program(lane, weights=self._weights, arrays=self._arrays)

  def _certify(self, arm):
    del arm

    def lane(arm, start, seed, bits, seeds, weights, arrays):
      posed, _ = self._posed(start, seed, weights, arrays)
      own = bits[arm, start, jnp.argmax(seeds == seed)]
      kernel = _unpacked(own, posed.kernel)
      gains = (
        scans.flip_gains(dataclasses.replace(view, kernel=kernel))
        for view in (posed.search, posed.holdout)
      )
      found = scans.flip_certificate(*gains)
      # Without improving flips, none of them holds.
      return {name: jnp.nan_to_num(getattr(found, name)) for name in CERTIFIED}

    seeds = jnp.asarray(self._config.seeds)
    return self._program(
      lane, bits=self._bits, seeds=seeds, weights=self._weights,
      arrays=self._arrays,
    )  # fmt: skip

  def _random_flips(self, arm):
    del arm

    def lane(start, seed, numbers, seeds, weights, arrays):
      posed, key = self._posed(start, seed, weights, arrays)

      def flip(number):
        budget = types.Budget(number.astype(jnp.float32), 'flips')
        same = jax.random.clone(key)  # More flips include fewer.
        return posed.kernel + descent.noise(same, posed.kernel, budget, 1.0)

      own = numbers[start, jnp.argmax(seeds == seed)]
      found = jax.lax.map(lambda number: posed.losses(flip(number)), own)
      return {f'random_{name}': losses for name, losses in found.items()}

    seeds = jnp.asarray(self._config.seeds)
    return self._program(
      lane, numbers=self._numbers, seeds=seeds, weights=self._weights,
      arrays=self._arrays,
    )  # fmt: skip

  def _optimum(self, arm):
    del arm

    def lane(seed, weights, arrays):
      posed, _ = self._posed(0, seed, weights, arrays)
      every = types.Budget(float(posed.kernel.size), 'flips')
      found = scans.exhaustive(posed.search, every)
      return {'optimum': found.loss - found.decrease}

    return self._program(lane, weights=self._weights, arrays=self._arrays)


def _unstacked(found, axes, shape):
  """Returns a dataset with the axes of cells in the place of their number."""
  import xarray

  variables = {}
  for name, values in found.data_vars.items():
    at = values.dims.index('cell')
    data = values.values.reshape(
      *values.shape[:at], *shape, *values.shape[at + 1 :]
    )
    dims = *values.dims[:at], *axes, *values.dims[at + 1 :]
    variables[name] = dims, data
  coords = {n: c.values for n, c in found.coords.items() if n != 'cell'}
  return xarray.Dataset(variables, coords | axes)


def _packed(kernel):
  return jnp.packbits((kernel < 0).reshape(-1))


def _unpacked(bits, like):
  negative = jnp.unpackbits(bits, count=like.size).reshape(like.shape)
  size = jnp.maximum(jnp.abs(like), jnp.finfo(like.dtype).tiny)
  return jnp.where(negative == 1, -size, size)
