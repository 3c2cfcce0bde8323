"""The arms that the study compares, each with as many settings to choose from.

Estimators: one with a parameter has three values of it. One without has three times as many
learning rates in its place, so that tuning is as thorough for each. Optimisers by flips
(`flips`) have three rates of forgetting and three factors on the signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from bitjax import quantizers
from bitjax import training
from bitjax import types
from bitjax.studies.fitted_windows import flips
from bitjax.studies.fitted_windows import networks

__all__ = [
  'ARMS',
  'FITTED',
  'FLIPPED',
  'PRIMARY',
  'PRIMARY_FLIPPED',
  'SHAPES',
  'Arm',
  'arm_of',
  'check',
  'primary',
]


class Arm(NamedTuple):
  """An estimator of the activations' sign.

  Attributes:
    make: makes it of its parameter; None for widths that are fitted while it trains.
    values: what its parameter is chosen from; empty for none.
    parameter: what the parameter is, in words.
  """

  make: Callable[[types.Scalar], quantizers.Estimator] | None
  values: tuple[float, ...] = ()
  parameter: str = ''

  def quantizer(self, shape: int) -> quantizers.Quantize | quantizers.Quantizer:
    """Returns the sign with the estimator at one of the settings, a `SHAPES`."""
    if self.make is None:
      return training.fitted_sign(gaussian_of_spread)
    value = self.values[shape] if self.values else 1.0
    return quantizers.attach(quantizers.sign(), self.make(value))

  def factor(self, shape: int) -> float:
    """Returns the factor on the learning rate at one of the settings."""
    return 1.0 if self.values else _FACTORS[shape]


def gaussian_of_spread(width: types.Scalar) -> quantizers.Estimator:
  """Returns a Gaussian whose width counts in units of the spread of what enters."""
  return quantizers.relative(quantizers.gaussian(width))


def _window_of_spread(width):
  return quantizers.relative(quantizers.window(width))


FITTED = 'fitted'
ARMS = {
  'window 1': Arm(lambda value: quantizers.window(value)),
  'fixed window': Arm(quantizers.window, (0.25, 0.5, 2.0), 'half-width'),
  'relative window': Arm(
    _window_of_spread, (0.25, 0.5, 1.0), 'half-width / spread'
  ),
  'relative Gaussian': Arm(
    gaussian_of_spread, (0.2, 0.4, 0.8), 'sigma / spread'
  ),
  FITTED: Arm(None),
  'Bi-Real': Arm(quantizers.polynomial, (0.5, 1.0, 2.0), 'half-width'),
  'EDE': Arm(quantizers.error_decay, (0.03, 0.1, 0.3), 't at the start'),
  'SwishSign': Arm(quantizers.swish_sign, (2.5, 5.0, 10.0), 'beta'),
  'ReSTE': Arm(quantizers.reste, (2.0, 3.0, 5.0), 'o at the end'),
}
FLIPPED = {
  name: Arm(lambda gamma: quantizers.window(), flips.GAMMAS, 'gamma at first')
  for name in (flips.STE, flips.EXACT, flips.SMOOTHED)
}
PRIMARY = ('relative Gaussian', 'window 1')
PRIMARY_FLIPPED = (flips.SMOOTHED, flips.STE)
SHAPES = (0, 1, 2)  # The settings of a parameter, by position.
# Between the learning rates, which are about 3.2 times apart.
_FACTORS = (1 / 1.47, 1.0, 1.47)


def arm_of(name: str) -> Arm:
  """Returns the arm of a name in `ARMS` or `FLIPPED`, or of one for `quantizers.named`."""
  if found := (ARMS | FLIPPED).get(name):
    return found
  own = quantizers.named(name)
  return Arm(lambda value: own)


def primary(names: Sequence[str]) -> tuple[str, str]:
  """Returns the arms of the primary contrast, of which the second is the usual one."""
  return PRIMARY_FLIPPED if set(names) & set(FLIPPED) else PRIMARY


def check(arms: Sequence[str], network: str) -> None:
  """Raises `BadInput` unless both arms of the primary contrast are listed, and fit it."""
  needed = primary(arms)
  if not set(needed) <= set(arms):
    raise types.BadInput(
      f'arms must list {" and ".join(needed)}, the primary contrast; got '
      f'{", ".join(arms)}.'
    )
  flipped = set(arms) & set(FLIPPED)
  if flipped and flipped < set(arms):
    raise types.BadInput(
      f'arms must be estimators, or all of {", ".join(FLIPPED)}; got '
      f'{", ".join(arms)}.'
    )
  if bool(flipped) != (network == networks.SIGNS):
    raise types.BadInput(
      f'arms called Bop and network={networks.SIGNS}, whose only parameters are signs, '
      f'need each other; got {", ".join(arms)} and {network}.'
    )
