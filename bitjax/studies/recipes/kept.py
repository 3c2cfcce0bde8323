"""Trains networks whose last weights are kept, so that other trainings start from them.

The training of a seed then serves all arms and learning rates that start from its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import nn
from bitjax import sweeps
from bitjax import training

if TYPE_CHECKING:
  import xarray

__all__ = ['Kept', 'keep']

_PROBED = 128


class Kept:
  """The last weights of networks.

  Args:
    results: over (axis, seed, ...), with ``weights``, and ``curve`` if there is one.
    axis: the axis of the phases.
    layouts: for each label, the length of a vector of variables, and what makes
      variables of it.
  """

  def __init__(
    self,
    results: xarray.Dataset,
    axis: str,
    layouts: Mapping[Any, tuple[int, Callable[[Any], Any]]],
  ):
    self._results, self._axis, self._layouts = results, axis, layouts

  def variables(self, label: Any, seeds: Sequence[int]) -> list[Any]:
    """Returns the variables of some seeds, as `training.fit` takes them."""
    size, restored = self._layouts[label]
    rows = self._at(label, seeds).weights.values
    return [restored(row[:size]) for row in rows]

  def curve(self, label: Any, seeds: Sequence[int]) -> np.ndarray:
    """Returns the validation accuracy of some seeds, [seeds, epochs]."""
    return self._at(label, seeds).curve.values

  def _at(self, label, seeds):
    return self._results.sel({self._axis: label, 'seed': list(seeds)})


def keep(
  sweep: sweeps.Sweep,
  phases: Mapping[Any, Sequence[training.Phase]],
  train: data.Dataset,
  *,
  name: str,
  axis: str,
  seeds: Sequence[int],
  batch_size: int,
  validation: data.Dataset | None = None,
  given: Callable[[Any, Sequence[int]], list[Any]] | None = None,
  rate: float = 1.0,
  together: str | None = None,
  chunk: int | None = None,
) -> Kept:
  """Trains every seed in every way.

  Args:
    sweep: the run.
    phases: label -> phases; those without ``validation`` may end with networks of any
      shapes.
    train: the training set.
    name: name of the sweep.
    axis: name of the axis of the labels.
    seeds: seeds of the networks.
    batch_size: examples of an update.
    validation: examples that are evaluated by epoch, for a ``curve``; None for none.
    given: (label, seeds) -> variables to start from; None for random weights.
    rate: factor on the learning rate.
    together: as in `training.fit`.
    chunk: networks at a time, as in `sweeps.Sweep.hosted`.
  """
  labels = sorted(phases)
  layouts = {
    label: _layout(phases[label][-1].task, train.images[:1]) for label in labels
  }
  longest = max(size for size, _ in layouts.values())
  dims, coords = {'weights': ('weight',)}, {'weight': np.arange(longest)}
  described: dict[str, Any] = {}
  if validation is not None:
    _, epochs = training.layout(phases[labels[0]], train, batch_size)
    dims['curve'], coords['epoch'] = ('epoch',), epochs['epoch']
    # As many as `training.outcome` takes to describe the layers in the log.
    probed = min(_PROBED, len(train.labels)) // 4 * 4
    described = {
      'validation': data.padded_batches(validation, batch_size),
      'probe': data.Batch(
        jnp.asarray(train.images[:probed]), jnp.asarray(train.labels[:probed])
      ),
    }

  def fit(*, seed, folder, mesh, report, **labelled):
    numbers, label = seed.tolist(), labelled[axis]
    fitted = training.fit(
      phases[label],
      data.device_feeds(train, batch_size, numbers),
      numbers,
      variables=None if given is None else given(label, numbers),
      rates=None if rate == 1 else [rate] * len(numbers),
      together=together,
      folder=folder,
      mesh=mesh,
      report=report,
      **described,
    )
    variables = training.variables_of(fitted.state, average=True)
    each = (
      jax.tree.map(lambda leaf, at=at: np.asarray(leaf[at]), variables)
      for at in range(len(numbers))
    )
    vectors = [np.asarray(flatten_util.ravel_pytree(one)[0]) for one in each]
    rest = longest - layouts[label][0]
    found = {'weights': np.stack([np.pad(row, (0, rest)) for row in vectors])}
    if validation is not None:
      found['curve'] = fitted.history['validation_accuracy'].T
    return found

  found = sweep.hosted(
    fit,
    name=name,
    lanes={'seed': seeds},
    static={axis: labels},
    dims=dims,
    coords=coords,
    chunk=chunk,
  )
  return Kept(found, axis, layouts)


def _layout(task, images) -> tuple[int, Callable[[Any], Any]]:
  """Returns the length of a network's variables as a vector, and what restores them."""
  prepared = task.prepare(jnp.asarray(images))
  shapes = jax.eval_shape(
    lambda key: task.model.init(
      key, prepared, **nn.call_options(task.model, train=False)
    ),
    jax.random.key(0),
  )
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  flat, restored = flatten_util.ravel_pytree(zeros)
  return flat.size, restored
