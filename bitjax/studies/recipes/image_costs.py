"""What a network that enlarges images costs for one image, as the tables of papers count."""

from __future__ import annotations

import jax

from bitjax import nn

__all__ = ['HEIGHT', 'WIDTH', 'costs']

# Pixels of the enlarged image that costs are of, as in the tables of papers.
HEIGHT, WIDTH = 720, 1280


def costs(model: nn.SuperResolution) -> dict[str, float]:
  """Returns what one enlarged image of 1280 x 720 costs.

  Returns:
    ``memory`` of the variables in bytes, ``operations``, ``bit_operations`` and
    ``flops`` (see `nn.summary`), and ``energy_low`` and ``energy_high`` in
    millijoules (see `nn.energy`).
  """
  scale = model.scale
  image = jax.ShapeDtypeStruct(
    (1, HEIGHT // scale, WIDTH // scale, 3), 'float32'
  )
  counted = nn.summary(model, image)
  energy = nn.energy(counted).total.total
  return {
    'memory': counted.total.memory,
    'operations': counted.total.operations,
    'bit_operations': float(counted.total.bit_operations),
    'flops': float(counted.total.flops),
    'energy_low': energy.low / 1e9,
    'energy_high': energy.high / 1e9,
  }
