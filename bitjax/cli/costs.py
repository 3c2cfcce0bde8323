"""Says what a large run costs before it starts, and refuses one that cannot fit.

An estimate is a lower bound, made of what a configuration says about arrays that the
run must hold at the same time. So a run that is refused would certainly have failed;
one that is not may still be too large.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from bitjax import memory
from bitjax import types
from bitjax.cli import flags
from bitjax.sweeps import progress

__all__ = ['Cost', 'admit', 'available', 'smaller']

_MANY_LANES = 10_000
_MANY_UPDATES = 1_000_000
_SIZES = ('batch_size', 'hidden', 'stream')  # Flags that make a lane large.
_LANE = 16  # Bytes that a sweep keeps for each lane, whatever its results.


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a run costs, at least.

  Attributes:
    lanes: lanes of all its sweeps.
    updates: updates (or evaluations) of all its lanes, one after another.
    numbers: 32-bit numbers that it holds at once, results included.
  """

  lanes: int
  updates: int
  numbers: int

  @property
  def memory(self) -> int:
    """Bytes that the run holds at once."""
    return 4 * self.numbers + _LANE * self.lanes


def admit(config: Any, cost_of: Callable[[Any], Cost]) -> None:
  """Refuses a run that cannot fit in memory, and announces one that is large.

  Args:
    config: the configuration.
    cost_of: configuration -> what its run costs. It is also asked about
      configurations in which one flag has its default, to tell which one would help.

  Raises:
    BadInput: naming the flag whose default would save the most memory.
  """
  cost, there = cost_of(config), available()
  if cost.memory > there:
    raise types.BadInput(
      f'{_culprit(config, cost_of)}: the run holds at least {memory.shown(cost.memory)} '
      f'at once, and this machine has {memory.shown(there)}.'
    )
  if cost.lanes >= _MANY_LANES or cost.updates >= _MANY_UPDATES:
    progress.say(
      f'a large run: {cost.lanes} lanes and {cost.updates} updates in all, with '
      f'at least {memory.shown(cost.memory)} of memory'
    )


def available() -> float:
  """Returns the bytes of memory of this machine and of one of its accelerators.

  A container has no more than its limit. It is infinite where no system tells.
  """
  return memory.machine() + memory.device()


def smaller(config: Any) -> str:
  """Returns the end of a sentence that names the flags that make a lane smaller."""
  names = [f'--{field.name}' for field in flags.fields(config)]
  found = [name for name in names if name.removeprefix('--') in _SIZES]
  return f', or a smaller {" or ".join(found)}' if found else ''


def _culprit(config: Any, cost_of: Callable[[Any], Cost]) -> str:
  """Returns advice that names the flag whose default would save the most."""
  found = []
  for field in flags.fields(config):
    value = getattr(config, field.name)
    if field.kind.number is None or value == field.default:
      continue
    try:
      other = dataclasses.replace(config, **{field.name: field.default})
    except types.BadInput:  # The default does not go with the other flags.
      continue
    found.append((cost_of(other).memory, field.name))
  least, name = min(found, default=(0, ''))
  if not name or least >= cost_of(config).memory:
    return 'less of everything is needed'
  return f'{name} is too large'
