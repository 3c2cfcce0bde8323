r"""Fits the widths of estimators while a network trains, at intervals, layer by layer.

A width is a parameter of a layer's sign (`fitted_sign`) that no gradient moves; of several
families of estimators, so is the family. At intervals it becomes the one whose
prediction on one batch is nearest to the exact gains of flips on another, and the other
way round (`fit_width`); it stays where none can be judged, as where all gains are equal.
Both are the batches of the next two updates, without augmentation, so that what is fitted
is a function of the state and the feed: a training that resumes fits the same widths.

Signs are fitted from the last to the first, each by the quantized layer in front of it,
with fitted ones behind. Scales that depend on the latent weights are held, as a flip that
keeps magnitudes leaves them. Normalisations use their running statistics, as in
evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import data
from bitjax import nn
from bitjax import scans
from bitjax import types
from bitjax.training import _fitted_sign
from bitjax.training import _problems
from bitjax.training import _state
from bitjax.training import _task
from bitjax.training import _windows

__all__ = ['Fits', 'Refit', 'refit']

_NAME, _FAMILY = _fitted_sign.WIDTH, _fitted_sign.FAMILY
_SAMPLE = 1 << 23  # Seed of the draws of weights, the same for all networks.

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Refit:
  """When `fit` fits the widths and families of all `fitted_sign` again, and how.

  Attributes:
    every: number of updates between two fits; the first is before the first update.
    widths: what to choose from, in the units of the estimators, > 0; kept as a tuple.
    sample: weights of a layer whose exact gains are computed, as many of each output
      channel, and two at least (`scans.draw_sample`); of a smaller layer, all.

  Raises:
    BadInput: for a number below 1, or for no widths or one that is not positive.
  """

  every: int
  widths: tuple[float, ...] = (0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.1)
  sample: int = 256

  def __post_init__(self):
    types.check_integer('every', self.every, 1)
    types.check_integer('sample', self.sample, 1)
    try:
      widths = tuple(self.widths)
    except TypeError:
      widths = ()
    if not widths:
      got = types.shown(self.widths)
      raise types.BadInput(f'widths must be numbers, at least one; got {got}.')
    for width in widths:
      types.check_positive('widths', width, finite=True)
    # Static: lists and arrays have no hash.
    object.__setattr__(self, 'widths', tuple(map(float, widths)))


@functools.partial(jax.jit, static_argnames=('model', 'options'))
def refit(
  model: Any,
  variables: types.PyTree,
  halves: Sequence[tuple[types.Array, types.Array]],
  key: types.Array,
  options: Refit,
  progress: types.Scalar = 1.0,
) -> types.PyTree:
  """Returns the variables of a network with all widths fitted.

  One program for each model, options and shapes, whichever network and update it is.

  Args:
    model: the network, called as in `fit`; static, as ``options`` are.
    variables: its variables.
    halves: two batches, each (images as the model sees them, labels).
    key: random key, from which the sample of weights is drawn.
    options: how widths are fitted.
    progress: of training, for estimators that anneal.

  Raises:
    BadInput: if no sign is a `fitted_sign` behind a quantized layer, and what `fit_width`
      and `nn.layer_view` object to.
  """
  held = _held(variables['params'])
  layers = []
  for layer in _layers(variables['params']):

    def view(half, layer=layer):
      found = nn.layer_view(
        model,
        variables,
        half[0],
        half[1],
        layer,
        train=False,
        progress=progress,
      )
      return found if found.coupling == 'none' else found.freeze_scale()

    one = view(halves[0])
    found = [_owner(stage, held) for stage in _windows.signs(one.tail)]
    if one.quantizer is not None and found and found[0] is not None:
      layers.append(((one, view(halves[1])), found))
  if not layers:
    raise types.BadInput(
      'refit needs a network with training.fitted_sign(...) behind a quantized layer.'
    )
  fitted: dict[Path | None, dict[str, types.Array]] = {}
  for views, found in sorted(layers, key=lambda row: len(row[1])):
    if found[0] in fitted:
      continue  # By another layer that feeds the same sign.
    own = [_with(view, found, fitted) for view in views]
    coordinates = None
    if own[0].kernel.size > options.sample:
      drawn = jax.random.fold_in(key, len(fitted))
      coordinates = scans.draw_sample(own[0], options.sample, drawn).coordinates
    sign = next(_windows.signs(own[0].tail))
    families = _bound(sign.quantizer).quantizer.levels.families
    best = _windows.fit_width(
      own[0],
      own[1],
      families,
      jnp.asarray(options.widths, jnp.float32),
      coordinates=coordinates,
    )
    chosen = {_NAME: best.width}
    if len(families) > 1:
      chosen[_FAMILY] = jax.nn.one_hot(best.family, len(families))
    before = _bound(sign.quantizer).qparams
    fitted[found[0]] = {
      name: jnp.where(jnp.isfinite(best.score), value, before[name])
      for name, value in chosen.items()
    }
  return {**variables, 'params': _put(variables['params'], fitted)}


class Fits:
  """Fits widths in the course of a training, and measures how long that takes.

  Attributes:
    share: share of the time of updates and fits that fits took.
  """

  def __init__(
    self,
    options: Refit | None,
    tasks: Sequence[_task.Task],
    feeds: Sequence[data.Feed],
    mesh: jax.sharding.Mesh | None,
  ):
    if options is not None and mesh is not None:
      raise types.BadInput('refit needs one device: pass no mesh.')
    for task in tasks if options is not None else ():
      if not isinstance(task.kind, _problems.Classification):
        raise types.BadInput(
          'refit needs tasks of classes, since gains are those of cross-entropy; got '
          f'{task.kind}.'
        )
    self._options, self._feeds = options, feeds
    self._fitting = self._all = 0.0
    self._clock = time.perf_counter()

  @property
  def share(self) -> float:
    """Share of the time so far; 0 before any."""
    return self._fitting / self._all if self._all else 0.0

  def before(
    self, step: int, task: _task.Task, state: _state.TrainState
  ) -> _state.TrainState:
    """Returns the state before an update, with new widths if it is time to fit them."""
    self._clock = time.perf_counter()
    options = self._options
    if options is None or step % options.every:
      return state
    every = _state.variables_of(state)
    params = [
      _of_one(
        options, step, task, jax.tree.map(lambda x, i=i: x[i], every), feed
      )
      for i, feed in enumerate(self._feeds)
    ]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    jax.block_until_ready(params)
    self._fitting += time.perf_counter() - self._clock
    return state._replace(params=params)

  def next(self, step: int) -> float:
    """Returns the next update after ``step`` before which widths are fitted."""
    if self._options is None:
      return math.inf
    return (step // self._options.every + 1) * self._options.every

  def trained(self) -> None:
    """Notes that the updates since the last call of `before` are made."""
    self._all += time.perf_counter() - self._clock

  def row(self, state: _state.TrainState) -> dict[str, types.Array]:
    """Returns a row of the log: ``width/LAYER`` and ``family/LAYER`` -> [seeds]."""
    if self._options is None:
      return {}
    widths, families = (_held(state.params, n) for n in (_NAME, _FAMILY))
    chosen = {p: jnp.argmax(leaf, axis=-1) for p, leaf in families.items()}
    return {
      '/'.join((path[-1], *path[:-2])): leaf
      for path, leaf in (widths | chosen).items()
    }


def _of_one(options, step, task, variables, feed):
  """Returns the parameters of one network with new widths; as they were if NaN."""
  if not all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(variables)):
    return variables['params']  # It diverged.
  fed = feed.chunk(step, 2)
  batches = [
    feed.take(feed.arrays, jax.tree.map(lambda x, i=i: x[i], fed))
    for i in range(2)
  ]
  halves = tuple((task.prepare(b.inputs), b.labels) for b in batches)
  key = jax.random.fold_in(jax.random.key(_SAMPLE), step)
  progress = task.progress_at(jnp.asarray(step))
  found = refit(task.model, variables, halves, key, options, progress)
  return found['params']


def _bound(quantize) -> Any:
  """Returns the bound quantizer inside a stage's; None if it is another one."""
  bound = getattr(quantize, 'quantize', quantize)
  return bound if hasattr(bound, 'qparams') else None


def _owner(stage, held):
  """Returns the path of the width of a stage's sign, or None if it has none."""
  bound = _bound(stage.quantizer)
  if bound is None:
    return None
  leaf = bound.qparams.get(_NAME)
  return next((path for path, other in held.items() if other is leaf), None)


def _held(params, name=_NAME) -> dict[Path, types.Array]:
  """Returns the widths that the parameters of a network hold, by path."""
  found = {}
  for path, leaf in jax.tree.leaves_with_path(params):
    names = tuple(entry.key for entry in path)
    if names[-2:] == ('input_quantizer', name):
      found[names] = leaf
  return found


def _layers(params):
  """Returns the names of all layers with a kernel."""
  paths = (
    tuple(entry.key for entry in path)
    for path, _ in jax.tree.leaves_with_path(params)
  )
  return ['/'.join(path[:-1]) for path in paths if path[-1] == 'kernel']


def _with(view, owners, fitted):
  """Returns a view whose signs have the widths that are fitted already."""
  queue = iter(owners)

  def replaced(stages):
    found = []
    for stage in stages:
      if isinstance(stage, scans.Residual):
        body = replaced(stage.body)
        stage = scans.Residual(body, stage.shortcut)
      elif isinstance(stage, scans.Activation) and stage.kind == 'sign':
        path = next(queue)
        if path in fitted:
          bound = dataclasses.replace(
            _bound(stage.quantizer), qparams=fitted[path]
          )
          outer: Any = stage.quantizer
          quantizer = dataclasses.replace(outer, quantize=bound)
          stage = dataclasses.replace(stage, quantizer=quantizer)
      found.append(stage)
    return tuple(found)

  return dataclasses.replace(view, tail=replaced(view.tail))


def _put(params, fitted):
  """Returns parameters with new widths and families."""
  new = {
    (*path[:-1], name): value
    for path, own in fitted.items()
    for name, value in own.items()
  }

  def put(path, leaf):
    own = new.get(tuple(entry.key for entry in path))
    return leaf if own is None else own.astype(leaf.dtype)

  return jax.tree.map_with_path(put, params)
