"""From data to numbers: one training, and all that is measured of it.

The test set is looked at once, by the last state. Accuracy on the training set is
measured without augmentation, so that its distance to the test accuracy is one of
generalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import types
from bitjax.training import _evaluation
from bitjax.training import _fit
from bitjax.training import _state

__all__ = ['LAYERED', 'layout', 'outcome']

_EVALUATED = 500  # Examples of a batch that is evaluated.
_PROBED = 128  # Examples whose gradients describe the layers.

# By epoch, and those that are by layer as well.
_CURVES = (
  'train_loss',
  'train_accuracy',
  'validation_loss',
  'validation_accuracy',
)
LAYERED = ('flip_ratio', *_evaluation.STATISTICS)


def layout(
  phases: Sequence[_fit.Phase], train: data.Dataset, batch_size: int
) -> tuple[dict[str, tuple[str, ...]], dict[str, Any]]:
  """Names the axes of what `outcome` returns, behind that of seeds.

  Args:
    phases: of the training.
    train: the training set.
    batch_size: examples of an update.

  Returns:
    Axes by output, and labels by axis: ``epoch`` (passes that are made) and
    ``layer`` (paths of kernels).

  Raises:
    ValueError: for a network that these images do not fit, or an optimiser that
      its parameters do not.
  """
  period = len(train.labels) // batch_size
  steps = [*range(period, phases[-1].until + 1, period)]
  if not steps or steps[-1] != phases[-1].until:
    steps.append(phases[-1].until)
  task = phases[0].task
  params = jax.eval_shape(
    lambda key: task.model.init(
      {'params': key, 'quantizer': key},
      task.prepare(jnp.asarray(train.images[:1])),
      train=False,
    ),
    jax.eval_shape(lambda: jax.random.key(0)),
  )['params']
  jax.eval_shape(task.tx.init, params)
  dims: dict[str, tuple[str, ...]] = dict.fromkeys(_CURVES, ('epoch',))
  dims |= dict.fromkeys(LAYERED, ('epoch', 'layer'))
  coords = {
    'epoch': np.asarray(steps) / period,
    'layer': list(_state.kernels(params)),
  }
  return dims, coords


def outcome(
  phases: Sequence[_fit.Phase],
  train: data.Dataset,
  validation: data.Dataset,
  test: data.Dataset,
  *,
  batch_size: int,
  seeds: Sequence[int],
  folder: str | os.PathLike[str] | None = None,
  variables: types.PyTree | None = None,
  rates: Sequence[float] | None = None,
  tensorboard: bool = False,
  mesh: jax.sharding.Mesh | None = None,
  report: _fit.Reporter | None = None,
) -> dict[str, np.ndarray]:
  """Trains, and measures once what came out.

  Args:
    phases: as `Recipe.phases` makes them.
    train: to train on.
    validation: to choose the best checkpoint by.
    test: to judge by, at the end.
    batch_size: examples of an update.
    seeds: networks side by side; they share the data, each has its own order.
    folder: where a training goes on; None keeps nothing.
    variables: what to start from; None for random weights.
    rates: factors on the learning rate, one for each network; None for 1.
    tensorboard: whether to write event files.
    mesh: devices; see `fit`.
    report: is told how far it is.

  Returns:
    [seeds, ...]: ``test_accuracy``, ``test_loss``, ``clean_train_accuracy``,
    ``clean_train_loss``; by epoch ``train_loss``, ``train_accuracy`` (augmented),
    ``validation_loss``, ``validation_accuracy``; by epoch and layer ``flip_ratio``
    and `STATISTICS`.
  """
  feeds = data.device_feeds(train, batch_size, [int(seed) for seed in seeds])
  probed = min(_PROBED, len(train.labels)) // 4 * 4
  fitted = _fit.fit(
    phases,
    feeds,
    [int(seed) for seed in seeds],
    validation=_batches(validation),
    probe=data.Batch(
      jnp.asarray(train.images[:probed]), jnp.asarray(train.labels[:probed])
    ),
    variables=variables,
    rates=rates,
    folder=folder,
    tensorboard=tensorboard,
    mesh=mesh,
    report=report,
  )
  found: dict[str, np.ndarray] = {
    name: fitted.history[name].T for name in _CURVES
  }
  layers = list(_state.kernels(fitted.state.params))
  for name in LAYERED:
    each = [fitted.history[f'{name}/{layer}'].T for layer in layers]
    found[name] = np.stack(each, axis=-1)
  evaluate = _evaluation.evaluator(phases[-1].task, len(seeds), mesh)
  last = _state.variables_of(fitted.state, average=True)
  for name, part in (('test', test), ('clean_train', train)):
    scores = evaluate(last, _batches(part))
    found[f'{name}_accuracy'] = np.asarray(scores.accuracy)
    found[f'{name}_loss'] = np.asarray(scores.loss)
  return {k: v.astype(np.float32) for k, v in found.items()}


def _batches(dataset):
  size = min(_EVALUATED, len(dataset.labels))
  return data.padded_batches(dataset, size)
