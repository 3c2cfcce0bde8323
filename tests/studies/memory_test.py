"""On an accelerator, every program of every preset fits in the default budget.

Programs are compiled as if for a GPU, on data of the right shapes, and none is run. To
print the rows of the table in `docs/scaling.md`::

  python -m tests.studies.memory_test multistep_ste note

compiles one preset; without arguments, all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import lanes as lanes_lib
from bitjax import memory
from bitjax import studies
from bitjax import sweeps
from bitjax import training
from bitjax.cli import costs
from bitjax.studies import discrete_optimisers
from bitjax.studies import toy
from bitjax.studies.recipes import pairs as pairs_lib
from bitjax.studies.super_resolution import trainings as sr_trainings
from bitjax.studies.toy import problem
from bitjax.studies.toy import training as toy_training
from bitjax.studies.train_superres import trainings as one_training
from bitjax.sweeps import compute
from bitjax.sweeps import plan as plan_lib
from bitjax.sweeps import progress
from bitjax.sweeps import sweep as sweep_lib
from bitjax.sweeps import table as table_lib
from bitjax.sweeps import width as width_lib
from bitjax.training import _evaluation
from bitjax.training import _task

# These time programs, or draw functions, and run no sweep.
OTHERS = {'benchmark', 'scaling', 'estimator_gallery'}
NAMES = [name for name in studies.NAMES if name not in OTHERS]
ALL = [
  (name, preset) for name in NAMES for preset in studies.load(name).presets
]
SHAPES = {'mnist5k': (28, 28, 1), 'cifar10': (32, 32, 3)}
SIZES = {'mnist5k': {'all': 5000, 'train': 4000, 'test': 1000}, 'cifar10': {'train': 50_000, 'test': 10_000, 'all': 60_000}}  # fmt: skip
LAST = {'train', 'trainings'}  # The last sweep of a training study.


class Done(Exception):
  """Raised when all programs of a training are compiled."""


@dataclasses.dataclass(frozen=True)
class Row:
  """What the largest program of a sweep takes, and how many lanes it vectorises."""

  sweep: str
  width: int
  lanes: int
  taken: int


class Survey(sweeps.Sweep):
  """Compiles the programs of a study, and returns zeros in the place of results."""

  def __init__(self):
    super().__init__()
    self.rows, self.shapes = (
      [],
      {},
    )  # Shapes of what the programs of a sweep return.

  def __call__(
    self, fn, *, name, lanes, static=None, shared=None, batched=None, dims=None,
    coords=None, chunk=None, width=None,
  ):  # fmt: skip
    chunk = chunk or sweep_lib.DEFAULT_CHUNK
    plan = plan_lib.make(name, static or {}, lanes, chunk=chunk, width=width)
    table = table_lib.Table(plan, dims or {}, coords or {})
    task = compute.Task(
      fn, plan, width, abstract(shared or {}), None, table, None, None, None
    )
    chosen = width_lib.choose(task)
    width_lib.fit(task, plan.blocks, chosen, progress.Silent())
    self.add(name, task.width, plan.block_size, task.taken)
    traced = task.trace(plan.blocks[0])
    table.use(table_lib.template_of(traced.out_info))
    return table.dataset()

  def hosted(
    self, fn, *, name, lanes, static=None, dims=None, coords=None, chunk=None
  ):
    chunk = chunk or sweep_lib.DEFAULT_CHUNK
    plan = plan_lib.make(name, static or {}, lanes, chunk=chunk, width=None)
    table = table_lib.Table(plan, dims or {}, coords or {})
    before, found = len(self.rows), None
    self.shapes.clear()
    for combination in range(len(plan.combinations)):
      block = plan_lib.Block(combination, 0, 0, plan.block_size)
      with contextlib.suppress(Done):
        found = fn(
          folder=None,
          report=None,
          mesh=None,
          **plan.combinations[combination],
          **plan.traced(block),
        )
    if taken := [row.taken for row in self.rows[before:]]:
      self.rows[before:] = [
        Row(name, plan.block_size, plan.block_size, max(taken))
      ]
    if name in LAST:
      raise Done
    if found is not None:  # It ran to its end, on zeros.
      table.use({
        output: (np.shape(x)[1:], np.asarray(x).dtype)
        for output, x in found.items()
      })  # fmt: skip
      return table.dataset()
    sizes = {
      axis: len(np.asarray(labels)) for axis, labels in (coords or {}).items()
    }
    table.use({
      output: (tuple(sizes.get(axis, 1) for axis in axes), np.dtype(np.float32))
      for output, axes in (dims or {}).items()
    })  # fmt: skip
    return table.dataset()

  def add(self, name, width, lanes, taken):
    self.rows.append(Row(name, width, lanes, taken))
    print(
      self.rows[-1], f'{time.process_time():.0f} s', file=sys.stderr, flush=True
    )

  def compile(self, name, fn, *args):
    """Compiles a program that runs outside of sweeps; returns its outputs' shapes."""
    lowered = fn.lower(*args)
    self.add(name, 0, 0, memory.of(lowered.compile()).total)
    return lowered.out_info


def abstract(tree):
  return jax.tree.map(lanes_lib._abstract, tree)


def load(name, *, split='all', **_):
  """Data of the right shapes."""
  if name not in SHAPES:
    return REAL(name, split=split)
  size = SIZES[name][split]
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (size, *SHAPES[name]), np.uint8)
  labels = (np.arange(size) % 10).astype(np.int32)
  return data.Dataset(name, split, images, labels, 10, 1 / 255)


REAL = data.load


def photographs(source, *args):
  """As many photographs as BSDS has to train on, and others, without files."""
  if source != 'folder':
    return REAL_IMAGES(source, *args)
  *_, scale, held_out = args
  image = np.zeros((320, 480, 3), np.uint8)
  sizes = {'train': 200 - held_out, 'validation': held_out, 'test': 5}
  pair = data.make_pairs({'zeros': image}, scale)[0]
  return pairs_lib.Parts(
    *(
      data.Pairs(
        name,
        scale,
        tuple(f'{index}.png' for index in range(size)),
        (pair.low.shape[:2],) * size,
        lambda _: pair,
      )
      for name, size in sizes.items()
    )
  )


REAL_IMAGES = pairs_lib.load


@contextlib.contextmanager
def surveyed(survey):
  """Makes studies compile as if for a GPU, and draw and train nothing."""
  given = {}

  def arrays(problems):
    config, dataset = problems.config, problems.dataset
    if given.get('hidden') not in (None, config.hidden):
      given.clear()  # Another network of the same study.
    if 'arrays' in given:
      return given['arrays']
    seeds = jnp.asarray(config.all_seeds)

    def draw(seeds, images, labels):
      return problem.draw_trials(
        problems.model('full_precision'), seeds, images, labels,
        config.batch_size, augment=config.augment,
      )  # fmt: skip

    inputs = abstract((seeds, dataset.images, dataset.labels))
    trials = survey.compile('draw', jax.jit(draw), *inputs)
    found = {'seeds': abstract(seeds), 'trials': abstract(trials)}
    given.update(arrays=found, hidden=config.hidden)
    return found

  def shared(networks):
    problems = networks.problems
    drawn = problems.arrays
    if 'trained' in networks.names and 'starts' not in given:

      def fit(drawn):
        given['arrays'] = drawn
        return toy_training.trained(problems, 'binary', networks.train_steps)

      survey.compile('training', jax.jit(fit), drawn)
      given['arrays'] = drawn
    starts = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        (len(networks.names), *leaf.shape), leaf.dtype
      ),
      drawn['trials'].variables,
    )
    return {'arrays': drawn, 'starts': starts}

  def loop(*args, **kwargs):
    fn = LOOP(*args, **kwargs)

    def run(state, *rest):
      if fn not in survey.shapes:  # It comes here with every chunk.
        survey.shapes[fn] = survey.compile('training', fn, state, *rest)
      return state

    return run

  def evaluator(*args, **kwargs):
    fn = EVALUATOR(*args, **kwargs)

    def evaluate(variables, batches):
      key = fn, batches[1].shape
      if key not in survey.shapes:
        survey.shapes[key] = survey.compile(
          'evaluation', fn, variables, batches
        )
      return jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), survey.shapes[key]
      )

    return evaluate

  def statistician(*args, **kwargs):
    fn = STATISTICIAN(*args, **kwargs)

    def describe(*inputs):
      survey.compile('statistics', fn, *inputs)
      raise Done

    return describe

  def done(*_):
    raise Done

  def timed(fn):
    shapes = []

    def run(*inputs):
      if not shapes:
        shapes.append(survey.compile('program', jax.jit(fn), *abstract(inputs)))
      zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes[0])
      return zeros, 0.0, 0.0

    return run

  with contextlib.ExitStack() as stack:
    for owner, name, new in (
      (jax, 'default_backend', lambda: 'gpu'),
      (data, 'load', load),
      (costs, 'available', lambda: float('inf')),
      (toy.Problems, 'arrays', property(arrays)),
      (toy.States, 'shared', property(shared)),
      (discrete_optimisers.arms, 'program', timed),
      (_task, 'loop', loop),
      (_evaluation, 'evaluator', evaluator),
      (training, 'evaluator', evaluator),
      (_evaluation, 'statistician', statistician),
      (pairs_lib, 'load', photographs),
      (sr_trainings, '_measured', done),
      (one_training, '_measured', done),
    ):
      stack.enter_context(mock.patch.object(owner, name, new))
    yield


LOOP, EVALUATOR = _task.loop, _evaluation.evaluator
STATISTICIAN = _evaluation.statistician


def rows(name, preset):
  """Compiles all programs of a preset; returns a row for each of its sweeps."""
  study, survey = studies.load(name), Survey()
  values = study.presets[preset]
  with surveyed(survey), contextlib.suppress(Done):
    study.run(study.config(**values), survey)
  assert survey.rows
  return survey.rows


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'preset'), ALL)
def test_programs_fit_an_accelerator(name, preset):
  most = max(rows(name, preset), key=lambda row: row.taken)
  assert 0 < most.taken <= 16 * 2**30, most


def main(chosen):
  for name, preset in chosen:
    for row in rows(name, preset):
      print(
        f'| `{name}` | `{preset}` | {row.sweep} | '
        f'{f"{row.width} of {row.lanes}" if row.width else ""} | '
        f'{row.taken / 2**30:.2g} |',
        flush=True,
      )


if __name__ == '__main__':
  # It saves time, and leaves the memory of programs as it is.
  jax.config.update('jax_disable_most_optimizations', True)
  main([tuple(sys.argv[1:3])] if sys.argv[1:] else ALL)
