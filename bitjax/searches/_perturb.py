"""Perturbations: flips of signs that a search or a training goes on from.

Noise of latent weights inside a budget is `bitjax.descent.noise`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from bitjax import types

__all__ = ['flip_signs', 'moved']


def flip_signs(
  kernel: types.Array,
  key: types.Array,
  number: int,
  *,
  gains: types.Array | None = None,
  temperature: types.Scalar = 1.0,
) -> types.Array:
  r"""Flips the signs of some weights, drawn without replacement.

  Without gains all weights are equally likely. With gains g and a temperature T, each draw
  takes a weight with a probability proportional to :math:`\exp(g / T)` among those that
  are left.

  Args:
    kernel: latent weights, any shape.
    key: a random key.
    number: how many weights flip, static, at most ``kernel.size``.
    gains: decrease of the loss by each flip, as of `bitjax.scans.flip_gains`, of the
      kernel's shape.
    temperature: T > 0, in the units of the gains.

  Returns:
    The kernel with ``number`` entries replaced by their negatives; one of 0, whose sign
    is +1, becomes the negative number nearest to 0.

  Raises:
    BadInput: for a number that is no integer in [0, ``kernel.size``], gains of another
      shape, a temperature that is not positive, or a kernel that is not floating.
  """
  kernel = jnp.asarray(kernel)
  if not jnp.issubdtype(kernel.dtype, jnp.floating):
    raise types.BadInput(f'kernel must be floating; got {kernel.dtype}.')
  number = types.check_integer('number', number, 0)
  types.check_positive('temperature', temperature, finite=True)
  if number > kernel.size:
    raise types.BadInput(
      f'number must be at most {kernel.size}, that of the weights; got {number}.'
    )
  if gains is not None and jnp.shape(gains) != kernel.shape:
    raise types.BadInput(
      f"gains must have the kernel's shape {kernel.shape}; got "
      f'{jnp.shape(gains)}.'
    )
  return _flipped(kernel, key, number, gains, temperature)


@functools.partial(jax.jit, static_argnames='number')
def _flipped(kernel, key, number, gains, temperature):
  # The largest of log-weights with Gumbel noise are drawn without replacement.
  dtype = types.promoted(kernel, jnp.float32)
  scores = jax.random.gumbel(key, (kernel.size,), dtype)
  if gains is not None:
    scores += (gains / temperature).reshape(-1).astype(dtype)
  _, chosen = jax.lax.top_k(scores, number)
  mask = jnp.zeros(kernel.size, bool).at[chosen].set(True)
  return moved(kernel, mask.reshape(kernel.shape))


def moved(kernel: types.Array, mask: types.Array) -> types.Array:
  """Returns a kernel with the signs flipped that a mask names."""
  tiny = jnp.finfo(kernel.dtype).tiny
  across = jnp.where(kernel == 0, jnp.asarray(-tiny, kernel.dtype), -kernel)
  return jnp.where(mask, across, kernel)
