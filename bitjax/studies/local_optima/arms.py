"""Trains networks and examines where they end by flipping single weights.

One network is trained with each estimator and learning rate on each seed's batch A,
which is its whole training set. For each seed, an estimator's learning rate is the one
with the lowest held-out loss over the other seeds. The network trained at that rate is
then examined:

* What share of all flips, in all layers, would lower the training loss, and would they
  lower the loss on the held-out batch B as well (`scans.flip_certificate`)?
* How far does the training loss fall if the best flip of the first layer is made again
  and again until none is left (`scans.flip_descent`), and how does the loss on B
  change?
* If weights of that optimum are flipped at random and the descent is repeated, does it
  end lower?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import lanes
from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import sweeps
from bitjax import tree
from bitjax import types
from bitjax.evidence import protocols
from bitjax.studies import toy
from bitjax.studies.toy import dispatch

if TYPE_CHECKING:
  import xarray

__all__ = ['ESTIMATORS', 'SHARES', 'compare']

_VARIANTS: Mapping[str, dict[str, Any]] = {
  'normal': {},
  'window 0.5': {'activation': quantizers.window(0.5)},
  'window 2': {'activation': quantizers.window(2.0)},
  'identity': {'activation': quantizers.identity()},
  'Bi-Real': {'activation': quantizers.polynomial()},
  'SwishSign': {'activation': quantizers.swish_sign(5.0)},
  'EDE': {'activation': quantizers.error_decay()},
  'ReSTE': {'activation': quantizers.reste()},
  'DSQ': {'activation': quantizers.dsq(0.2)},
}
ESTIMATORS = tuple(_VARIANTS)

SHARES = (
  'improving',
  'significant',
  'mirrored',
  'holds',
  'significant_holds',
  'random_holds',
)
_PER_LAYER = (*SHARES, 'is_optimum', 'best', 'mean_holdout')
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
  """Trains and examines one network for each estimator, rate and seed.

  Args:
    problems: the toy problems of all seeds; the largest batch is the training set.
    sweep: runs the sweeps.
    estimators: some of `ESTIMATORS`, or names for `quantizers.named`, whose
      estimators act on the activations.
    learning_rates: the learning rates of Adam to choose from.
    train_steps: number of updates; annealed estimators go from progress 0 to 1.
    max_flips: the most flips of a descent.
    perturbed: numbers of weights that are flipped at random.
    num_pairs: pairs of the best moves that are made together.
    stream: examples whose gains are computed at a time, for certificates.

  Returns:
    A dataset over (estimator, seed, ...). At the ``chosen_rate``, it has the losses
    ``trained_*`` and ``descended_*`` in nats and ``accuracy_*``, each on ``search`` (A)
    and ``holdout`` (B); the losses at all rates are ``tuning_*``, over (estimator,
    seed, learning_rate). What certificates say is given by layer and for ``all``;
    ``perturbed_search`` and ``again_*``, after the second descent, by the number of
    perturbed weights. ``num_flips`` and ``certified`` are about the first descent, and
    ``additivity`` is the gain of pairs over the sum of their single gains.
  """
  dims: dict[str, tuple[str, ...]] = dict.fromkeys(_PER_LAYER, ('layer',))
  dims |= dict.fromkeys(_PER_PERTURBATION, ('perturbed',))
  lanes_of = {
    'estimator': range(len(estimators)),
    'seed': problems.config.seeds,
  }
  fit = functools.partial(
    _fit, problems, tuple(estimators), train_steps=train_steps
  )
  tuning = sweep(
    functools.partial(_tuning, problems, fit),
    name='tuning',
    lanes=lanes_of | {'learning_rate': learning_rates},
    shared={'arrays': problems.arrays},
  )
  chosen = protocols.deployable(tuning, ['learning_rate']).learning_rate
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
    lanes=lanes_of,
    shared={
      'arrays': problems.arrays,
      'rates': jnp.asarray(chosen.transpose('estimator', 'seed').values),
    },
    dims=dims,
    coords={
      'layer': [*problems.layers, 'all'],
      'perturbed': np.asarray(perturbed),
    },
    chunk=1,
  )
  chosen = chosen.drop_vars('learning_rate')
  tuning = tuning.rename({name: f'tuning_{name}' for name in tuning.data_vars})
  found = found.assign({**tuning.data_vars, 'chosen_rate': chosen})
  return found.assign_coords(estimator=list(estimators))


def _fit(problems, estimators, estimator, learning_rate, trial, *, train_steps):
  """Returns the variables after training with one estimator at one learning rate."""
  training, _ = trial.batches[max(problems.config.batch_size)]

  def fit(chosen: toy.Estimators):
    return toy.train(
      problems.model(
        'binary',
        kernel_estimator=chosen.kernel,
        activation_estimator=chosen.activation,
      ),
      trial.variables,
      training,
      jnp.arange(training.labels.size),
      _keys(trial)[0],
      num_steps=train_steps,
      learning_rate=learning_rate,
      anneal=True,
    )

  variants = [_variant(name).estimators for name in estimators]
  return dispatch.switch(fit, variants)(estimator)


def _variant(name):
  if name in _VARIANTS:
    return toy.Variant(name, 0, **_VARIANTS[name])
  return toy.Variant(name, 0, activation=quantizers.named(name))


def _keys(trial):
  return jax.random.split(jax.random.wrap_key_data(trial.noise), 3)


def _tuning(problems, fit, *, estimator, seed, learning_rate, arrays):
  """Returns the losses on A and B after training at one learning rate."""
  trial = problems.trial(seed, arrays)
  variables = fit(estimator, learning_rate, trial)
  posed = toy.pose_problem(
    problems.model('binary'),
    trial._replace(variables=variables),
    max(problems.config.batch_size),
  )
  return posed.losses(posed.kernel)


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
  training, other = trial.batches[max(problems.config.batch_size)]
  keys = _keys(trial)
  rate = rates[estimator, jnp.argmax(arrays['seeds'] == seed)]
  variables = fit(estimator, rate, trial)
  model = problems.model('binary')
  trial = trial._replace(variables=variables)
  size = training.labels.size
  whole = toy.pose_problem(model, trial, size, layer=None)
  first = toy.pose_problem(model, trial, size)

  def make_view(inputs, labels):
    return nn.network_view(model, variables, inputs, labels)

  gains = scans.stream_gains(
    make_view, training.inputs, training.labels, stream
  )
  held = scans.stream_gains(make_view, other.inputs, other.labels, stream)
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
    f'accuracy_{name}': _accuracy(view, whole.kernel)
    for name, view in (('search', whole.search), ('holdout', whole.holdout))
  }
  outputs |= {
    'num_flips': descent.num_flips,
    'certified': descent.certified,
    'additivity': jnp.sum(pairs.together) / jnp.sum(pairs.separately),
  }
  outputs |= again | _certificates(whole.search, gains, held)
  return {name: jnp.asarray(x, jnp.float32) for name, x in outputs.items()}


def _certificates(view, gains, held):
  """Returns what certificates say of each layer and, last, of all, [layers + 1]."""
  network = view.product

  def by_layer(found: scans.FlipGains):
    parts = zip(
      network.split(found.gains),
      network.split(found.second_moments),
      strict=True,
    )
    for layer_gains, moments in parts:
      yield dataclasses.replace(
        found, gains=layer_gains, second_moments=moments, near_ties=None
      )
    yield found

  certificates = [
    scans.flip_certificate(on_training, on_other)
    for on_training, on_other in zip(
      by_layer(gains), by_layer(held), strict=True
    )
  ]
  return {
    name: jnp.stack([getattr(each, name) for each in certificates])
    for name in _PER_LAYER
  }


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


def _accuracy(view: scans.LayerView, kernel: types.Array) -> types.Array:
  guesses = jnp.argmax(view.logits(kernel), axis=-1)
  return tree.share(guesses == view.labels)
