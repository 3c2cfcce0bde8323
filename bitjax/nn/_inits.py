"""Initialisers of latent kernels by name, shared by all networks.

A kernel has the shape [..., fan_in, features]. The leading axes are the spatial axes
of a convolution, which count towards both fans.
"""

from __future__ import annotations

from flax import linen as nn

from bitjax import types

__all__ = ['INITS', 'initializer']

INITS = {
  'xavier': nn.initializers.xavier_uniform,
  'kaiming': nn.initializers.he_uniform,
  'kaiming_normal': lambda: nn.initializers.variance_scaling(
    2.0, 'fan_in', 'normal'
  ),
  'kaiming_fan_out': lambda: nn.initializers.variance_scaling(
    2.0, 'fan_out', 'normal'
  ),
  'fan_in_uniform': lambda: nn.initializers.variance_scaling(
    1 / 3, 'fan_in', 'uniform'
  ),
  'orthogonal': nn.initializers.orthogonal,
}


def initializer(name: str) -> nn.initializers.Initializer:
  """Returns the initialiser of kernels with this name.

  Args:
    name: ``'xavier'``, uniform of variance 2 / (fan_in + fan_out);
      ``'kaiming'``, uniform of variance 2 / fan_in; ``'kaiming_normal'``, normal of
      the same variance; ``'kaiming_fan_out'``, normal of variance 2 / fan_out;
      ``'fan_in_uniform'``, uniform within 1 / sqrt(fan_in), which is what PyTorch's
      layers begin with; ``'orthogonal'``, which gives the kernel, as a matrix
      [rest, features], orthonormal columns, or rows if it has more columns.

  Raises:
    BadInput: for an unknown name.

  References:
    Glorot and Bengio, 2010, eq. 16
    (https://proceedings.mlr.press/v9/glorot10a.html); He et al., 2015, eq. 10 and
    14 (https://arxiv.org/abs/1502.01852); Saxe et al., 2014
    (https://arxiv.org/abs/1312.6120).
  """
  types.check_choice('init_name', name, tuple(INITS))
  return INITS[name]()
