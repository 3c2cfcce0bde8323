"""Trains the networks that the study examines, and chooses their learning rates.

A *fit* is a function ``(learning_rate, trial) -> variables``. Every arm is tuned alike:
it is trained at each rate on the tuning seeds, and the rate with the lowest mean
held-out loss is the one at which the tested seeds are trained. No other rate is tried on
them, so there is no oracle protocol, which would pick the rate seed by seed on A.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from bitjax import quantizers
from bitjax import sweeps
from bitjax import tree
from bitjax import types
from bitjax.evidence import protocols
from bitjax.studies import toy
from bitjax.studies.toy import dispatch

if TYPE_CHECKING:
  import xarray

__all__ = [
  'ESTIMATORS',
  'SCHEDULES',
  'accuracy',
  'binary',
  'full_precision',
  'keys',
  'schedule',
  'tune',
]

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
SCHEDULES = ('constant', 'cosine')


def schedule(
  learning_rate: types.Scalar, decays: types.Array | bool, num_steps: int
) -> optax.Schedule:
  """Returns a constant rate, or one that falls to 0 along half a cosine.

  Args:
    learning_rate: the rate of the first update.
    decays: whether it falls; may be traced.
    num_steps: the number of updates after which it is 0.
  """
  fall = optax.cosine_decay_schedule(1.0, num_steps)
  return lambda count: learning_rate * jnp.where(decays, fall(count), 1.0)


def keys(trial: toy.Trial) -> types.Array:
  """Returns a trial's keys for batches, random flips and pairs, in this order, [3]."""
  return jax.random.split(jax.random.wrap_key_data(trial.noise), 3)


def binary(
  problems: toy.Problems,
  estimators: Sequence[str],
  estimator: types.Array | int,
  learning_rate: types.Scalar | optax.Schedule,
  trial: toy.Trial,
  *,
  num_steps: int,
) -> types.PyTree:
  """Returns the variables of a binary network that one of several estimators trained.

  Args:
    problems: the toy problems of all seeds; the largest batch is the training set.
    estimators: some of `ESTIMATORS`, or names for `quantizers.named`.
    estimator: index of the one that trains; may be traced.
    learning_rate: of Adam.
    trial: what one seed has drawn.
    num_steps: number of updates; annealed estimators go from progress 0 to 1.
  """

  def fit(chosen: toy.Estimators):
    model = problems.model(
      'binary',
      kernel_estimator=chosen.kernel,
      activation_estimator=chosen.activation,
    )
    return _train(problems, model, learning_rate, trial, num_steps)

  variants = [_variant(name).estimators for name in estimators]
  return dispatch.switch(fit, variants)(estimator)


def full_precision(
  problems: toy.Problems,
  learning_rate: types.Scalar | optax.Schedule,
  trial: toy.Trial,
  *,
  num_steps: int,
) -> types.PyTree:
  """Returns the variables of a full-precision network, trained as `binary` ones are.

  It has the same shape, starts from the same latent weights, and sees the same batches.
  """
  model = problems.model('full_precision')
  return _train(problems, model, learning_rate, trial, num_steps)


def _variant(name):
  if name in _VARIANTS:
    return toy.Variant(name, 0, **_VARIANTS[name])
  return toy.Variant(name, 0, activation=quantizers.named(name))


def _train(problems, model, learning_rate, trial, num_steps):
  training, _ = trial.batches[max(problems.config.batch_size)]
  return toy.train(
    model,
    trial.variables,
    training,
    jnp.arange(training.labels.size),
    keys(trial)[0],
    num_steps=num_steps,
    learning_rate=learning_rate,
    anneal=True,
  )


def accuracy(view: Any, kernel: types.Array) -> types.Array:
  """Returns the share of a view's examples that a kernel classifies correctly."""
  guesses = jnp.argmax(view.logits(kernel), axis=-1)
  return tree.share(guesses == view.labels)


def tune(
  problems: toy.Problems,
  sweep: sweeps.Sweep,
  fit: Callable[..., types.PyTree],
  *,
  name: str,
  network: str,
  learning_rates: Sequence[float],
  lanes: Mapping[str, Any],
  width: int | None = None,
) -> tuple[xarray.Dataset, xarray.DataArray]:
  """Trains every arm on the tuning seeds at every rate, and chooses one rate for each.

  Args:
    problems: the toy problems of all seeds.
    sweep: runs the sweep.
    fit: ``(learning_rate, trial, **axes) -> variables``.
    name: name of the sweep.
    network: the network that is trained, a name in `toy.NETWORKS`.
    learning_rates: the rates to choose from.
    lanes: the axes of the arms, arguments of ``fit``.
    width: arms that are trained at a time; None leaves it to the sweep.

  Returns:
    The losses ``tuning_search`` and ``tuning_holdout`` by arm, ``tuning_seed`` and
    ``learning_rate``; and the chosen rate, by arm.
  """
  found = sweep(
    functools.partial(_losses, problems, fit, network),
    name=name,
    lanes={
      **lanes,
      'seed': problems.config.tuning_seeds,
      'learning_rate': learning_rates,
    },
    shared={'arrays': problems.arrays},
    width=width,
  )
  found = found.rename(
    {name: f'tuning_{name}' for name in found.data_vars}
    | {'seed': 'tuning_seed'}
  )
  chosen = protocols.select(found, ['learning_rate'], 'deployable')
  return found, chosen['learning_rate'].drop_vars('learning_rate')


def _losses(problems, fit, network, *, seed, learning_rate, arrays, **axes):
  """Returns the losses on A and B after training at one learning rate."""
  trial = problems.trial(seed, arrays)
  variables = fit(learning_rate, trial, **axes)
  posed = toy.pose_problem(
    problems.model(network),
    trial._replace(variables=variables),
    max(problems.config.batch_size),
  )
  return posed.losses(posed.kernel)
