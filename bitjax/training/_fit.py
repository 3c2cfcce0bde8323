"""The training loop: chunks of jitted updates, and all other work between them.

After each chunk it saves a checkpoint, so that a killed training loses at most the
chunk in flight and resumes to the same result: bit for bit on a CPU, and wherever a
program gives the same bits twice (`docs/scaling.md`). At the end of every
period, an epoch by default, it evaluates, describes the layers and writes a row of the
log. A training has one phase or several: each has its own quantizers (activations may
be quantized first, weights later), and takes over the weights and the optimiser's state
from the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import os
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import files
from bitjax import sizes
from bitjax import types
from bitjax.training import _checkpoints
from bitjax.training import _evaluation
from bitjax.training import _log
from bitjax.training import _refit
from bitjax.training import _rows
from bitjax.training import _seeds
from bitjax.training import _state
from bitjax.training import _task

__all__ = ['Fitted', 'Phase', 'Reporter', 'fit']


class Reporter(Protocol):
  """An object that reports how far a training is, such as a progress bar."""

  def begin(self, total: int, done: int, unit: str, /) -> None:
    """Starts a report: ``total`` units in all, of which ``done`` were done before.

    The unit is given in the plural, here ``'images'``.
    """
    ...

  def compiling(self, label: str, /) -> None:
    """Reports that the program of an update is compiled next; ``label`` says where."""
    ...

  def advance(self, images: int, label: str, /) -> None:
    """Reports that ``images`` more were trained on; ``label`` states epoch and loss."""
    ...


@dataclasses.dataclass(frozen=True)
class Phase:
  """A part of a training, with one set of quantizers.

  Attributes:
    task: the network and how it is trained. Schedules count all updates, from the
      beginning of the first phase; the default progress ends with the last one.
    until: number of updates after which it ends, counted likewise.
  """

  task: _task.Task
  until: int

  def __post_init__(self):
    types.check_integer('until', self.until, 1)


class Fitted(NamedTuple):
  """The result of a training.

  Attributes:
    state: the last state, whose leaves have a leading axis of seeds.
    history: name -> [rows, seeds], and ``step`` [rows]; see `fit`.
    refitting: share of the time of updates and fits that fits of widths took, what
      they compile included; 0 without `Refit`.
  """

  state: _state.TrainState
  history: dict[str, np.ndarray]
  refitting: float = 0.0


def fit(
  phases: Sequence[Phase] | Phase,
  feeds: Sequence[data.Feed],
  seeds: Sequence[int],
  *,
  validation: tuple[Any, Any, Any] | None = None,
  probe: data.Batch | None = None,
  variables: types.PyTree | Sequence[types.PyTree] | None = None,
  rates: Sequence[float] | None = None,
  folder: str | os.PathLike[str] | None = None,
  period: int | None = None,
  chunk: int | None = None,
  together: str | None = None,
  tensorboard: bool = False,
  mesh: jax.sharding.Mesh | None = None,
  refit: _refit.Refit | None = None,
  report: Reporter | None = None,
) -> Fitted:
  """Trains networks side by side.

  Args:
    phases: one phase, or several in the order of their ends.
    feeds: one feed for each seed, all of one data set and batch size.
    seeds: seeds of initialisation and of everything that training draws, integers
      in [0, 2**32).
    validation: batches to evaluate at the end of every period, as
      `data.padded_batches` makes them; they also choose the best checkpoint. None
      to measure only the training loss and accuracy.
    probe: examples whose gradients describe the layers; None for no description.
      Their number must be divisible by four.
    variables: variables to start from, or a list of those of each seed; None for
      random weights. See `create`.
    rates: factors on the learning rate, one for each network; None for 1.
    folder: folder of checkpoints and the log, from which a training resumes. None
      stores nothing. Its file system is tried before the first update.
    period: updates between two rows; None for an epoch.
    chunk: updates between two checkpoints, at most, which one launch runs; None for as
      many as suit the device (`bitjax.sizes`), 50 on a CPU.
    together: how several seeds run on one device: ``'vmap'`` vectorises them,
      ``'map'`` runs them one after another in one program, and ``'stream'`` (without a
      mesh) launches the program of a single seed for each. None for what suits the
      kind of device (`bitjax.sizes`), today ``'map'`` on all. Results are equal up to
      rounding, and bitwise only for the same choice.
    tensorboard: whether to write event files too.
    mesh: devices to train on; None for one. Its axis ``'lanes'`` splits the seeds, if
      their number is divisible. Its axis ``'batch'``, if it has one, splits the
      examples of every batch, whose number must be divisible; normalisations use the
      statistics of whole batches if they average over the field ``axis_name`` of the
      network. Random quantizers of inputs draw the same on all devices.
    refit: when to fit the widths of every `fitted_sign` again, with tasks of classes and
      without a mesh; None for never. The log then holds ``width/LAYER``.
    report: told how far the training is after every chunk; None for no report.

  Returns:
    The last state and the history. At the end of each period it holds ``train_loss``
    and ``train_accuracy`` (means over the period's updates, of augmented images),
    ``validation_loss`` and ``validation_accuracy`` (of the moving average if there is
    one) and ``progress``; of another `Problem` its score in the place of the accuracy,
    such as ``validation_psnr``. By layer, as in ``flip_ratio/Conv_0``, it holds the share of
    latent weights whose sign an update changes, and `STATISTICS`. All but progress are
    NaN for a network whose variables or mean loss are not finite: it diverged.

  Raises:
    BadInput: for numbers out of range, for an unknown way to run seeds or a stream
      on a mesh, for feeds that do not match each other or
      the seeds, for ``variables`` or a checkpoint of another model, and for a folder
      that cannot hold checkpoints or whose log is damaged.
  """
  phases = [phases] if isinstance(phases, Phase) else list(phases)
  feeds = list(feeds)
  _check(phases, feeds, seeds, rates, chunk, period)
  fits = _refit.Fits(refit, [phase.task for phase in phases], feeds, mesh)
  _check_probe(probe)
  _task.check_batch_split(feeds[0].batch_size, mesh)
  phases = [Phase(p.task.lasting(phases[-1].until), p.until) for p in phases]
  together = _seeds.choose(together, mesh)
  period = period or feeds[0].steps_per_epoch
  chunk = min(chunk or sizes.here().updates, period)
  images = _first_images(phases[0].task, feeds[0])
  folder = None if folder is None else files.expand(folder)
  log = _log.Log(folder, tensorboard=tensorboard)
  checkpoints, first, state, settings = None, 0, None, {}
  try:
    begin = functools.partial(
      _state.create,
      phases[0].task.model,
      phases[0].task.tx,
      seeds,
      images,
      variables=variables,
      rates=rates,
      average=phases[0].task.average is not None,
    )
    if folder is not None:
      checkpoints = _checkpoints.Checkpoints(folder / _checkpoints.FOLDER)
      settings = {
        'seeds': _numbers(seeds, int),
        'rates': _numbers(rates, float),
      }
      first, state = _restore(checkpoints, phases, begin, images, settings)
      if state is None or int(state.step[0]) < phases[-1].until:
        checkpoints.check()
    state = begin() if state is None else state
    log.resume(
      int(state.step[0]), None if checkpoints is None else checkpoints.log()
    )
    if report is not None:
      share = feeds[0].batch_size * len(seeds)
      updates = phases[-1].until, int(state.step[0])
      report.begin(updates[0] * share, updates[1] * share, 'images')
    for number in range(first, len(phases)):
      if number > first:
        task = phases[number].task
        state = _state.switch(state, task.model, task.tx, images)
      save = None
      if checkpoints is not None:
        save = functools.partial(
          checkpoints.save, description=_description(phases, number, settings)
        )
      state = _run(
        phases[number],
        feeds,
        state,
        save=save,
        log=log,
        last=number == len(phases) - 1,
        period=period,
        chunk=chunk,
        validation=validation,
        probe=probe,
        mesh=mesh,
        together=together,
        fits=fits,
        report=report,
      )
  finally:
    log.close()
  return Fitted(state, log.history(), fits.share)


def _run(
  phase,
  feeds,
  state,
  *,
  save,
  log,
  last,
  period,
  chunk,
  validation,
  probe,
  mesh,
  together,
  fits,
  report,
):
  """Runs a phase from the update of the given state to its end."""
  task, num_seeds = phase.task, len(feeds)
  teacher = task.distillation
  teacher_variables = None if teacher is None else teacher.variables
  run = _task.loop(task, feeds[0].take, num_seeds, mesh, together)
  evaluate = _evaluation.evaluator(task, num_seeds, mesh, together)
  describe = _evaluation.statistician(task, num_seeds, together=together)
  arrays, step, label = feeds[0].arrays, int(state.step[0]), ''
  lanes = None
  if mesh is not None:
    lanes = 'lanes' if num_seeds % mesh.shape['lanes'] == 0 else None
    state = _place(state, mesh, lanes)
    arrays, teacher_variables, probe = _place(
      (arrays, teacher_variables, probe), mesh
    )
    validation = _place(validation, mesh, None, 'batch')
  if report is not None and step < phase.until:
    report.compiling(f'from epoch {step / feeds[0].steps_per_epoch:.3g}')
  while step < phase.until:
    state = fits.before(step, task, state)
    stop = min(step + chunk, (step // period + 1) * period, phase.until)
    stop = min(stop, fits.next(step))
    fed = _fed(feeds, step, stop - step, chunk)
    if mesh is not None:
      fed = _place(fed, mesh, lanes, None, 'batch')
    state = run(state, arrays, fed, stop - step, teacher_variables)
    jax.block_until_ready(state.step)
    fits.trained()
    accuracy = None
    if stop % period == 0 or (last and stop == phase.until):
      row = _rows.train_row(task, state) | fits.row(state)
      if validation is not None:
        chosen = _state.variables_of(state, average=True)
        scores = evaluate(chosen, validation)
        row['validation_loss'] = scores.loss
        row[f'validation_{task.kind.score}'] = scores.accuracy
      if probe is not None:
        for name, layers in describe(state, probe, teacher_variables).items():
          row |= {f'{name}/{layer}': v for layer, v in layers.items()}
      row = _rows.without_diverged(row, state)
      if last and validation is not None:  # Earlier phases quantize otherwise.
        accuracy = float(np.mean(row[f'validation_{task.kind.score}']))
      log.add(stop, row)
      label = _rows.label(task, stop, feeds[0].steps_per_epoch, row)
      state = state._replace(totals=jax.tree.map(jnp.zeros_like, state.totals))
    if save is not None:
      save(state, accuracy=accuracy, log=log.digest)
    if report is not None:
      size = feeds[0].batch_size
      report.advance((stop - step) * size * num_seeds, label)
    step = stop
  return state


def _place(tree, mesh, *axes):
  """Puts a tree on the mesh's devices, its leading axes split over ``axes``."""
  known = [axis if axis in mesh.shape else None for axis in axes]

  def put(leaf):
    # An axis that cannot be split evenly is replicated on every device.
    fits = [
      axis if axis and leaf.shape[i] % mesh.shape[axis] == 0 else None
      for i, axis in enumerate(known[: leaf.ndim])
    ]
    return jax.device_put(leaf, jax.sharding.NamedSharding(mesh, jax.P(*fits)))

  return jax.tree.map(put, tree)


def _fed(feeds, start, num_steps, chunk):
  """Stacks a chunk of all feeds, [seeds, chunk, ...], padded with zeros at the end."""

  def pad(leaf):
    rest = [(0, chunk - num_steps)] + [(0, 0)] * (leaf.ndim - 1)
    return np.pad(leaf, rest) if chunk > num_steps else leaf

  parts = [jax.tree.map(pad, f.chunk(start, num_steps)) for f in feeds]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


def _first_images(task, feed):
  fed = jax.tree.map(lambda leaf: leaf[0], feed.chunk(0, 1))
  return task.prepare(feed.take(feed.arrays, fed).inputs)


def _description(phases, number, settings):
  model = _checkpoints.describe(phases[number].task.model)
  return {'phase': str(number)} | settings | model


def _numbers(values, kind):
  return str(None if values is None else tuple(map(kind, values)))


def _restore(checkpoints, phases, begin, images, settings):
  """Returns the phase's number and the state to resume from; 0 and None without."""
  stored = checkpoints.description()
  if not stored:
    return 0, None
  number = int(stored.get('phase', 0))
  if number >= len(phases):
    raise types.BadInput(
      f'The checkpoint is in phase {number + 1}; this training has '
      f'{len(phases)}.'
    )

  def template():
    state = begin()
    for phase in phases[1 : number + 1]:
      task = phase.task
      state = _state.switch(state, task.model, task.tx, images)
    return state

  shapes = jax.eval_shape(template)
  return number, checkpoints.restore(
    shapes, _description(phases, number, settings)
  )


def _check(phases, feeds, seeds, rates, chunk, period):
  ends = [phase.until for phase in phases]
  if not ends or ends != sorted(set(ends)):
    raise types.BadInput(f'phases must end later and later; got {ends}.')
  if len(feeds) != len(seeds) or not feeds:
    raise types.BadInput(
      f'there must be one feed for each seed; got {len(feeds)} and {len(seeds)}.'
    )
  for seed in seeds:
    types.check_seed('seeds', seed)
  if len({(feed.num_examples, feed.batch_size) for feed in feeds}) > 1:
    raise types.BadInput('feeds must be of one data set and one batch size.')
  if rates is not None and len(rates) != len(seeds):
    raise types.BadInput(
      f'there must be one rate for each seed; got {len(rates)} and {len(seeds)}.'
    )
  rates = seeds if rates is None else rates
  if len(set(zip(seeds, rates, strict=True))) < len(seeds):
    raise types.BadInput(f'seeds must differ; got {tuple(seeds)}.')
  for name, value in (('chunk', chunk), ('period', period)):
    if value is not None:
      types.check_integer(name, value, 1)


def _check_probe(probe):
  if probe is not None and (not len(probe.labels) or len(probe.labels) % 4):
    raise types.BadInput(
      'probe must have 4, 8, 12, ... examples: their gradients are compared in '
      f'four groups; got {len(probe.labels)}.'
    )
