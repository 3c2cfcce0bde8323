"""Runs one training on a data set and measures its result.

The test set is used once, to evaluate the last state. Accuracy on the training set is
measured without augmentation, so that its distance to the test accuracy is the
generalisation gap.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import nn as networks
from bitjax import sizes
from bitjax import types
from bitjax.training import _evaluation
from bitjax.training import _fit
from bitjax.training import _refit
from bitjax.training import _seeds
from bitjax.training import _state

__all__ = ['LAYERED', 'layout', 'outcome']

_PROBED = 128  # Number of examples whose gradients describe the layers.

# Outputs with an axis of epochs; those in LAYERED have an axis of layers as well.
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
  """Returns the axes of the outputs of `outcome`, but for seeds, and their labels.

  Args:
    phases: phases of the training.
    train: the training set.
    batch_size: examples of an update.

  Returns:
    A dict from outputs to axes, and a dict from axes to labels: ``epoch`` (number of
    epochs completed) and ``layer`` (paths of kernels). The axis ``test_byte`` has none.

  Raises:
    BadInput: for images that do not fit the network, or parameters of the network
      that do not fit the optimiser.
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
      **networks.call_options(task.model, train=False),
    ),
    jax.eval_shape(lambda: jax.random.key(0)),
  )['params']
  jax.eval_shape(task.tx.init, params)
  dims: dict[str, tuple[str, ...]] = dict.fromkeys(_CURVES, ('epoch',))
  dims |= dict.fromkeys(LAYERED, ('epoch', 'layer'))
  dims['test_right'] = ('test_byte',)
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
  variables: types.PyTree | Sequence[types.PyTree] | None = None,
  rates: Sequence[float] | None = None,
  tensorboard: bool = False,
  mesh: jax.sharding.Mesh | None = None,
  together: str | None = None,
  refit: _refit.Refit | None = None,
  report: _fit.Reporter | None = None,
) -> dict[str, np.ndarray]:
  """Trains networks side by side and measures the result.

  Args:
    phases: phases of the training, as `Recipe.phases` makes them.
    train: the training set.
    validation: examples that choose the best checkpoint.
    test: examples on which the last state is evaluated.
    batch_size: examples of an update.
    seeds: seeds of the networks; they share the data, but each has its own order.
    folder: folder of checkpoints from which the training resumes; None stores
      nothing.
    variables: variables to start from, or a list of those of each seed; None for
      random weights.
    rates: factors on the learning rate, one for each network; None for 1.
    tensorboard: whether to write event files.
    mesh: devices; see `fit`.
    together: how several seeds run on one device; see `fit`.
    refit: when to fit the widths of every `fitted_sign` again; see `fit`.
    report: told how far the training is; None for no report.

  Returns:
    A dict of arrays [seeds, ...]. For the last state: ``test_accuracy``,
    ``test_loss``, ``clean_train_accuracy``, ``clean_train_loss``; and ``test_right``,
    which test examples are guessed correctly, eight to a byte (``numpy.packbits``), in
    the order of the data. A network that diverged has none. By epoch:
    ``train_loss`` and ``train_accuracy`` (of augmented images), ``validation_loss``,
    ``validation_accuracy``. By epoch and layer: ``flip_ratio`` and `STATISTICS`; with
    ``refit`` also ``width``, that of the layer's inputs, 0 for one without a
    `fitted_sign`.
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
    together=together,
    refit=refit,
    report=report,
  )
  found: dict[str, np.ndarray] = {
    name: fitted.history[name].T for name in _CURVES
  }
  layers = list(_state.kernels(fitted.state.params))
  for name in LAYERED:
    each = [fitted.history[f'{name}/{layer}'].T for layer in layers]
    found[name] = np.stack(each, axis=-1)
  if refit is not None:
    none = np.zeros_like(fitted.history['train_loss'])
    each = [fitted.history.get(f'width/{layer}', none).T for layer in layers]
    found['width'] = np.stack(each, axis=-1)
  evaluate = _evaluation.evaluator(
    phases[-1].task, len(seeds), mesh, _seeds.choose(together, mesh)
  )
  last = _state.variables_of(fitted.state, average=True)
  scores = {
    name: evaluate(last, _batches(part))
    for name, part in (('test', test), ('clean_train', train))
  }
  for name, score in scores.items():
    found[f'{name}_accuracy'] = np.asarray(score.accuracy)
    found[f'{name}_loss'] = np.asarray(score.loss)
  found = {k: v.astype(np.float32) for k, v in found.items()}
  right = np.asarray(scores['test'].right).reshape(len(seeds), -1)
  packed = np.packbits(right[:, : len(test.labels)], axis=1)
  return found | {'test_right': packed}


def _batches(dataset):
  size = min(sizes.here().evaluated, len(dataset.labels))
  return data.padded_batches(dataset, size)
