"""Networks that an estimator trains on digits: accuracy, and nearness to a 1-flip optimum.

A binary MLP is trained on A by Adam, with progress from 0 to 1; the learning rate is
chosen on tuning seeds. Then every flip of every layer is evaluated exactly on A, and on
B, which is as large and was not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import TYPE_CHECKING

import jax.numpy as jnp

from bitjax import quantizers
from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.local_optima import certificates
from bitjax.studies.local_optima import networks as networks_lib

if TYPE_CHECKING:
  import xarray

__all__ = ['CERTIFIED', 'fit', 'train']

CERTIFIED = ('improving', 'significant', 'holds', 'random_holds', 'is_optimum')


def train(
  problems: toy.Problems,
  sweep: sweeps.Sweep,
  estimator: quantizers.Estimator,
  *,
  rates: Sequence[float],
  num_steps: int,
  tuning_seeds: Sequence[int],
) -> xarray.Dataset:
  """Trains and examines the networks of all tested seeds.

  Args:
    problems: the problems of tested and tuning seeds; A is the training set.
    sweep: runs the sweeps.
    estimator: the estimator of all activations, while training.
    rates: learning rates of Adam to choose from.
    num_steps: number of updates.
    tuning_seeds: seeds of ``problems`` whose loss on B chooses the rate.

  Returns:
    By seed: ``train_accuracy``, ``test_accuracy``, losses ``train_loss`` and ``test_loss``
    in nats, and by layer, the last of which is ``'all'``, the fields `CERTIFIED` of
    `scans.Certificate`; the attribute ``digits_rate`` is the chosen rate.
  """
  fitted = functools.partial(fit, problems, estimator, num_steps)
  tuned = sweep(
    functools.partial(_tuned, problems, fitted),
    name='digits_tuning',
    lanes={'seed': tuning_seeds, 'rate': rates},
    shared={'arrays': problems.arrays},
  )
  losses = tuned['loss'].fillna(float('inf')).mean('seed')
  rate = losses['rate'][int(losses.argmin('rate'))].item()
  tested = [s for s in problems.config.seeds if s not in set(tuning_seeds)]
  kernels = sweep(
    functools.partial(_trained, problems, fitted),
    name='digits_training',
    lanes={'seed': tested},
    shared={'arrays': problems.arrays, 'rate': jnp.asarray(rate, jnp.float32)},
    dims={layer: (f'{layer}_in', f'{layer}_out') for layer in problems.layers},
  )
  # This program knows no estimator, so it is compiled once for all of them.
  found = sweep(
    functools.partial(_examined, problems),
    name='digits',
    lanes={'seed': tested},
    shared={
      'arrays': problems.arrays,
      'tested': jnp.asarray(tested),
      'kernels': {k: jnp.asarray(v.values) for k, v in kernels.items()},
    },
    dims=dict.fromkeys(CERTIFIED, ('part',)),
    coords={'part': [*problems.layers, 'all']},
    chunk=4,
  )
  return found.assign_attrs(digits_rate=rate)


def fit(
  problems: toy.Problems,
  estimator: quantizers.Estimator,
  num_steps: int,
  rate: types.Scalar,
  trial: toy.Trial,
) -> types.PyTree:
  """Returns the variables of a network that the estimator has trained on A."""
  model = problems.model('binary', activation_estimator=estimator)
  batch, _ = trial.batches[max(problems.config.batch_size)]
  return toy.train(
    model,
    trial.variables,
    batch,
    jnp.arange(batch.labels.size),
    networks_lib.keys(trial)[0],
    num_steps=num_steps,
    learning_rate=rate,
    anneal=True,
  )


def _posed(problems, trial, layer):
  size = max(problems.config.batch_size)
  model = problems.model('binary')  # Estimators change no loss.
  return toy.pose_problem(model, trial, size, layer=layer)


def _tuned(problems, fitted, *, seed, rate, arrays):
  trial = problems.trial(seed, arrays)
  trial = trial._replace(variables=fitted(rate, trial))
  posed = _posed(problems, trial, problems.layers[0])
  return {'loss': posed.losses(posed.kernel)['holdout']}


def _trained(problems, fitted, *, seed, arrays, rate):
  params = fitted(rate, problems.trial(seed, arrays))['params']
  return {layer: params[layer]['kernel'] for layer in problems.layers}


def _examined(problems, *, seed, arrays, tested, kernels):
  index = jnp.argmax(tested == seed)
  trial = problems.trial(seed, arrays)
  params = {layer: {'kernel': k[index]} for layer, k in kernels.items()}
  trial = trial._replace(variables={'params': params})
  posed = [_posed(problems, trial, layer) for layer in problems.layers]
  first = posed[0]
  losses = first.losses(first.kernel)
  found = certificates.certificates(
    [scans.flip_gains(one.search) for one in posed],
    [scans.flip_gains(one.holdout) for one in posed],
  )
  return {name: found[name] for name in CERTIFIED} | {
    'train_loss': losses['search'],
    'test_loss': losses['holdout'],
    'train_accuracy': networks_lib.accuracy(first.search, first.kernel),
    'test_accuracy': networks_lib.accuracy(first.holdout, first.kernel),
  }
