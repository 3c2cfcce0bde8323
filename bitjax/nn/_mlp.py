r"""The toy network of the studies: a multi-layer perceptron of any precision.

Images are flattened and keep their integer values; their unit (1/255) is folded
into the first layer's scale, so that a binary first layer sums integers. A binary
kernel's products are scaled by 1/sqrt(fan_in): the pre-activations then have a
spread near 1, where the straight-through window lets gradients pass. The
initialisation of a full-precision kernel already contains that factor.
"""

from __future__ import annotations

import math
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _inits
from bitjax.nn import _layers

__all__ = [
  'MLP',
  'binary_mlp',
  'binary_weights_mlp',
  'full_precision_mlp',
]


class MLP(nn.Module):
  """Fully connected layers with an activation between them.

  Layers are named ``Dense_0``, ``Dense_1``, ..., normalisations ``BatchNorm_0`` and
  so on. `full_precision_mlp`, `binary_mlp` and `binary_weights_mlp` make the three
  usual kinds.

  Attributes:
    hidden: units of each hidden layer; an empty tuple for no hidden layers.
    num_classes: units of the last layer.
    kernel_quantizer: quantizer of every kernel; None for none.
    activation_quantizer: sign activation with its estimator; None for ReLU. A
      random one draws from ``rngs={'quantizer': key}``. It can have neither
      parameters nor state (the ``input_quantizer`` of `QuantDense` can).
    scaling: ``'none'``, ``'fan_in'`` or ``'mean_abs'``; see `QuantDense`.
    batch_norm: whether to normalise each hidden layer's pre-activations.
    use_bias: whether layers have biases.
    init_name: ``'xavier'`` or ``'kaiming'`` (both uniform), ``'kaiming_normal'``,
      ``'kaiming_fan_out'`` (normal), ``'fan_in_uniform'`` (PyTorch's) or
      ``'orthogonal'``.
    input_scale: value of one unit of an integer input; floating inputs are not
      scaled.
    precision: precision of the products, as in ``jax.lax``.
    dtype: dtype to which inputs, activations and weights are rounded where they are
      multiplied, such as bfloat16; None for none. Latent weights, sums, statistics and
      logits are float32. Bytes and signs are never rounded, so in bfloat16 a binary
      network of bytes has the logits that it has in float32.
  """

  hidden: tuple[int, ...] = (256, 256)
  num_classes: int = 10
  kernel_quantizer: quantizers.Quantize | quantizers.Quantizer | None = None
  activation_quantizer: quantizers.Quantize | None = None
  scaling: str = 'none'
  batch_norm: bool = False
  use_bias: bool = False
  init_name: str = 'xavier'
  input_scale: float = 1 / 255
  precision: Any = 'highest'
  dtype: Any = None

  def __post_init__(self):
    _binding.check_fields(self)
    super().__post_init__()

  def setup(self):
    """Creates the layers."""
    kernel_init = _inits.initializer(self.init_name)
    activation = self.activation_quantizer
    learned = isinstance(activation, quantizers.Quantizer)
    keeps = quantizers.spread_momentum(activation) is not None
    if learned or keeps or quantizers.is_stateful(activation):
      raise types.BadInput(
        'activation_quantizer must be a quantizer that neither learns nor '
        f'remembers, such as attach(sign(), window()); got {activation!r}. '
        'The input_quantizer of a QuantDense may do both.'
      )
    for layer, units in enumerate((*self.hidden, self.num_classes)):
      dense = _layers.QuantDense(
        features=units,
        kernel_quantizer=self.kernel_quantizer,
        scaling=self.scaling,
        use_bias=self.use_bias,
        kernel_init=kernel_init,
        precision=self.precision,
        dtype=self.dtype,
      )
      setattr(self, f'Dense_{layer}', dense)
      if self.batch_norm and layer < len(self.hidden):
        setattr(self, f'BatchNorm_{layer}', _layers.BatchNorm())

  def stages(
    self,
    inputs: types.Array,
    *,
    progress: types.Scalar = 1.0,
    train: bool = False,
  ) -> dict[str, scans.Stage]:
    """Returns the network as named stages, in the order in which they are applied.

    Args:
      inputs: a batch; only its shape and dtype matter.
      progress: progress of training, in [0, 1], for the quantizers.
      train: whether normalisation uses the statistics of the batch.
    """
    fan_in = math.prod(inputs.shape[1:])
    integers = jnp.issubdtype(inputs.dtype, jnp.integer)
    input_scale = self.input_scale if integers else 1.0
    stages: dict[str, scans.Stage] = {}
    for layer, units in enumerate((*self.hidden, self.num_classes)):
      name = f'Dense_{layer}'
      stages[name] = getattr(self, name).stage(
        fan_in, input_scale=input_scale, progress=progress
      )
      fan_in, input_scale = units, 1.0
      if layer == len(self.hidden):
        break
      if self.batch_norm:
        name = f'BatchNorm_{layer}'
        stages[name] = getattr(self, name).stage(units, train=train)
      stages[f'activation_{layer}'] = self._activation(progress)
    return stages

  def __call__(
    self,
    inputs: types.Array,
    *,
    progress: types.Scalar = 1.0,
    train: bool = False,
  ) -> types.Array:
    """Returns the logits, [examples, num_classes].

    Args:
      inputs: [examples, ...]; integers count in units of ``input_scale``.
      progress: progress of training, in [0, 1], for quantizers that anneal.
      train: whether normalisation uses the statistics of the batch and updates its
        running ones, which needs ``mutable=['batch_stats']``.
    """
    x = flatten(inputs)
    for name, stage in self.stages(
      inputs, progress=progress, train=train
    ).items():
      if train and name.startswith('BatchNorm'):
        getattr(self, name).update(stage, x)
      x = stage(x)
    return x

  def _activation(self, progress):
    if self.activation_quantizer is None:
      return scans.Activation('relu')
    random = quantizers.is_random(self.activation_quantizer)
    key = self.make_rng(_binding.RNG) if random else None
    quantizer = quantizers.at_progress(
      self.activation_quantizer, progress, key=key
    )
    return scans.Activation('sign', quantizer)


def flatten(inputs: types.Array) -> types.Array:
  """Reshapes inputs to a float matrix, [examples, fan_in]; integers are not scaled."""
  return types.widened(inputs.reshape((inputs.shape[0], -1)))


def full_precision_mlp(**kwargs: Any) -> MLP:
  """Returns an `MLP` with real weights and ReLU; keywords are the fields of `MLP`."""
  return MLP(**kwargs)


def binary_mlp(
  kernel_estimator: quantizers.Estimator | None = None,
  activation_estimator: quantizers.Estimator | None = None,
  **kwargs: Any,
) -> MLP:
  """Returns an `MLP` with binary weights and activations.

  By default it has the usual straight-through estimators.

  Args:
    kernel_estimator: estimator of the weights; None for the identity.
    activation_estimator: estimator of the activations; None for ``window(1)``.
    **kwargs: fields of `MLP`.

  References:
    Courbariaux et al., Binarized neural networks, 2016
    (https://arxiv.org/abs/1602.02830).
  """
  activation_estimator = activation_estimator or quantizers.window(1.0)
  return binary_weights_mlp(
    kernel_estimator,
    activation_quantizer=quantizers.attach(
      quantizers.sign(), activation_estimator
    ),
    **kwargs,
  )


def binary_weights_mlp(
  kernel_estimator: quantizers.Estimator | None = None, **kwargs: Any
) -> MLP:
  """Returns an `MLP` with binary weights and real (ReLU) activations.

  Args:
    kernel_estimator: estimator of the weights; None for the identity.
    **kwargs: fields of `MLP`.

  References:
    Courbariaux et al., BinaryConnect, 2015 (https://arxiv.org/abs/1511.00363).
  """
  kernel_estimator = kernel_estimator or quantizers.identity()
  quantizer = quantizers.attach(quantizers.sign(), kernel_estimator)
  defaults: dict[str, Any] = {
    'kernel_quantizer': quantizer,
    'scaling': 'fan_in',
  }
  return MLP(**(defaults | kwargs))
