"""A multi-layer perceptron whose activations may learn: quantizers stand before layers.

`bitjax.nn.MLP` has one activation between its layers, the same for all, without parameters.
Here each layer but the first has a quantizer of its inputs instead, as convolutional
networks do, so that learned quantizers, or those with state, can be tried in minutes.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _inits
from bitjax.nn import _layers
from bitjax.nn import _mlp

__all__ = ['QuantMLP']


class QuantMLP(nn.Module):
  r"""Quantized dense layers with normalisations; a quantizer is before all but the first.

  .. math:: x_{l+1} = \mathrm{BN}(s_l \, q_x(x_l) \, q_w(W_l)), \qquad
    \text{logits} = s_L \, q_x(x_L) \, q_w(W_L)

  Layers are named ``Dense_0``, ``Dense_1``, ..., normalisations ``BatchNorm_0`` and so on.
  Integer inputs count as they are, without a unit.

  Attributes:
    hidden: units of each hidden layer; an empty tuple for no hidden layers.
    num_classes: units of the last layer.
    kernel_quantizer: quantizer of every kernel, learned or not; None for none.
    input_quantizer: quantizer of the inputs of every layer but the first, learned or not;
      None for none, and then there is no nonlinearity.
    scaling: see `QuantDense`.
    init_name: as for `MLP`.
    precision: precision of the products, as in ``jax.lax``.
    dtype: dtype of what is multiplied, as for `QuantDense`; None for none.
  """

  hidden: tuple[int, ...] = (256, 256)
  num_classes: int = 10
  kernel_quantizer: _binding.AnyQuantizer = None
  input_quantizer: _binding.AnyQuantizer = None
  scaling: str = 'none'
  init_name: str = 'kaiming_normal'
  precision: Any = 'highest'
  dtype: Any = None

  def __post_init__(self):
    _binding.check_fields(self)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    inputs: types.Array,
    *,
    progress: types.Scalar = 1.0,
    train: bool = False,
  ) -> types.Array:
    """Returns the logits, [examples, num_classes].

    Args:
      inputs: [examples, ...].
      progress: progress of training, in [0, 1], for quantizers that anneal.
      train: whether normalisation uses the statistics of the batch and updates its
        running ones, which needs ``mutable=['batch_stats']``.
    """
    x = _mlp.flatten(inputs)
    for layer, units in enumerate((*self.hidden, self.num_classes)):
      x = _layers.QuantDense(
        features=units,
        kernel_quantizer=self.kernel_quantizer,
        input_quantizer=self.input_quantizer if layer else None,
        scaling=self.scaling,
        use_bias=False,
        kernel_init=_inits.initializer(self.init_name),
        precision=self.precision,
        dtype=self.dtype,
        name=f'Dense_{layer}',
      )(x, progress=progress)
      if layer < len(self.hidden):
        x = _layers.BatchNorm(name=f'BatchNorm_{layer}')(x, train=train)
    return x
