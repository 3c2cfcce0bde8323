"""The vocabulary that every module shares: arrays, norms, the budget, bad input.

A *budget* is a ball around a point in parameter space. All methods that a study
compares move inside the same ball, so a budget names everything that defines
one: radius, norm, and the point it is anchored at.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import Any, Literal, TypeAlias, get_args

import jax
import numpy as np

__all__ = [
  'ANCHORS',
  'NORMS',
  'Anchor',
  'Array',
  'BadInput',
  'Budget',
  'Norm',
  'PyTree',
  'Scalar',
  'check_choice',
  'check_finite',
  'check_fraction',
  'check_integer',
  'check_non_negative',
  'check_open_interval',
  'check_positive',
  'check_range',
  'check_seed',
]

Array: TypeAlias = jax.Array
Scalar: TypeAlias = float | jax.Array
PyTree: TypeAlias = Any

Norm: TypeAlias = Literal['l2', 'linf', 'l1', 'flips']
Anchor: TypeAlias = Literal['start', 'noised']

NORMS: tuple[str, ...] = get_args(Norm)
ANCHORS: tuple[str, ...] = get_args(Anchor)


class BadInput(ValueError):
  """An argument, a flag or a file is wrong, and the caller can correct it.

  Its message names what is wrong and what would be right. Commands print it as one
  line; every other exception, a plain `ValueError` included, is a defect of the
  program and keeps its traceback.
  """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Budget:
  r"""The ball ``{w : ||w - anchor||_norm <= radius}`` of allowed parameters.

  Attributes:
    radius: radius of the ball, in the units of the parameters (``l2``, ``linf``,
      ``l1``) or a number of sign changes (``flips``). A leaf: it may be traced.
    norm: ``'l2'``, ``'linf'``, ``'l1'`` or ``'flips'`` (how many weights have
      another sign than the anchor, with sign(0) = +1).
    anchor: ``'start'`` centres the ball at the original parameters, before any
      noise; ``'noised'`` at the perturbed start.

  Raises:
    BadInput: for an unknown norm or anchor, or a radius that is negative or
      NaN (checked only where the radius is a concrete number).
  """

  radius: Scalar
  norm: Norm = dataclasses.field(default='l2', metadata={'static': True})
  anchor: Anchor = dataclasses.field(default='start', metadata={'static': True})

  def __post_init__(self):
    check_choice('norm', self.norm, NORMS)
    check_choice('anchor', self.anchor, ANCHORS)
    # None is what JAX may rebuild a budget with, so that only names are refused.
    if isinstance(self.radius, (str, bytes)):
      raise BadInput(f'radius must be a number; got {self.radius!r}.')
    check_non_negative('radius', self.radius)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
  """Raises `BadInput` listing ``choices`` unless ``value`` is one."""
  if value not in choices:
    raise BadInput(
      f'{name} must be one of {", ".join(choices)}; got {value!r}.'
    )


def check_non_negative(name: str, value: Any) -> None:
  """Raises `BadInput` if a concrete ``value`` is negative or NaN."""
  _check(name, value, lambda x: x >= 0, '>= 0 and not NaN')


def check_positive(name: str, value: Any) -> None:
  """Raises `BadInput` if a concrete ``value`` is not positive."""
  _check(name, value, lambda x: x > 0, '> 0 and not NaN')


def check_finite(name: str, value: Any) -> None:
  """Raises `BadInput` if a concrete ``value`` is infinite or NaN."""
  _check(name, value, np.isfinite, 'finite')


def check_open_interval(name: str, value: Any, low: float, high: float) -> None:
  """Raises `BadInput` if a concrete ``value`` is outside (low, high)."""
  _check(name, value, lambda x: (x > low) & (x < high), f'in ({low}, {high})')


def check_range(name: str, value: Any, low: float, high: float) -> None:
  """Raises `BadInput` if a concrete ``value`` is outside [low, high]."""
  _check(name, value, lambda x: (x >= low) & (x <= high), f'in [{low}, {high}]')


def check_fraction(name: str, value: Any) -> None:
  """Raises `BadInput` if a concrete ``value`` is outside [0, 1)."""
  _check(name, value, lambda x: (x >= 0) & (x < 1), 'in [0, 1)')


def check_integer(name: str, value: Any, low: int) -> None:
  """Raises `BadInput` unless ``value`` is an integer, at least ``low``."""
  try:
    number = None if isinstance(value, bool) else operator.index(value)
  except TypeError:
    number = None
  if number is None or number < low:
    raise BadInput(f'{name} must be an integer >= {low}; got {value}.')


def check_seed(name: str, value: Any) -> None:
  """Raises `BadInput` unless ``value`` is an integer that every generator takes.

  These are the integers of 32 bits, without a sign: `jax.random.key` drops the further
  bits of larger ones, so that two of them would give the same numbers.
  """
  check_integer(name, value, 0)
  if value >= 1 << 32:
    raise BadInput(f'{name} must be < 2**32; got {value}.')


def _check(name, value, holds, wanted):
  # Tracers, and the placeholders with which JAX rebuilds pytrees, have no value.
  is_number = isinstance(value, (int, float, np.ndarray, np.number))
  is_array = isinstance(value, jax.Array)
  if not (is_number or is_array) or isinstance(value, jax.core.Tracer):
    return
  numbers = np.asarray(value)
  wrong = numbers[~holds(numbers)]
  if wrong.size:
    among = f' among {numbers.size}' if numbers.ndim else ''
    raise BadInput(f'{name} must be {wanted}; got {wrong[0]}{among}.')
