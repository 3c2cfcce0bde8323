"""The estimators of the activations' sign, by name: windows of any width, and other shapes.

A window is absolute, of half-width c, or relative, of half-width c times the root mean
square of what enters the sign. All windows have height 1, but for those whose mass is kept:
their height is 1/c, so that a narrow one passes as much as a wide one. That is also what
remains of the window of half-width 1 if the *input* of the sign is divided by c: the sign's
output stays as it is, so a quantizer that is scaled is no other network.

Each estimator belongs to a *family*, whose members resemble each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import NamedTuple

from bitjax import quantizers

__all__ = [
  'FAMILIES',
  'FIXED',
  'HALF',
  'KEPT_FAMILY',
  'MASS',
  'NONE',
  'ONE',
  'SHAPES',
  'SHRINKING',
  'UNITS',
  'Estimator',
  'absolute',
  'kept',
  'of',
  'relative',
  'static',
]


class Estimator(NamedTuple):
  """An estimator of the sign.

  Attributes:
    name: its label in results.
    family: the name that similar ones share.
    make: makes it.
    progress: of training, at which those that anneal are looked at without training.
    half_width: of a window, in its units; None for other shapes.
  """

  name: str
  family: str
  make: Callable[[], quantizers.Estimator]
  progress: float = 1.0
  half_width: float | None = None


UNITS = ('absolute', 'relative')
NONE, SHRINKING = 'no window', 'shrinking window'
FAMILIES = _ABSOLUTE, _RELATIVE = 'window', 'relative window'
_KEPT = ', mass kept'
KEPT_FAMILY = f'{_ABSOLUTE}{_KEPT}'


def absolute(half_width: float) -> str:
  """Returns the name of a window in absolute units."""
  return f'{_ABSOLUTE} {half_width:g}'


def relative(half_width: float) -> str:
  """Returns the name of a window in units of the root mean square."""
  return f'{_RELATIVE} {half_width:g}'


def kept(half_width: float) -> str:
  """Returns the name of a window in absolute units whose mass is that of window 1."""
  return f'{absolute(half_width)}{_KEPT}'


HALF, ONE = absolute(0.5), absolute(1.0)  # The primary contrast.
MASS = kept(0.5)
FIXED = (ONE, HALF)  # What a window that shrinks is compared with.
_SHRINKS = 2.0, 0.25  # Half-widths at the start and at the end.

# Shapes of the literature, at settings that their papers use, and around them.
SHAPES = {
  each.name: each
  for each in (
    Estimator('Bi-Real', 'Bi-Real', quantizers.polynomial),
    Estimator('Bi-Real 0.5', 'Bi-Real', lambda: quantizers.polynomial(0.5)),
    Estimator('SwishSign', 'SwishSign', quantizers.swish_sign),
    Estimator('SwishSign 2.5', 'SwishSign', lambda: quantizers.swish_sign(2.5)),
    Estimator('Gaussian', 'Gaussian', lambda: quantizers.gaussian(0.5)),
    Estimator('Gaussian 1', 'Gaussian', quantizers.gaussian),
    Estimator('Dspike', 'Dspike', lambda: quantizers.dspike(3.0)),
    Estimator('DSQ', 'DSQ', lambda: quantizers.dsq(0.2)),
    Estimator('EDE, halfway', 'EDE', quantizers.error_decay, 0.5),
    Estimator('EDE, end', 'EDE', quantizers.error_decay),
    Estimator('ReSTE, halfway', 'ReSTE', quantizers.reste, 0.5),
    Estimator('ReSTE, end', 'ReSTE', quantizers.reste),
    Estimator('EWGS', 'EWGS', lambda: quantizers.ewgs(0.1)),
    Estimator('value clip', 'clip', lambda: quantizers.clip_quantile(0.9)),
  )
}


def of(name: str) -> Estimator:
  """Returns the estimator of a name that the functions of this module return."""
  if name in SHAPES:
    return SHAPES[name]
  if name == NONE:
    return Estimator(name, NONE, quantizers.identity)
  if name == SHRINKING:
    make = functools.partial(
      quantizers.shrinking_window, *_SHRINKS, keep='height'
    )
    return Estimator(name, SHRINKING, make)
  half_width = float(name.removesuffix(_KEPT).rpartition(' ')[2])
  if name == relative(half_width):
    window = functools.partial(quantizers.window, half_width)
    return Estimator(
      name,
      _RELATIVE,
      lambda: quantizers.relative(window(), keep='height'),
      half_width=half_width,
    )
  if name == kept(half_width):
    height = 1 / half_width
    make = functools.partial(quantizers.window, half_width, height)
    return Estimator(name, KEPT_FAMILY, make, half_width=half_width)
  make = functools.partial(quantizers.window, half_width)
  return Estimator(name, _ABSOLUTE, make, half_width=half_width)


def static(
  half_widths: Sequence[float],
  trained: Sequence[str],
  shapes: Sequence[str],
) -> list[str]:
  """Returns the names of the estimators whose gradients are looked at without training.

  They are windows of each half-width, absolute ones with and without their mass kept and
  relative ones; no window; all that are trained but what shrinks; and shapes.

  Args:
    half_widths: of the windows.
    trained: names of the estimators that are trained.
    shapes: names in `SHAPES`.
  """
  names = [
    make(c)
    for make in (absolute, kept, relative)
    for c in sorted(half_widths)
    if (make, c) != (kept, 1.0)  # It is the absolute one.
  ]
  every = [*names, NONE, *trained, *shapes]
  return [name for name in dict.fromkeys(every) if name != SHRINKING]
