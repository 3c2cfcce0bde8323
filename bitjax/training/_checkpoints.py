"""Checkpoints of a training: the latest, and the best on validation data.

Orbax writes them; a checkpoint is whole or absent, whatever kills the process. A
state is stored as a flat dictionary, path -> array, so that a checkpoint can be read
without the code that made it, and so that two of them can be compared leaf by leaf.
A description of the model is stored with the arrays, because models with the same
arrays can differ in their quantizers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import os
import pathlib
import re
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from bitjax import types
from bitjax.training import _state

__all__ = ['KEPT', 'Checkpoints', 'describe', 'load_variables']

KEPT = ('latest', 'best')  # 'best' is by the accuracy on validation examples.
_METRIC = 'validation_accuracy'


class Checkpoints:
  """The checkpoints in a folder.

  Args:
    folder: a folder for nothing but these checkpoints; created if it is absent.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    self._folder = pathlib.Path(folder).absolute()
    self._checkpointer: Any = _open(self._folder, cleanup=True)

  def description(self) -> dict[str, str]:
    """Returns the description of the latest checkpoint; empty if there is none."""
    latest = self._checkpointer.latest
    if latest is None:
      return {}
    found = self._checkpointer.metadata(latest.step).custom_metadata
    return dict((found or {}).get('description', {}))

  def restore(
    self, template: _state.TrainState, description: Mapping[str, str]
  ) -> _state.TrainState:
    """Returns the latest state.

    Args:
      template: a state of the same structure; only shapes and dtypes matter.
      description: settings that must equal those of the checkpoint.

    Raises:
      BadInput: naming the first leaf or setting in which they differ.
    """
    stored = self.description()
    for name in [*description, *stored]:
      here, there = description.get(name), stored.get(name)
      if here != there:
        raise types.BadInput(
          f'{self._folder}: the checkpoint has {name} = {there}, this training '
          f'{here}; name another folder, or train as it began.'
        )
    latest = self._checkpointer.latest
    wanted = _flat(template)
    wrong = _state.mismatch(
      wanted, dict(self._checkpointer.metadata(latest.step).metadata)
    )
    if wrong is not None:
      raise types.BadInput(
        f'{self._folder}: the checkpoint does not fit: {wrong}.'
      )
    abstract = {
      path: np.empty(leaf.shape, leaf.dtype) for path, leaf in wanted.items()
    }
    loaded = self._checkpointer.load(latest.step, abstract)
    return _unflatten(template, [jnp.asarray(loaded[path]) for path in wanted])

  def save(
    self,
    state: _state.TrainState,
    description: Mapping[str, str],
    accuracy: float | None = None,
  ) -> None:
    """Saves a state as the latest; with a validation accuracy it may become the best.

    Args:
      state: the state; older checkpoints are deleted, except for the best.
      description: settings that must be equal when a training resumes from it.
      accuracy: accuracy on validation data; None if the state cannot be the best.
    """
    step = int(state.step[0])
    known = [found.step for found in self._checkpointer.checkpoints]
    self._checkpointer.save(
      step,
      {path: np.asarray(leaf) for path, leaf in _flat(state).items()},
      force=True,
      overwrite=step in known,
      metrics=None if accuracy is None else {_METRIC: float(accuracy)},
      custom_metadata={'description': dict(description)},
    )

  def close(self) -> None:
    """Ends the threads of Orbax's writer."""
    self._checkpointer.close()


def load_variables(
  folder: str | os.PathLike[str],
  *,
  which: str = 'latest',
  seed: int = 0,
  average: bool = False,
) -> types.PyTree:
  """Reads a network's variables from the checkpoints of a training.

  Args:
    folder: folder of the checkpoints.
    which: ``'latest'``, or ``'best'`` on validation data.
    seed: index of the network among those trained side by side.
    average: whether to read the moving average of the variables instead.

  Returns:
    ``{'params': ..., 'batch_stats': ..., ...}`` with NumPy arrays as leaves.

  Raises:
    BadInput: if there is no such checkpoint, or no such network or moving average
      in it.
  """
  types.check_choice('which', which, KEPT)
  path = pathlib.Path(folder).absolute()
  if not path.is_dir():
    raise types.BadInput(f'{folder} is not a folder with checkpoints.')
  checkpointer: Any = _open(path, cleanup=False)
  try:
    found = list(checkpointer.checkpoints)
    if which == 'best':
      found = [each for each in found if each.metrics]
      found.sort(key=lambda each: each.metrics[_METRIC])
    if not found:
      raise types.BadInput(f'{folder} holds no {which} checkpoint.')
    arrays = checkpointer.load(found[-1].step)
  except (OSError, KeyError) as error:
    raise types.BadInput(f'{folder} holds no checkpoint of bitjax.') from error
  finally:
    checkpointer.close()
  starts = ('average/',) if average else ('params/', 'collections/')
  flat = {}
  for name, leaf in arrays.items():
    if not name.startswith(starts):
      continue
    if not 0 <= seed < leaf.shape[0]:
      raise types.BadInput(
        f'seed must be in [0, {leaf.shape[0]}), the networks in {folder}; got '
        f'{seed}.'
      )
    inner = name.removeprefix('average/').removeprefix('collections/')
    flat[tuple(inner.split('/'))] = np.asarray(leaf)[seed]
  if not flat:
    what = 'moving average' if average else 'checkpoint of bitjax'
    raise types.BadInput(f'{folder} holds no {what}.')
  return traverse_util.unflatten_dict(flat)


def describe(model: nn.Module) -> dict[str, str]:
  """Returns a model's fields as text; quantizers by their functions and numbers."""
  found = {'model': type(model).__name__}
  for field in dataclasses.fields(model):
    if field.name not in ('parent', 'name'):
      found[field.name] = _text(getattr(model, field.name))
  return found


def _text(value: Any) -> str:
  if isinstance(value, jax.tree_util.Partial):
    parts = [*value.args, *value.keywords.values()]
    inner = ', '.join(_text(part) for part in parts)
    return f'{_text(value.func)}({inner})'
  if isinstance(value, Callable) and hasattr(value, '__qualname__'):
    return f'{value.__module__}.{value.__qualname__}'
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    fields = dataclasses.fields(value)
    inner = ', '.join(
      f'{f.name}={_text(getattr(value, f.name))}' for f in fields
    )
    return f'{type(value).__name__}({inner})'
  if isinstance(value, tuple):
    return f'({", ".join(_text(part) for part in value)})'
  return re.sub(r' at 0x[0-9a-f]+', '', str(value))


def _open(folder, *, cleanup):
  policies = ocp.training.preservation_policies
  best: Any = policies.BestN(
    get_metric_fn=lambda metrics: metrics[_METRIC],
    n=1,
    keep_checkpoints_without_metrics=False,
  )
  keep: Any = policies.AnyPreservationPolicy([policies.LatestN(1), best])
  return ocp.training.Checkpointer(
    folder,
    preservation_policy=keep,
    cleanup_tmp_directories=cleanup,
  )


def _flat(state):
  found, _ = jax.tree.flatten_with_path(_plain(state))
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in found
  }


def _unflatten(state, leaves):
  plain = jax.tree.unflatten(jax.tree.structure(_plain(state)), leaves)
  return plain._replace(key=jax.random.wrap_key_data(plain.key))


def _plain(state):
  """Returns the state, or its shapes, with the data of its key instead of the key."""
  if isinstance(state.key, jax.ShapeDtypeStruct):
    return state._replace(key=jax.eval_shape(jax.random.key_data, state.key))
  return state._replace(key=jax.random.key_data(state.key))
