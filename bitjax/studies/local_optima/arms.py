"""Trains networks and examines where they end by flipping single weights.

One network is trained with each estimator on each seed's batch A, which is its whole
training set, at the learning rate that is best for the estimator on the tuning seeds
(`networks.tune`). It is then examined:

* What share of all flips, in all layers, would lower the training loss, and would they
  lower the loss on the held-out batch B as well (`scans.flip_certificate`)?
* How far does the training loss fall if the best flip of the first layer is made again
  and again until none is left (`scans.flip_descent`), and how does the loss on B
  change?
* If weights of that optimum are flipped at random and the descent is repeated, does it
  end lower?
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import lanes
from bitjax import nn
from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.local_optima import certificates
from bitjax.studies.local_optima import networks

if TYPE_CHECKING:
  import xarray

__all__ = ['certify', 'compare']

_PER_PERTURBATION = (
  'perturbed_search',
  'again_search',
  'again_holdout',
  'again_certified',
)


def compare(
  problems: toy.Problems,
  sweep: sweeps.Sweep,
  *,
  estimators: Sequence[str],
  learning_rates: Sequence[float],
  train_steps: int,
  max_flips: int,
  perturbed: Sequence[int],
  num_pairs: int,
  stream: int,
) -> xarray.Dataset:
  """Trains and examines one network for each estimator and tested seed.

  Args:
    problems: the toy problems of all seeds; the largest batch is the training set.
    sweep: runs the sweeps.
    estimators: some of `networks.ESTIMATORS`, or names for `quantizers.named`, whose
      estimators act on the activations.
    learning_rates: the learning rates of Adam to choose from.
    train_steps: number of updates; annealed estimators go from progress 0 to 1.
    max_flips: the most flips of a descent.
    perturbed: numbers of weights that are flipped at random.
    num_pairs: pairs of the best moves that are made together.
    stream: examples whose gains are computed at a time, for certificates.

  Returns:
    A dataset over (estimator, seed, ...). At the ``chosen_rate`` of the estimator, it
    has the losses ``trained_*`` and ``descended_*`` in nats and ``accuracy_*``, each on
    ``search`` (A) and ``holdout`` (B). What certificates say is given by layer and for
    ``all``; ``perturbed_search`` and ``again_*``, after the second descent, by the
    number of perturbed weights. ``num_flips`` and ``certified`` are about the first
    descent, ``together`` and ``separately`` are the gains of pairs of flips, and the
    sums of their gains alone, in nats, added over the pairs. The losses on the tuning
    seeds at all rates are ``tuning_*``.
  """
  dims: dict[str, tuple[str, ...]]
  dims = dict.fromkeys(certificates.FIELDS, ('layer',))
  dims |= dict.fromkeys(_PER_PERTURBATION, ('perturbed',))
  axes = {'estimator': range(len(estimators))}

  def fit(learning_rate, trial, *, estimator):
    return networks.binary(
      problems,
      estimators,
      estimator,
      learning_rate,
      trial,
      num_steps=train_steps,
    )

  tuning, chosen = networks.tune(
    problems,
    sweep,
    fit,
    name='tuning',
    network='binary',
    learning_rates=learning_rates,
    lanes=axes,
  )
  found = sweep(
    functools.partial(
      _lane,
      problems=problems,
      fit=fit,
      max_flips=max_flips,
      perturbed=tuple(perturbed),
      num_pairs=num_pairs,
      stream=stream,
    ),
    name='optima',
    lanes={**axes, 'seed': problems.config.seeds},
    shared={'arrays': problems.arrays, 'rates': jnp.asarray(chosen.values)},
    dims=dims,
    coords={
      'layer': [*problems.layers, 'all'],
      'perturbed': np.asarray(perturbed),
    },
    chunk=1,
  )
  found = found.assign({**tuning.data_vars, 'chosen_rate': chosen})
  return found.assign_coords(estimator=list(estimators))


def _lane(
  estimator,
  seed,
  arrays,
  rates,
  *,
  problems,
  fit,
  max_flips,
  perturbed,
  num_pairs,
  stream,
):
  trial = problems.trial(seed, arrays)
  keys = networks.keys(trial)
  variables = fit(rates[estimator], trial, estimator=estimator)
  model, size = problems.model('binary'), max(problems.config.batch_size)
  trial = trial._replace(variables=variables)
  whole = toy.pose_problem(model, trial, size, layer=None)
  first = toy.pose_problem(model, trial, size)
  gains, certified = certify(model, trial, size, stream)
  descent = scans.flip_descent(first.search, max_flips)
  again = lanes.each(
    functools.partial(_again, first, max_flips=max_flips),
    {'number': jnp.asarray(perturbed)},
    shared={'kernel': first.kernel + descent.displacement, 'key': keys[1]},
  )
  end = first.losses(first.kernel + descent.displacement)
  pairs = scans.pair_gains(
    whole.search,
    keys[2],
    num_pairs,
    among=jnp.argsort(-gains.gains)[: 2 * num_pairs],
  )
  start = whole.losses(whole.kernel)
  outputs = {f'trained_{name}': loss for name, loss in start.items()}
  outputs |= {f'descended_{name}': loss for name, loss in end.items()}
  outputs |= {
    f'accuracy_{name}': networks.accuracy(view, whole.kernel)
    for name, view in (('search', whole.search), ('holdout', whole.holdout))
  }
  outputs |= {
    'num_flips': descent.num_flips,
    'certified': descent.certified,
    'together': jnp.sum(pairs.together),
    'separately': jnp.sum(pairs.separately),
  }
  outputs |= again | certified
  return {name: jnp.asarray(x, jnp.float32) for name, x in outputs.items()}


def certify(
  model: nn.MLP, trial: toy.Trial, batch_size: int, stream: int
) -> tuple[scans.FlipGains, dict[str, types.Array]]:
  """Evaluates all flips of a binary network on A and on B.

  Args:
    model: the binary network.
    trial: its variables, and the batches.
    batch_size: the size of the batches.
    stream: examples whose gains are computed at a time.

  Returns:
    The gains of all flips on A, and what `certificates.certificates` says.
  """
  view = toy.pose_problem(model, trial, batch_size, layer=None).search

  def make_view(inputs, labels):
    return nn.network_view(model, trial.variables, inputs, labels)

  def gains(batch):
    return scans.stream_gains(make_view, batch.inputs, batch.labels, stream)

  found, held = certificates.on_both(gains, trial.batches[batch_size])
  network: Any = view.product
  parts = (certificates.layers(network, each) for each in (found, held))
  return found, certificates.certificates(*parts)


def _again(problem, number, kernel, key, *, max_flips):
  """Flips ``number`` weights at random, and descends again."""
  view = dataclasses.replace(problem.search, kernel=kernel)
  draw = jax.random.uniform(
    jax.random.fold_in(key, number), kernel.shape, jnp.float32
  )
  chosen = draw <= jnp.sort(draw.reshape(-1))[number - 1]
  flipped = jnp.where(chosen, scans.moves(view).destinations[0], kernel)
  view = dataclasses.replace(view, kernel=flipped)
  descent = scans.flip_descent(view, max_flips)
  end = problem.losses(flipped + descent.displacement)
  return {
    'perturbed_search': view.loss(flipped),
    'again_search': end['search'],
    'again_holdout': end['holdout'],
    'again_certified': descent.certified,
  }
