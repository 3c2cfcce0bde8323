"""Layers that know their own *stage*: the pure function that they compute.

A layer of this library is a flax module that offers ``stage(...)``: its variables
bound into one of the stages of `bitjax.scans`. The module's ``__call__`` applies
that very stage, so what a network computes and what an exact scan sees are one.
"""

from __future__ import annotations

from flax import linen as nn
import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import scans
from bitjax import types

__all__ = ['SCALINGS', 'BatchNorm', 'QuantDense', 'at_progress']

SCALINGS = ('none', 'fan_in', 'mean_abs')


def at_progress(
  quantizer: quantizers.Quantize | None, progress: types.Scalar
) -> quantizers.Quantize | None:
  """The quantizer with its ``progress`` filled in."""
  if quantizer is None:
    return None
  # Not Partial(quantizer, ...): that hides the quantizer's leaves from JAX.
  return jax.tree_util.Partial(_quantize, quantizer, progress)


def _quantize(quantizer, progress, x):
  return quantizer(x, progress=progress)


class QuantDense(nn.Module):
  r"""A fully connected layer with a quantized kernel.

  .. math:: z = s \, (x \, q(W)) + b

  The product is accumulated before it is scaled. Parameters have the names and
  shapes of ``flax.linen.Dense``.

  Attributes:
    features: number of units.
    kernel_quantizer: what the kernel passes through; None for none.
    scaling: s: ``'fan_in'`` for 1/sqrt(fan_in), ``'mean_abs'`` for the mean
      magnitude of each unit's latent weights (detached), ``'none'`` for 1.
    use_bias: whether to add b.
    kernel_init: initialiser of the latent kernel.
  """

  features: int
  kernel_quantizer: quantizers.Quantize | None = None
  scaling: str = 'none'
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

  @nn.compact
  def stage(
    self,
    fan_in: int,
    *,
    input_scale: types.Scalar = 1.0,
    progress: types.Scalar = 1.0,
  ) -> scans.Dense:
    """Returns the layer as a `scans.Dense`.

    Args:
      fan_in: number of inputs.
      input_scale: what one unit of the input means; part of the scale.
      progress: of training, in [0, 1], for the quantizer.
    """
    types.check_choice('scaling', self.scaling, SCALINGS)
    kernel = self.param('kernel', self.kernel_init, (fan_in, self.features))
    shift = 0.0
    if self.use_bias:
      shift = self.param('bias', nn.initializers.zeros, (self.features,))
    scale = fan_in**-0.5 if self.scaling == 'fan_in' else 1.0
    scaling = quantizers.mean_abs() if self.scaling == 'mean_abs' else None
    return scans.Dense(
      kernel,
      at_progress(self.kernel_quantizer, progress),
      scaling,
      scans.Affine(scale * input_scale, shift),
    )

  def __call__(
    self, x: types.Array, *, progress: types.Scalar = 1.0
  ) -> types.Array:
    """Maps [..., fan_in] to [..., features]."""
    return self.stage(x.shape[-1], progress=progress)(x)


class BatchNorm(nn.Module):
  r"""Batch normalisation over all but the last axis of [examples, features].

  .. math:: y = \gamma \, (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta

  Variables have the names and shapes of ``flax.linen.BatchNorm``.

  Attributes:
    momentum: decay of the running statistics.
    epsilon: added to the variance.

  References:
    Ioffe and Szegedy, 2015, algorithm 1 (https://arxiv.org/abs/1502.03167).
  """

  momentum: float = 0.9
  epsilon: float = 1e-5

  @nn.compact
  def stage(self, num_features: int, *, train: bool = False) -> scans.Stage:
    """Returns the layer as a stage.

    Args:
      num_features: size of the last axis.
      train: True for the statistics of the batch (`scans.BatchNorm`), False for
        the running ones (`scans.Affine`).
    """
    shape = (num_features,)
    scale = self.param('scale', nn.initializers.ones, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape).value
    var = self.variable('batch_stats', 'var', jnp.ones, shape).value
    if train:
      return scans.BatchNorm(scale, bias, self.epsilon)
    factor = scale * jax.lax.rsqrt(var + self.epsilon)
    return scans.Affine(factor, bias - mean * factor)

  def update(self, stage: scans.Stage, x: types.Array) -> None:
    """Moves the running statistics towards those of ``x`` (training only)."""
    if not isinstance(stage, scans.BatchNorm) or self.is_initializing():
      return
    names = ('mean', 'var')
    for name, batch_value in zip(names, stage.moments(x), strict=True):
      old = self.get_variable('batch_stats', name)
      new = self.momentum * old + (1 - self.momentum) * batch_value
      self.put_variable('batch_stats', name, new)

  def __call__(self, x: types.Array, *, train: bool = False) -> types.Array:
    """Normalises [examples, features]."""
    stage = self.stage(x.shape[-1], train=train)
    self.update(stage, x)
    return stage(x)
