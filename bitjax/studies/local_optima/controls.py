r"""Trains the first estimator longer and with a falling rate, and in full precision.

That flips improve a trained network may mean that its gradient is wrong, or only that
training ended too soon, or that the rate was too large at its end. So the networks are
also trained with a rate that falls to 0 along a cosine, with several times as many
updates, and with both. A full-precision network of the same shape, whose gradient is
exact, has the longest training with a falling rate. It has no flips; each of its weights
has one *move* that is comparable, in one of two senses:

============  ==========================================================
move          what it does
============  ==========================================================
negation      :math:`w \to -w`
flip-sized    :math:`w \to w - 2 \sigma\,\mathrm{sgn}(w)`, with the root
              mean square :math:`\sigma` of its trained layer
============  ==========================================================

If all weights of a layer have one magnitude, as binary ones do, both are the flip. Each
move of a full-precision network costs a computation of all gains, so descents are also
read after a small number of moves, the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from bitjax import nn
from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.local_optima import arms
from bitjax.studies.local_optima import certificates
from bitjax.studies.local_optima import networks

if TYPE_CHECKING:
  import xarray

__all__ = ['MOVES', 'Moves', 'binary', 'full_precision']

MOVES = ('flip-sized', 'negation')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moves:
  """A quantizer that leaves weights as they are, but gives each of them one move.

  Attributes:
    size: by how far a move of `flip-sized` takes a weight towards 0 and beyond.
    negates: whether the move is a negation instead, bool.
  """

  size: types.Array
  negates: types.Array | bool
  num_levels: int = dataclasses.field(default=2, metadata={'static': True})
  uniform: bool = dataclasses.field(default=False, metadata={'static': True})

  @classmethod
  def of(cls, kernel: types.Array, negates: types.Array | bool) -> Moves:
    """Returns the moves of a layer with this kernel."""
    return cls(2 * jnp.sqrt(jnp.mean(jnp.square(kernel))), negates)

  @property
  def staircase(self) -> Moves:
    """Itself, where scans look for a quantizer's levels."""
    return self

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the weights as they are."""
    return x

  def neighbours(self, x: types.Array) -> tuple[types.Array, types.Array]:
    """Returns where weights are after a move up, and down; ``x`` if it is the other."""
    towards = jnp.where(x < 0, self.size, -self.size)
    there = jnp.where(self.negates, -x, x + towards)
    return jnp.maximum(x, there), jnp.minimum(x, there)


def binary(
  problems: toy.Problems,
  sweep: sweeps.Sweep,
  *,
  estimator: str,
  learning_rates: Sequence[float],
  train_steps: int,
  times: Sequence[int],
  max_flips: int,
  few_flips: int,
  stream: int,
) -> xarray.Dataset:
  """Trains an estimator's networks with both schedules and several lengths.

  Args:
    problems: the toy problems of all seeds; the largest batch is the training set.
    sweep: runs the sweeps.
    estimator: one of `networks.ESTIMATORS`, or a name for `quantizers.named`.
    learning_rates: the learning rates of Adam to choose from, for each training.
    train_steps: number of updates of the shortest training.
    times: how many times as many updates the trainings have.
    max_flips: the most flips of a descent.
    few_flips: the number of flips after which a descent is read as well.
    stream: examples whose gains are computed at a time, for certificates.

  Returns:
    A dataset over (updates, schedule, seed), ``updates`` in multiples of
    ``train_steps``. It has the losses ``trained_*``,
    ``descended_*`` (after the best flips of the first layer) and ``few_*`` (after the
    first few of them), in nats, each on ``search`` and ``holdout``, ``num_flips``, and
    what certificates say, by layer. All names begin with ``control_``.
  """
  model, size = problems.model('binary'), max(problems.config.batch_size)

  def fit(learning_rate, trial, *, updates, schedule):
    def train(num_steps):
      rate = networks.schedule(learning_rate, schedule == 1, num_steps)
      return networks.binary(
        problems, (estimator,), 0, rate, trial, num_steps=num_steps
      )

    return jax.lax.switch(
      updates, [functools.partial(train, n * train_steps) for n in times]
    )

  def lane(updates, schedule, seed, arrays, rates):
    trial = problems.trial(seed, arrays)
    rate = rates[updates, schedule]
    variables = fit(rate, trial, updates=updates, schedule=schedule)
    trial = trial._replace(variables=variables)
    first = toy.pose_problem(model, trial, size)
    _, certified = arms.certify(model, trial, size, stream)
    descent = scans.flip_descent(first.search, max_flips)
    outputs = _losses(
      first,
      trained=first.kernel,
      descended=first.kernel + descent.displacement,
      few=_flipped(first.search, descent.moved[:few_flips]),
    )
    return outputs | certified | {'num_flips': descent.num_flips}

  found = _run(
    problems,
    sweep,
    fit,
    lane,
    prefix='control',
    network='binary',
    learning_rates=learning_rates,
    lanes={
      'updates': range(len(times)),
      'schedule': range(len(networks.SCHEDULES)),
    },
  )
  return found.assign_coords(
    updates=list(times), schedule=list(networks.SCHEDULES)
  )


def full_precision(
  problems: toy.Problems,
  sweep: sweeps.Sweep,
  *,
  learning_rates: Sequence[float],
  num_steps: int,
  few_flips: int,
) -> xarray.Dataset:
  """Trains networks of full precision, with a falling rate, and moves their weights.

  Args:
    problems: the toy problems of all seeds; the largest batch is the training set.
    sweep: runs the sweeps.
    learning_rates: the learning rates of Adam to choose from.
    num_steps: number of updates.
    few_flips: the number of moves of a descent.

  Returns:
    A dataset over (move, seed), with the `MOVES`. It has the losses ``trained_*`` and
    ``few_*`` (after the best moves of the first layer) in nats, each on ``search`` and
    ``holdout``, and what certificates say, by layer. All names begin with ``precise_``.
  """
  model, size = (
    problems.model('full_precision'),
    max(problems.config.batch_size),
  )

  def fit(learning_rate, trial, *, move):
    del move  # Networks whose moves differ are trained alike.
    rate = networks.schedule(learning_rate, True, num_steps)
    return networks.full_precision(problems, rate, trial, num_steps=num_steps)

  def lane(move, seed, arrays, rates):
    trial = problems.trial(seed, arrays)
    trial = trial._replace(variables=fit(rates[move], trial, move=move))
    negates = move == MOVES.index('negation')
    first = toy.pose_problem(model, trial, size)
    moves: Any = Moves.of(first.kernel, negates)
    moved = dataclasses.replace(first.search, quantizer=moves)
    descent = scans.flip_descent(moved, few_flips)
    outputs = _losses(
      first, trained=first.kernel, few=first.kernel + descent.displacement
    )
    return outputs | _certify(model, trial, size, negates)

  found = _run(
    problems,
    sweep,
    fit,
    lane,
    prefix='precise',
    network='full_precision',
    learning_rates=learning_rates,
    lanes={'move': range(len(MOVES))},
  )
  return found.assign_coords(move=list(MOVES))


def _run(problems, sweep, fit, lane, *, prefix, network, learning_rates, lanes):
  """Tunes, examines every arm at its rate, and prefixes the names of what it found."""
  tuning, chosen = networks.tune(
    problems,
    sweep,
    fit,
    name=f'{prefix}_tuning',
    network=network,
    learning_rates=learning_rates,
    lanes=lanes,
    width=1,  # Where trainings differ in length, only their own is computed.
  )

  def narrowed(**values):
    found = lane(**values)
    return {name: jnp.asarray(x, jnp.float32) for name, x in found.items()}

  found = sweep(
    narrowed,
    name=prefix,
    lanes={**lanes, 'seed': problems.config.seeds},
    shared={'arrays': problems.arrays, 'rates': jnp.asarray(chosen.values)},
    dims=dict.fromkeys(certificates.FIELDS, ('layer',)),
    coords={'layer': [*problems.layers, 'all']},
    chunk=1,
  )
  found = found.assign({**tuning.data_vars, 'chosen_rate': chosen})
  return found.rename({name: f'{prefix}_{name}' for name in found.data_vars})


def _losses(problem, **kernels):
  """Returns the losses of each kernel on A and B, by its name."""
  return {
    f'{stage}_{name}': loss
    for stage, kernel in kernels.items()
    for name, loss in problem.losses(kernel).items()
  }


def _flipped(view, moved):
  """Returns the kernel after the first flips of a descent; -1 is none."""
  size = view.kernel.size
  counts = jnp.zeros(size + 1, jnp.int32)
  counts = counts.at[jnp.where(moved < 0, size, moved)].add(1)[:size]
  odd = (counts % 2 == 1).reshape(view.kernel.shape)
  return jnp.where(odd, scans.moves(view).destinations[0], view.kernel)


def _certify(model, trial, batch_size, negates):
  """Returns certificates of the moves of a full-precision network's weights."""

  def gains(batch):
    found = []
    for layer, variables in trial.variables['params'].items():
      view = nn.layer_view(
        model, trial.variables, batch.inputs, batch.labels, layer
      )
      moves: Any = Moves.of(variables['kernel'], negates)
      found.append(scans.flip_gains(dataclasses.replace(view, quantizer=moves)))
    return found

  pair = trial.batches[batch_size]
  return certificates.certificates(*certificates.on_both(gains, pair))
