"""Checkpoints of a training: the latest, and the best on validation data.

A state is stored as a flat dictionary, path -> array, so that a checkpoint can be read
without the code that made it, and so that two of them can be compared leaf by leaf.
A description of the model is stored with the arrays, because models with the same
arrays can differ in their quantizers. A checkpoint that is damaged is never used: a
training goes on from the one before, or begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import math
import os
import re
from typing import Any
import warnings

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from bitjax import files
from bitjax import types
from bitjax.training import _archive
from bitjax.training import _state

__all__ = [
  'FOLDER',
  'KEPT',
  'Checkpoints',
  'describe',
  'description_of',
  'load_variables',
]

FOLDER = 'checkpoints'  # Relative to the folder of a training.
KEPT = ('latest', 'best')  # 'best' is by the accuracy on validation examples.
_VARIABLES = ('params/', 'collections/', 'average/')


class Checkpoints:
  """The checkpoints in a folder.

  Args:
    folder: a folder for nothing but these checkpoints; created if it is absent.

  Raises:
    BadInput: if it cannot be created. Methods that read raise it too for checkpoints
      of another format.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    self._folder = files.expand(folder).absolute()
    self._known: dict[int, dict[str, Any]] | None = None
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      _archive.tidy(self._folder)
    except OSError as error:
      raise _unusable(self._folder, error) from error

  def check(self) -> None:
    """Writes a checkpoint, reads it and removes it again.

    Raises:
      BadInput: if that fails, so that no training begins which cannot be saved.
    """
    trial = self._folder / '.trial.partial'
    try:
      _archive.write(trial, {'trial': np.zeros(1, np.float32)}, {})
      _archive.facts(trial)
      _archive.load(trial)
      _archive.remove(trial)
    except (OSError, ValueError, _archive.Damaged) as error:
      raise _unusable(self._folder, error) from error

  def description(self) -> dict[str, str]:
    """Returns the description of the latest checkpoint; empty if there is none.

    Checkpoints that are damaged are not counted; a warning names the file.
    """
    known = self._intact()
    return dict(known[max(known)]['description']) if known else {}

  def log(self) -> str | None:
    """Returns the digest of the log that the latest checkpoint was saved with."""
    known = self._intact()
    return known[max(known)].get('log') if known else None

  def restore(
    self, template: _state.TrainState, description: Mapping[str, str]
  ) -> _state.TrainState:
    """Returns the latest state that is not damaged.

    Args:
      template: a state of the same structure; only shapes and dtypes matter.
      description: settings that must equal those of the checkpoint.

    Raises:
      BadInput: naming the first leaf or setting in which they differ, or if there is
        no checkpoint.
    """
    stored = self.description()
    for name in [*description, *stored]:
      here, there = description.get(name), stored.get(name)
      if here != there:
        raise types.BadInput(
          f'{self._folder}: the checkpoint has {name} = {there}, this training '
          f'{here}; name another folder, or train as it began.'
        )
    known = self._intact()
    if not known:
      raise types.BadInput(f'{self._folder} holds no latest checkpoint.')
    try:
      loaded = _archive.load(self._folder / str(max(known)))
    except _archive.Damaged as error:
      raise types.BadInput(
        f'{error}; remove it, and the training goes on from what is left.'
      ) from error
    wanted = _flat(template)
    wrong = _state.mismatch(wanted, loaded)
    if wrong is not None:
      raise types.BadInput(
        f'{self._folder}: the checkpoint does not fit: {wrong}.'
      )
    # A process may have been killed before it deleted what had become needless.
    for step in known.keys() - _kept(known):
      _archive.remove(self._folder / str(step))
    return _unflatten(template, [jnp.asarray(loaded[path]) for path in wanted])

  def save(
    self,
    state: _state.TrainState,
    description: Mapping[str, str],
    accuracy: float | None = None,
    log: str | None = None,
  ) -> None:
    """Saves a state as the latest; with a validation accuracy it may become the best.

    Args:
      state: the state; all other checkpoints are deleted, except for the best.
      description: settings that must be equal when a training resumes from it.
      accuracy: accuracy on validation data; None if the state cannot be the best. A
        state with variables that are not finite never is.
      log: digest of the log's rows up to this state; None for no log.
    """
    step = int(state.step[0])
    arrays = {path: np.asarray(leaf) for path, leaf in _flat(state).items()}
    if accuracy is not None:
      accuracy = float(accuracy)
      if not math.isfinite(accuracy) or not _finite(arrays):
        accuracy = None
    about = {
      'description': dict(description),
      'accuracy': accuracy,
      'log': log,
    }
    earlier = {n: each for n, each in self._intact().items() if n < step}
    _archive.write(self._folder / str(step), arrays, about)
    known = earlier | {step: about}
    kept = _kept(known)
    self._known = {n: each for n, each in known.items() if n in kept}
    _archive.tidy(self._folder, kept)

  def _intact(self) -> dict[int, dict[str, Any]]:
    """Returns step -> what is stored with its checkpoint, without damaged ones."""
    if self._known is None:
      known, damaged = {}, {}
      for step in _archive.steps(self._folder):
        try:
          known[step] = _archive.facts(self._folder / str(step))
        except _archive.Damaged as error:
          damaged[step] = error
      last = max(known, default=0)
      for step, error in damaged.items():
        consequence = 'the training begins anew'
        if step < last:
          consequence = 'the best checkpoint is chosen without it'
        elif last:
          consequence = f'the training goes on from update {last}'
        warnings.warn(f'{error}; {consequence}.', stacklevel=3)
      self._known = known
    return self._known


def load_variables(
  folder: str | os.PathLike[str],
  *,
  which: str = 'latest',
  seed: int = 0,
  average: bool = False,
) -> types.PyTree:
  """Reads a network's variables from the checkpoints of a training.

  Args:
    folder: the folder given to `fit`, or that of its checkpoints.
    which: ``'latest'``, or ``'best'`` on validation data, which is always finite.
    seed: index of the network among those trained side by side.
    average: whether to read the moving average of the variables instead.

  Returns:
    ``{'params': ..., 'batch_stats': ..., ...}`` with NumPy arrays as leaves.

  Raises:
    BadInput: if there is no such checkpoint, or no such network or moving average
      in it, or if a checkpoint that would have to be read is damaged.
  """
  arrays = _read(folder, which, _archive.load)
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


def description_of(
  folder: str | os.PathLike[str], *, which: str = 'latest'
) -> dict[str, str]:
  """Reads what networks a checkpoint of a training holds.

  Args:
    folder: as for `load_variables`.
    which: as for `load_variables`.

  Returns:
    The ``seeds`` of the networks and the ``rates`` that multiply their learning rate, as
    text, the number of the ``phase``, and what `describe` returns of the model.

  Raises:
    BadInput: as `load_variables`.
  """
  return dict(_read(folder, which, _archive.facts)['description'])


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


def _read(folder, which, reader):
  """Returns what ``reader`` reads of the latest or best checkpoint in a folder."""
  types.check_choice('which', which, KEPT)
  path = files.expand(folder).absolute()
  if not path.is_dir():
    raise types.BadInput(f'{folder} is not a folder with checkpoints.')
  found = _archive.steps(path)
  if not found and (path / FOLDER).is_dir():
    path = path / FOLDER
    found = _archive.steps(path)
  try:
    steps = found[-1:] if which == 'latest' else found
    known = {step: _archive.facts(path / str(step)) for step in steps}
    chosen = steps if which == 'latest' else _ranked(known)[:1]
    if chosen:
      return reader(path / str(chosen[0]))
  except _archive.Damaged as error:
    raise types.BadInput(
      f'the {which} checkpoint cannot be read: {error}; train again, or remove its '
      'folder to read another.'
    ) from error
  why = ''
  if found and which == 'best':
    why = ': none has a validation accuracy and finite variables'
  raise types.BadInput(f'{folder} holds no {which} checkpoint{why}.')


def _kept(known):
  """Returns the steps of the latest checkpoint and of the best."""
  return {max(known), *_ranked(known)[:1]}


def _ranked(known):
  """Returns the steps that may be the best, the best one first."""
  scores = {step: about['accuracy'] for step, about in known.items()}
  able = {k: v for k, v in scores.items() if v is not None and math.isfinite(v)}
  return sorted(able, key=lambda step: (able[step], step), reverse=True)


def _finite(arrays):
  """Returns whether all variables are finite numbers, for all networks."""
  return all(
    bool(np.isfinite(leaf).all())
    for name, leaf in arrays.items()
    if name.startswith(_VARIABLES) and jnp.issubdtype(leaf.dtype, jnp.floating)
  )


def _unusable(folder, error):
  reason = getattr(error, 'strerror', None) or types.one_line(error)
  return types.BadInput(
    f'folder: {folder} cannot hold checkpoints ({reason}); name another.'
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
