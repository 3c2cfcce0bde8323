"""The flags by which gradients are looked at without training."""

from __future__ import annotations

import dataclasses

from bitjax import cli
from bitjax import types
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import models as models_lib
from bitjax.studies.resnet_windows import networks

__all__ = ['Looks']

_SHAPES = tuple(estimators.SHAPES)


@dataclasses.dataclass(frozen=True)
class Looks:
  """The networks, states, estimators and steps that are looked at."""

  static_networks: tuple[str, ...] = cli.flag(
    ('resnet8_narrow',),
    'Networks whose gradients are looked at; the first is that of the second contrast.',
    choices=networks.NETWORKS,
    unique=True,
  )
  states: tuple[str, ...] = cli.flag(
    models_lib.STATES,
    'Their states; trained: from full precision, with window 1.',
    choices=models_lib.STATES,
    unique=True,
  )
  static_widths: tuple[float, ...] = cli.flag(
    (0.1, 0.25, 0.5, 1.0, 2.0),
    'Half-widths of the windows that are looked at.',
    exclusive_minimum=0,
    unique=True,
    longest=32,
  )
  static_shapes: tuple[str, ...] = cli.flag(
    _SHAPES,
    'Other estimators that are looked at, besides those that are trained.',
    choices=_SHAPES,
    nonempty=False,
    unique=True,
  )
  thresholds: tuple[float, ...] = cli.flag(
    (0.25, 0.5, 1.0),
    'Thresholds of all signs, in units of the root mean square of what enters.',
    exclusive_minimum=0,
    nonempty=False,
    unique=True,
    longest=16,
  )
  images: int = cli.flag(
    128, 'Examples in A, and in B, of the validation examples.', minimum=2
  )
  num_parts: int = cli.flag(
    4, 'Parts of A, over which gradients vary.', minimum=2
  )
  sample: int = cli.flag(
    128, 'Weights of a layer whose exact gains are computed.', minimum=2
  )
  budget: float = cli.flag(
    0.1,
    'Length of a step at most, as a share of the l2 norm of the weights that move.',
    exclusive_minimum=0,
    maximum=1,
  )
  step_rates: tuple[float, ...] = cli.flag(
    (0.1, 0.3, 1.0),
    'Lengths of a step, as shares of the budget, to choose from.',
    exclusive_minimum=0,
    maximum=1,
    unique=True,
  )

  def check_looks(self, network: str, validation_examples: int) -> None:
    """Raises `BadInput` for flags that do not go together.

    Args:
      network: the network that is trained.
      validation_examples: of which A and B are drawn.
    """
    if self.static_networks[0] != network:
      raise types.BadInput(
        f'static_networks must begin with the network that is trained, {network}; '
        f'got {", ".join(self.static_networks)}.'
      )
    if models_lib.TRAINED not in self.states or 0.5 not in self.static_widths:
      raise types.BadInput(
        'states must list trained and static_widths 0.5, the second contrast; got '
        f'{", ".join(self.states)} and {self.static_widths}.'
      )
    if self.images % self.num_parts:
      raise types.BadInput(
        f'num_parts must divide images, {self.images}; got {self.num_parts}.'
      )
    if 4 * self.images > validation_examples:
      raise types.BadInput(
        'images must be at most a quarter of validation_examples, '
        f'{validation_examples}; got {self.images}.'
      )
