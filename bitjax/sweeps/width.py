"""How many lanes of a sweep are vectorised, and whether its programs fit in memory.

On a CPU, one lane at a time is fastest. On an accelerator as many run as the budget of
`bitjax.memory` has room for, in the largest of the sweep's programs: all have one width,
and the manifest keeps it. Every program is compiled before anything is computed, as only
the compiler knows what it takes.
"""

from __future__ import annotations

import jax

from bitjax import memory
from bitjax.sweeps import compute
from bitjax.sweeps import job
from bitjax.sweeps import plan as plan_lib
from bitjax.sweeps import progress

__all__ = ['choose', 'fit', 'limit', 'report']

# Programs that are compiled before their turn: each is mapped into memory many times, and
# a process has a limited number of mappings.
_HELD = 100


def limit() -> int | None:
  """Returns the memory budget, in bytes, where programs depend on it; else None."""
  return None if jax.default_backend() == 'cpu' else int(memory.budget())


def choose(task: compute.Task) -> bool:
  """Chooses the width of a sweep that has none, on an accelerator.

  Returns:
    Whether it did. `fit` may then narrow it.

  Raises:
    memory.Exceeded: if a lane alone does not fit.
  """
  if task.width is not None or jax.default_backend() == 'cpu':
    return False
  fits = min(map(task.fitting, range(len(task.plan.combinations))))
  task.narrow(job.decide(lambda: fits))
  return True


def fit(
  task: compute.Task,
  missing: list[plan_lib.Block],
  chosen: bool,
  reporter: progress.Silent,
) -> None:
  """Compiles the programs of the missing blocks, and narrows them until they fit.

  Args:
    task: the sweep.
    missing: the blocks that are to be computed.
    chosen: whether `choose` chose the width. All processes of a job then compile all
      programs; else each compiles its own, at the width that was asked for.
    reporter: is told of every compilation.

  Raises:
    memory.Exceeded: if a lane alone does not fit.
  """
  groups = [missing] if chosen else task.share(missing)
  first = {b.combination: b for group in groups for b in reversed(group)}
  blocks = sorted(first.values(), key=lambda block: block.combination)
  while True:
    for number, block in enumerate(blocks if chosen else blocks[:_HELD]):
      task.compile(block, reporter)
      if number >= _HELD:
        task.drop(block.combination)
    narrower = (task.width or 1) // 2 if task.taken > memory.budget() else 0
    if chosen:
      narrower = job.decide(lambda: narrower)  # noqa: B023 - called at once.
    if not chosen or not narrower:
      return
    task.narrow(narrower)


def report(task: compute.Task) -> None:
  """Says how many lanes are vectorised, what they take, and which devices idle."""
  size, width = task.plan.block_size, task.width or 1
  text = (
    f'{task.plan.name}: {min(width, size)} of {size} lanes at a time, which takes '
    f'{memory.shown(task.taken)} of memory (budget: {memory.shown(memory.budget())})'
  )
  if task.taken > memory.budget():
    text += '; if that is too much, a smaller --width takes less'
  progress.say(text)
  blocks = len(task.plan.blocks) // len(task.plan.combinations)
  if blocks < task.num_devices:
    progress.say(
      f'{task.plan.name}: {blocks} chunks for each program leave some of '
      f'{task.num_devices} devices idle; a smaller --chunk uses them'
    )
