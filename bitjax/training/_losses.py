r"""What training minimises: cross-entropy with whatever targets, and a teacher.

Targets are class probabilities, so that label smoothing and mixed images are the
same loss. With a teacher's logits t, a temperature T and a weight :math:`\lambda`,

.. math:: \ell = (1 - \lambda) \, \mathrm{CE}(y, z)
  + \lambda \, T^2 \, \mathrm{KL}\bigl(\mathrm{softmax}(t / T) \,\|\,
  \mathrm{softmax}(z / T)\bigr)

References:
  Hinton et al., Distilling the knowledge in a neural network, 2015
  (https://arxiv.org/abs/1503.02531).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from bitjax import types

__all__ = ['Distillation', 'accuracy', 'cross_entropy', 'divergence']


@dataclasses.dataclass(frozen=True)
class Distillation:
  """A teacher whose logits the network learns, beside the labels.

  Attributes:
    model: the teacher; called with ``train=False`` on the augmented images.
    variables: its variables, without an axis of seeds.
    weight: lambda, in [0, 1].
    temperature: T > 0.

  Raises:
    ValueError: for a weight outside [0, 1] or a temperature that is not positive.
  """

  model: nn.Module
  variables: types.PyTree
  weight: float = 0.5
  temperature: float = 1.0

  def __post_init__(self):
    types.check_range('weight', self.weight, 0.0, 1.0)
    types.check_positive('temperature', self.temperature)

  def loss(
    self, variables: types.PyTree, images: types.Array, logits: types.Array
  ) -> types.Array:
    """Divergence of the logits [N, classes] from the teacher's, in nats."""
    taught: Any = self.model.apply(variables, images, train=False)
    taught = jax.lax.stop_gradient(taught)
    return divergence(logits, taught, self.temperature)


def cross_entropy(logits: types.Array, targets: types.Array) -> types.Array:
  """Mean cross-entropy in nats.

  Args:
    logits: [N, classes]; computed in float32 at least.
    targets: class probabilities, [N, classes].
  """
  return jnp.mean(optax.softmax_cross_entropy(_wide(logits), targets))


def divergence(
  logits: types.Array, taught: types.Array, temperature: types.Scalar
) -> types.Array:
  """T^2 KL(softmax(taught / T) || softmax(logits / T)), mean, in nats."""
  student = jax.nn.log_softmax(_wide(logits) / temperature)
  teacher = jax.nn.log_softmax(_wide(taught) / temperature)
  each = jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
  return temperature**2 * jnp.mean(each)


def accuracy(logits: types.Array, targets: types.Array) -> types.Array:
  """Sum over examples of the target probability of the class that is guessed."""
  guesses = jnp.argmax(logits, axis=-1)
  return jnp.sum(jnp.take_along_axis(targets, guesses[:, None], axis=-1))


def _wide(logits):
  return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
