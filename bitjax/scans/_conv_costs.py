r"""Estimates what a move costs on the path `tail`, in forward passes of its view.

The *work* of a layer is its number of products of two numbers, and of its outputs, each of
which counts as several products: it is scaled, normalised, clipped, packed. A pass of the view
is the work of its layer and of all layers behind. A move repeats those behind, where packed
products take a fraction of the time of others:

.. math::
  \text{passes of a move} = \frac{\text{moved channel} + \sum_{\text{behind}}
    (\text{products} / r + e \, \text{outputs})}
    {\sum_{\text{layer, behind}} (\text{products} + e \, \text{outputs})}

with r = 1 for what is not packed. Of a convolution that comes next only the products
with the moved channel are computed; each takes as long as several others.

The path `masks` repeats this for each distinct mask only. Sums of n signs by signs are about
normal with variance n, and a move adds 2 to them or takes 2 away, so a sign turns with
probability :math:`p = \operatorname{erf}(\sqrt{2/n})`, and masks of a channel are
subsets of the positions that can turn:

.. math::
  \text{distinct masks of a channel} \approx
    \mathbb{E} \, 2^{\text{positions that can turn}} = (1 + p)^{\text{positions}}.
"""

from __future__ import annotations

import math

import jax

from bitjax.scans import _conv_turns
from bitjax.scans import _float_stages
from bitjax.scans import _packed_steps
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['distinct', 'passes']

# Measured on a CPU, on networks of 16 to 128 channels (docs/benchmark.md).
_OUTPUT = (
  24.0  # Products of floats that take as long as all else for an output.
)
_PACKED = 0.1  # Products of floats that take as long as a packed one.
_SINGLE = 6.0  # The same for products with the channel that has moved.
_MOVED = 10.0  # Outputs of other layers that take as long as a moved one.


def passes(view: _view.LayerView) -> float:
  """Returns about how many passes of the view each move takes on the path `tail`."""
  z = jax.eval_shape(lambda v: _layer(v)(v.inputs), view)
  own = math.prod(z.shape[:-1]) * view.kernel.size + _OUTPUT * z.size
  plain = _work(view.tail, z, False, False)
  packed = _packed_steps.applies(view.tail)
  behind = _work(view.tail, z, packed, view.coupling != 'tensor')
  moved = _MOVED * _OUTPUT * z.size / z.shape[-1]
  return min(1.0, (moved + behind) / (own + plain))


def distinct(view: _view.LayerView, ways: int) -> float:
  """Returns about which share of the moves have a mask of their own on the path `masks`.

  Args:
    view: a layer without an obstacle on that path.
    ways: moves of a weight.
  """
  fan_in = math.prod(view.kernel.shape[:-1])
  turning = math.erf(math.sqrt(2 / fan_in))
  masks = _conv_turns.positions(view) * math.log1p(turning)
  return math.exp(min(0.0, masks - math.log(ways * fan_in)))


def _layer(view):
  dense = _stages.Dense(
    view.kernel, view.quantizer, view.scaling, view.affine, view.arithmetic
  )
  return dense if view.product is None else _stages.Conv(dense, view.product)


def _work(stages, x, packed, alone):
  """Returns the work of stages, in products of floats.

  Args:
    stages: the stages.
    x: shape and dtype of their inputs.
    packed: whether signs and binary convolutions are packed.
    alone: whether a single channel of the inputs has changed.
  """
  total, before = 0.0, None
  for stage in stages:
    y = jax.eval_shape(stage, x)
    if isinstance(stage, _stages.Residual):
      for branch in (stage.body, stage.shortcut):
        total += _work(branch, x, packed, alone)
    elif isinstance(stage, (_stages.Conv, _stages.Dense)):
      layer = stage.layer if isinstance(stage, _stages.Conv) else stage
      products = math.prod(y.shape[:-1]) * layer.kernel.size
      cost = products
      binary = before is not None and _packed_steps.is_binary(before, stage)
      if packed and binary:
        cost = _PACKED * products
      if alone and (binary if packed else _float_stages.slides(stage, x)):
        cost = min(cost, _SINGLE * products / x.shape[-1])
      total += cost + _OUTPUT * y.size
    alone = alone and (
      _stages.is_entrywise(stage) if packed else _stages.is_channelwise(stage)
    )
    before, x = stage, y
  return total
