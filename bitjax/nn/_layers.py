r"""Layers that offer their own *stage*: the pure function that they compute.

A layer of this library is a flax module with a method ``stage(...)``, which binds
its variables into one of the stages of `bitjax.scans`. The module's ``__call__``
applies that very stage, so a network computes exactly what an exact scan sees.

Quantized layers always quantize, in evaluation as in training: latent weights are
stored as parameters, but products use their quantized values, which
`bitjax.nn.deploy` returns.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _silence

__all__ = ['BatchNorm', 'QuantDense', 'normalization']


class QuantDense(nn.Module):
  r"""A fully connected layer that quantizes its kernel and, optionally, its inputs.

  .. math:: z = s \, (q_x(x) \, q(W)) + b

  The product is accumulated before it is scaled. The layer can replace
  ``flax.linen.Dense``: its parameters have the same names and shapes, so checkpoints
  of ``Dense`` load, and without quantizers it computes the same. Learned quantizers
  add parameters ``kernel_quantizer`` and ``input_quantizer`` (see `complete`).
  Quantizers with state keep it in the collection ``quantizer_state``, which must be
  ``mutable`` to be updated; running spreads of estimators (`quantizers.relative`) are in
  ``spreads`` likewise. Random quantizers draw from ``rngs={'quantizer': key}``.
  A layer whose quantized weights or inputs are all equal at initialisation warns
  (`SilentLayerWarning`).

  Attributes:
    features: number of units.
    kernel_quantizer: quantizer of the kernel, learned or not; None for none.
    input_quantizer: quantizer of the inputs, learned or not; None for none.
    scaling: the scale s: ``'fan_in'`` for 1/sqrt(fan_in), ``'mean_abs'`` for the
      mean magnitude of each unit's latent weights (detached), ``'none'`` for 1, or
      a `bitjax.quantizers.Scaling`.
    use_bias: whether to add b.
    dtype: dtype of what is multiplied and of the outputs, such as bfloat16; None for
      that of inputs and parameters. Kernels are quantized before they are rounded to
      it, and sums are accumulated and scaled in float32 at least.
    param_dtype: dtype of the parameters.
    precision: precision of the product, as in ``jax.lax``.
    kernel_init: initialiser of the latent kernel.
    bias_init: initialiser of the bias.
  """

  features: int
  kernel_quantizer: _binding.AnyQuantizer = None
  input_quantizer: _binding.AnyQuantizer = None
  scaling: str | quantizers.Scaling = 'none'
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = 'highest'
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  bias_init: nn.initializers.Initializer = nn.initializers.zeros

  def __post_init__(self):
    _binding.check_fields(self)
    super().__post_init__()

  def stage(
    self,
    fan_in: int,
    *,
    input_scale: types.Scalar = 1.0,
    progress: types.Scalar = 1.0,
  ) -> scans.Dense:
    """Returns what follows the input quantizer as a `scans.Dense`.

    Args:
      fan_in: number of inputs.
      input_scale: value of one unit of the input, a factor of the scale.
      progress: progress of training, in [0, 1], for the quantizer.
    """
    _, stage = self._bind(fan_in, None, input_scale, progress)
    _silence.check(self, stage)
    return stage

  def __call__(
    self, x: types.Array, *, progress: types.Scalar = 1.0
  ) -> types.Array:
    """Maps [..., fan_in] to [..., features]."""
    x_q, stage = self._bind(x.shape[-1], x, 1.0, progress)
    z = _binding.as_dtype(stage(x_q), self.dtype)
    _silence.check(self, stage, x, x_q, z)
    return z

  def parts(
    self, x: types.Array, *, progress: types.Scalar = 1.0
  ) -> tuple[types.Array, scans.Dense, None]:
    """Returns the quantized inputs, the stage that takes them, and None.

    The third is the product where that is not matmul; see `QuantConv`.
    """
    return (*self._bind(x.shape[-1], x, 1.0, progress), None)

  @nn.compact
  def _bind(self, fan_in, x, input_scale, progress):
    shape = (fan_in, self.features)
    return _binding.bind_layer(self, shape, x, input_scale, progress)


class BatchNorm(nn.Module):
  r"""Batch normalisation over all but the last axis of [examples, features].

  .. math:: y = \gamma \, (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta

  Variables have the names and shapes of ``flax.linen.BatchNorm``.

  Attributes:
    momentum: decay of the running statistics.
    epsilon: added to the variance.
    axis_name: the mapped axis over which examples are split, as in
      ``flax.linen.BatchNorm``; None for none.
    param_dtype: dtype of parameters and running statistics.

  References:
    Ioffe and Szegedy, 2015, algorithm 1 (https://arxiv.org/abs/1502.03167).
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  axis_name: str | None = None
  param_dtype: Any = jnp.float32

  def __post_init__(self):
    _binding.check_fields(self)
    super().__post_init__()

  @nn.compact
  def stage(self, num_features: int, *, train: bool = False) -> scans.Stage:
    """Returns the layer as a stage.

    Args:
      num_features: size of the last axis.
      train: True for the statistics of the batch (`scans.BatchNorm`), False for
        the running ones (`scans.Affine`).
    """
    shape = (num_features,)
    dtype = self.param_dtype
    scale = self.param('scale', nn.initializers.ones, shape, dtype)
    bias = self.param('bias', nn.initializers.zeros, shape, dtype)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, dtype).value
    var = self.variable('batch_stats', 'var', jnp.ones, shape, dtype).value
    if train:
      over = None if self.is_initializing() else self.axis_name
      return scans.BatchNorm(scale, bias, self.epsilon, over)
    return normalization(scale, bias, mean, var, self.epsilon)

  def update(self, stage: scans.Stage, x: types.Array) -> None:
    """Moves the running statistics towards those of ``x`` (training only)."""
    if not isinstance(stage, scans.BatchNorm) or self.is_initializing():
      return
    names = ('mean', 'var')
    for name, batch_value in zip(names, stage.moments(x), strict=True):
      old = self.get_variable('batch_stats', name)
      new = ((1 - self.momentum) * batch_value).astype(old.dtype)
      new = self.momentum * old + new
      self.put_variable('batch_stats', name, new)

  def __call__(self, x: types.Array, *, train: bool = False) -> types.Array:
    """Normalises [examples, features]."""
    stage = self.stage(x.shape[-1], train=train)
    self.update(stage, x)
    return stage(x)


def normalization(
  scale: types.Array,
  shift: types.Array,
  mean: types.Array,
  variance: types.Array,
  epsilon: float,
) -> scans.Affine:
  """Returns normalisation by running statistics, [features] each, as a stage."""
  factor = scale * jax.lax.rsqrt(variance + epsilon)
  return scans.Affine(factor, shift - mean * factor)
