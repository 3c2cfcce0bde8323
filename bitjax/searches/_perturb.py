"""Perturbations: flips of signs that a search or a training goes on from.

Noise of latent weights inside a budget is `bitjax.descent.noise`, and
`bitjax.transforms.perturb` makes either at intervals of a training.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bitjax import tree
from bitjax import types

__all__ = ['flip_signs', 'moved']


def flip_signs(
  kernel: types.Array,
  key: types.Array,
  number: types.Scalar,
  *,
  gains: types.Array | None = None,
  temperature: types.Scalar = 1.0,
) -> types.Array:
  r"""Flips the signs of some weights, drawn without replacement.

  Without gains all weights are equally likely. With gains g and a temperature T, each draw
  takes a weight with a probability proportional to :math:`\exp(g / T)` among those that
  are left. These weights are those of Boltzmann, as in annealing: T from infinity down to 0 leads
  from flips drawn uniformly to the best ones, and adding a constant to all gains
  changes nothing. Ranks would not tell a gain that matters from one that does not. The
  root mean square of the gains is a unit of T that suits layers of all sizes.

  Args:
    kernel: latent weights, any shape.
    key: a random key.
    number: how many weights flip, an integer of at most ``kernel.size``; may be traced,
      and is then rounded down to what is possible.
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
  traced = isinstance(number, jax.core.Tracer)
  if not traced:
    number = types.check_integer('number', number, 0)
  types.check_positive('temperature', temperature, finite=True)
  if not traced and number > kernel.size:
    raise types.BadInput(
      f'number must be at most {kernel.size}, that of the weights; got {number}.'
    )
  if gains is not None and jnp.shape(gains) != kernel.shape:
    raise types.BadInput(
      f"gains must have the kernel's shape {kernel.shape}; got "
      f'{jnp.shape(gains)}.'
    )
  number = tree.whole(number, kernel.size)
  return _flipped(kernel, key, number, gains, temperature)


@jax.jit
def _flipped(kernel, key, number, gains, temperature):
  # The largest of log-weights with Gumbel noise are drawn without replacement.
  dtype = types.promoted(kernel, jnp.float32)
  scores = jax.random.gumbel(key, (kernel.size,), dtype)
  if gains is not None:
    scores += (gains / temperature).reshape(-1).astype(dtype)
  order = jnp.argsort(-scores)
  chosen = jnp.arange(kernel.size) < number
  mask = jnp.zeros(kernel.size, bool).at[order].set(chosen)
  return moved(kernel, mask.reshape(kernel.shape))


def moved(kernel: types.Array, mask: types.Array) -> types.Array:
  """Returns a kernel with the signs flipped that a mask names."""
  tiny = jnp.finfo(kernel.dtype).tiny
  across = jnp.where(kernel == 0, jnp.asarray(-tiny, kernel.dtype), -kernel)
  return jnp.where(mask, across, kernel)
