r"""One update of one network, and many of them as one compiled loop.

The loop's number of updates is traced, so that one program serves whole chunks, the
rest of an epoch and the end of a phase alike. The random numbers of an update depend
only on its number and the network's key.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import dataclasses
import functools
from typing import Any

from flax import core
from flax import linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from bitjax import data
from bitjax import memory
from bitjax import nn as networks
from bitjax import tree
from bitjax import types
from bitjax.training import _losses
from bitjax.training import _problems
from bitjax.training import _schedules
from bitjax.training import _seeds
from bitjax.training import _signals
from bitjax.training import _state

__all__ = ['Task', 'batch_split', 'check_batch_split', 'loop']

_DRAWN = 0xFFFFFFFF  # Folded into a seed's key; no number of an update.


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """A network and how it is trained: everything except data and state.

  Attributes:
    model: called as ``model.apply(variables, images, train=..., progress=...)``, or
      without those of the two that its ``__call__`` does not take. If it takes no
      ``progress``, its quantized layers get it all the same.
    tx: the optimiser.
    num_classes: number of classes of the labels; None if there is a ``problem``.
    prepare: images as stored -> images as the model sees them, for evaluation.
    augment: (key, images as stored, targets) -> (images as the model sees them,
      targets), for training; None for ``prepare``.
    progress: step -> progress in [0, 1]. None for one that grows evenly from 0 at the
      first update to 1 at the last, counted over all phases of `fit`; a task that is
      used without `fit` needs a schedule.
    smoothing: label smoothing, in [0, 1).
    distillation: a teacher, of a classification; None for none.
    average: decay of the moving average of all variables, in (0, 1); None for
      none. At update t it is ``min(average, (1 + t) / (10 + t))``, smaller at first.
    problem: the loss and the score, such as a `Reconstruction`; None for those of a
      `Classification`.
    signal: what takes the place of the gradient of binary kernels, such as `CoFlips`; of
      a classification without smoothing and teacher, whose images have one label each.
      None for the gradient itself.

  Raises:
    BadInput: for a ``smoothing`` or an ``average`` out of range, for a model with
      a list among its fields, for classes, smoothing, a teacher or a signal beside a
      problem, and for a signal beside smoothing or a teacher.
  """

  model: nn.Module
  tx: optax.GradientTransformation
  num_classes: int | None
  prepare: Callable[[types.Array], types.Array]
  augment: data.Augmentation | None = None
  progress: Callable[[types.Array], types.Scalar] | None = None
  smoothing: float = 0.0
  distillation: _losses.Distillation | None = None
  average: float | None = None
  problem: _problems.Problem | None = None
  signal: _signals.Signal | None = None

  def __post_init__(self):
    try:
      hash(self.model)
    except TypeError:
      raise types.BadInput(
        'model must have fields that can be hashed, such as tuples instead of lists '
        f'(nn.Sequential((...))); got a {type(self.model).__name__}.'
      ) from None
    if self.problem is None:
      types.check_integer('num_classes', self.num_classes, 1)
    types.check_fraction('smoothing', self.smoothing)
    if self.problem is not None:
      for name in ('num_classes', 'smoothing', 'distillation', 'signal'):
        if getattr(self, name):
          raise types.BadInput(
            f'{name} is for classifications, and must be left out beside a problem; '
            f'got {types.shown(getattr(self, name))}.'
          )
    if self.signal is not None and (self.smoothing or self.distillation):
      raise types.BadInput(
        'signal is of the labels alone; leave out smoothing and distillation.'
      )
    if self.average is not None:
      types.check_open_interval('average', self.average, 0.0, 1.0)

  @property
  def kind(self) -> _problems.Problem:
    """The problem: the one given, or the classification."""
    if self.problem is not None:
      return self.problem
    return _problems.Classification(
      types.check_integer('num_classes', self.num_classes, 1)
    )

  def lasting(self, num_steps: int) -> Task:
    """Returns the task of a training of so many updates: one that has a ``progress``.

    Args:
      num_steps: number of updates, for the default of ``progress``.

    Returns:
      This task if it has a ``progress``; the same task for the same number, so that
      trainings one after another share a program.
    """
    return self if self.progress is not None else _lasting(self, num_steps)

  def progress_at(self, step: types.Array) -> types.Scalar:
    """Returns the progress at an update; raises `BadInput` if its length is unknown."""
    if self.progress is None:
      raise types.BadInput(
        'progress must be a schedule where fit does not tell how long the training '
        "is; pass progress=training.progress('linear', num_steps)."
      )
    return self.progress(step)

  def objective(
    self,
    params: types.PyTree,
    collections: types.PyTree,
    images: types.Array,
    targets: types.Array,
    key: types.Array,
    progress: types.Scalar,
    teacher_variables: types.PyTree,
    axis: str | None = None,
  ) -> tuple[types.Array, tuple[types.PyTree, types.Array]]:
    """Returns the loss, and (the new collections, the sum of the examples' values).

    If the examples are split over an axis of devices, the loss is that of this
    device's examples, normalised with the statistics of all examples. Random quantizers
    draw from ``key``, dropout from a key derived from it, which differs between devices.
    """
    model = self.model if axis is None else self.model.clone(axis_name=axis)
    options = networks.call_options(model, train=True, progress=progress)
    dropout = jax.random.fold_in(key, 1)
    if axis is not None:
      dropout = jax.random.fold_in(dropout, jax.lax.axis_index(axis))
    layers = contextlib.nullcontext()
    if 'progress' not in options:
      layers = networks.training_progress(progress)
    with layers:
      found: Any = model.apply(
        {'params': params, **collections},
        images,
        mutable=list(collections),
        rngs={'quantizer': key, 'dropout': dropout},
        **options,
      )
    outputs, moved = found
    loss = self.kind.loss(outputs, targets)
    if self.distillation is not None:
      weight = self.distillation.weight
      other = self.distillation.loss(teacher_variables, images, outputs)
      loss = (1 - weight) * loss + weight * other
    return loss, (core.unfreeze(moved), self.kind.total(outputs, targets))

  def update(
    self,
    state: _state.TrainState,
    batch: data.Batch,
    teacher_variables: types.PyTree,
    axis: str | None = None,
  ) -> _state.TrainState:
    """Makes one update of one network, whose leaves have no axis of seeds.

    Args:
      state: state before the update.
      batch: examples of the update.
      teacher_variables: the teacher's variables; None without one.
      axis: axis of the current mesh that splits the examples; None for no split.
    """
    if axis is not None and 'spreads' in state.collections:
      raise types.BadInput(
        'running spreads need batches on one device; use relative(...) without momentum.'
      )
    keys = jax.random.split(jax.random.fold_in(state.key, state.step))
    draw = keys[1]
    targets = self.kind.targets(batch.labels)
    if self.smoothing:
      targets = data.smooth(targets, self.smoothing)
    if self.augment is None:
      images = self.prepare(batch.inputs)
    else:
      images, targets = self.augment(keys[0], batch.inputs, targets)
    progress = self.progress_at(state.step)
    differentiate = functools.partial(self._differentiate, axis=axis)
    if axis is not None:
      parts = (jax.P(),) * 2 + (jax.P(axis),) * 2 + (jax.P(),) * 3
      differentiate = jax.shard_map(
        differentiate,
        in_specs=parts,
        out_specs=jax.P(),
        axis_names={axis},
        check_vma=False,
      )
    loss, values, collections, gradient = differentiate(
      state.params,
      state.collections,
      images,
      targets,
      draw,
      progress,
      teacher_variables,
    )
    if self.signal is not None:
      drawn = jax.random.fold_in(draw, 2)
      variables = {'params': state.params, **state.collections}
      gradient = self.signal(
        gradient, self.model, variables, images, batch.labels, drawn, progress
      )
    with types.as_optax():
      # Transforms that draw at random do so with a key of each seed.
      updates, opt_state = optax.with_extra_args_support(self.tx).update(
        gradient,
        state.opt_state,
        state.params,
        key=jax.random.fold_in(state.key, _DRAWN),
      )
    params = optax.apply_updates(state.params, updates)
    return state._replace(
      step=state.step + 1,
      params=params,
      collections=collections,
      opt_state=opt_state,
      average=self._averaged(state, params, collections),
      totals=self._totals(state, params, loss, values, targets),
    )

  def _differentiate(self, params, collections, *rest, axis):
    """Returns loss, sum of values, new collections and gradient of all examples."""
    (loss, (collections, values)), gradient = jax.value_and_grad(
      self.objective, has_aux=True
    )(params, collections, *rest, axis)
    if axis is not None:
      # A single reduction, after all those of the normalisations: devices that run
      # several reductions at a time may wait for each other.
      flat, unravel = jax.flatten_util.ravel_pytree((loss, values, gradient))
      loss, values, gradient = unravel(jax.lax.pmean(flat, axis))
      values = values * jax.lax.axis_size(axis)
    return loss, values, collections, gradient

  def _averaged(self, state, params, collections):
    if self.average is None or state.average is None:
      return state.average
    t = state.step.astype(jnp.float32)
    decay = jnp.minimum(self.average, (1 + t) / (10 + t))

    def blend(old, new):
      dtype = types.promoted(decay, old)
      wide_old, wide_new = old.astype(dtype), new.astype(dtype)
      rate = decay.astype(dtype)
      return (rate * wide_old + (1 - rate) * wide_new).astype(old.dtype)

    return jax.tree.map(blend, state.average, {'params': params, **collections})

  def _totals(self, state, params, loss, values, targets):
    before, after = (_state.kernels(p) for p in (state.params, params))
    old = state.totals
    ratios = {
      name: old.flip_ratio[name]
      + tree.share((after[name] < 0) != (before[name] < 0))
      for name in before
    }
    return _state.Totals(
      old.steps + 1,
      old.loss + loss.astype(old.loss.dtype),
      old.accuracy + (values / targets.shape[0]).astype(old.accuracy.dtype),
      ratios,
    )


@functools.lru_cache(maxsize=16)
def _lasting(task, num_steps):
  progress = _schedules.progress('linear', num_steps)
  return dataclasses.replace(task, progress=progress)


def batch_split(mesh: jax.sharding.Mesh | None) -> tuple[str | None, int]:
  """Returns the mesh axis that splits a batch, and its size; (None, 1) if none does."""
  parts = 1 if mesh is None else mesh.shape.get('batch', 1)
  return ('batch' if parts > 1 else None), parts


def check_batch_split(batch_size: int, mesh: jax.sharding.Mesh | None) -> None:
  """Raises `BadInput` unless batches can be split evenly over the mesh's devices."""
  types.check_integer('batch_size', batch_size, 1)
  _, parts = batch_split(mesh)
  if batch_size % parts:
    raise types.BadInput(
      f'batch_size must be divisible by the {parts} devices over which a batch is '
      f'split; got {batch_size}.'
    )


@functools.lru_cache(maxsize=16)
def loop(
  task: Task,
  take: Callable[[Any, Any], data.Batch],
  num_seeds: int,
  mesh: jax.sharding.Mesh | None = None,
  together: str | None = None,
) -> Callable[..., _state.TrainState]:
  """Compiles ``run(state, arrays, fed, num_steps, teacher_variables) -> state``.

  Args:
    task: what is trained.
    take: the feed's function (arrays, one step's part of ``fed``) -> batch.
    num_seeds: number of networks side by side.
    mesh: devices; its axis ``'lanes'`` splits the seeds, if their number is divisible,
      and its axis ``'batch'``, if it has one, the examples of every batch. None for
      one device.
    together: how the seeds of a device run together, as for `fit`.

  Returns:
    The same function for the same arguments, so that seeds that are trained one
    after another share a program. Its ``fed`` has leading axes [seeds, steps], of
    which the first ``num_steps`` steps are run. It donates the buffers of ``state``,
    except in a stream. It raises `memory.Exceeded` before it runs what does not fit.
  """
  together = _seeds.choose(together, mesh)
  if together == 'stream' and num_seeds > 1:
    return _seeds.streamed(loop(task, take, 1), num_seeds, seeded=(0, 2))
  lanes, (axis, _) = None, batch_split(mesh)
  if mesh is not None:
    lanes = 'lanes' if num_seeds % mesh.shape['lanes'] == 0 else None
  if axis is not None and task.signal is not None:
    raise types.BadInput('signal needs batches on one device: split no batch.')
  if axis is not None and not hasattr(task.model, 'axis_name'):
    raise types.BadInput(
      'batches over several devices need a network with the field axis_name, '
      'over which its normalisations average (None for none); '
      f'{type(task.model).__name__} has none.'
    )

  def steps(state, fed, arrays, num_steps, teacher_variables):
    def one(state, fed):
      def step(index, state):
        batch = take(arrays, jax.tree.map(lambda leaf: leaf[index], fed))
        if axis is not None:
          batch = jax.lax.with_sharding_constraint(batch, jax.P(axis))
        return task.update(state, batch, teacher_variables, axis)

      return jax.lax.fori_loop(0, num_steps, step, state)

    return _seeds.inside(one, state.step.shape[0], together)(state, fed)

  if mesh is not None:
    seeds = jax.P(lanes)
    steps = jax.shard_map(
      steps,
      mesh=mesh,
      in_specs=(seeds, seeds, jax.P(), jax.P(), jax.P()),
      out_specs=seeds,
      axis_names={'lanes'},
      check_vma=False,
    )

  def run(state, arrays, fed, num_steps, teacher_variables):
    return steps(state, fed, arrays, jnp.asarray(num_steps), teacher_variables)

  program = jax.jit(run, donate_argnums=0)
  return memory.checked(program, f'the training of {num_seeds} at once')
