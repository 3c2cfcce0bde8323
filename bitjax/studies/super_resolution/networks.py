"""Makes the network of a design, and names its layers."""

from __future__ import annotations

from typing import Any

from bitjax import nn
from bitjax import quantizers
from bitjax.studies.super_resolution import arms

__all__ = ['build', 'layers']

_ESTIMATORS = {
  'window': quantizers.window(),
  'identity': quantizers.identity(),
  'bireal': quantizers.polynomial(),
}


def build(
  design: arms.Design, *, scale: int, blocks: int, width: int, **arithmetic: Any
) -> nn.SuperResolution:
  """Returns the network of a design: light, and added to the bicubic image.

  Args:
    design: how it is made low-bit.
    scale: how many times larger the output is.
    blocks: number of residual blocks of two convolutions.
    width: number of channels, of which the design takes its share.
    **arithmetic: ``precision`` and ``dtype``.
  """
  kernels, inputs, scaling = _quantizers(design)
  return nn.SuperResolution(
    scale=scale,
    blocks=blocks,
    width=width // design.share,
    base='bicubic',
    shortcut=design.shortcut,
    multiplier=design.multiplier,
    norm=design.norm,
    kernel_quantizer=kernels,
    input_quantizer=inputs,
    scaling=scaling,
    quantize_head=design.ends,
    quantize_tail=design.ends,
    quantize_upsampler=design.upsampler,
    **arithmetic,
  )


def _quantizers(design):
  """Returns the quantizers of kernels and of inputs, and the scale of kernels."""
  bits = design.bits
  if bits == 32:
    return None, None, 'none'
  if bits == 1:
    sign = quantizers.sign()
    kernels = quantizers.attach(sign, quantizers.window())
    inputs = quantizers.attach(sign, _ESTIMATORS[design.estimator])
    return kernels, inputs, 'mean_abs'
  kernels = quantizers.lsq(bits, narrow=True)
  grid = quantizers.uniform(bits, narrow=True, step='unit')
  inputs = {
    'learned': quantizers.lsq(bits, narrow=True, batch_axes=1),
    'ends': quantizers.lsq(bits, offset=True, batch_axes=1),
    'fixed': quantizers.attach(grid, quantizers.window()),
    'batch': quantizers.calibrated(
      quantizers.attach(grid, quantizers.identity()),
      quantizers.max_abs('tensor'),
    ),
  }
  return kernels, inputs[design.ranges], 'none'


def layers(model: nn.SuperResolution) -> list[str]:
  """Returns the paths of the convolutions of the body, and of the upsampler."""
  body = [
    f'Block_{block}/Conv_{index}'
    for block in range(model.blocks)
    for index in range(2)
  ]
  ups = range({2: 1, 3: 1, 4: 2}[model.scale])
  return [*body, 'Conv_body', *(f'Conv_up_{index}' for index in ups)]
