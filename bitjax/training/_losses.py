r"""Losses of training: cross-entropy with soft targets, and distillation.

Targets are class probabilities, so that label smoothing and mixed images need no
losses of their own. With targets y, the network's logits z, a teacher's logits t, a
temperature T and a weight :math:`\lambda`, the loss is

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

from bitjax import nn as networks
from bitjax import types

__all__ = ['Distillation', 'cross_entropy', 'divergence', 'num_correct']


@dataclasses.dataclass(frozen=True)
class Distillation:
  """A teacher whose logits the network learns in addition to the labels.

  Attributes:
    model: the teacher; called with ``train=False``, if it takes that, on the
      augmented images.
    variables: its variables, without an axis of seeds.
    weight: lambda in [0, 1], the weight of the teacher's part of the loss.
    temperature: T > 0, by which both networks' logits are divided.

  Raises:
    BadInput: for a weight outside [0, 1] or a temperature that is not positive.
  """

  model: nn.Module
  variables: types.PyTree
  weight: float = 0.5
  temperature: float = 1.0

  def __post_init__(self):
    types.check_range('weight', self.weight, 0.0, 1.0)
    types.check_positive('temperature', self.temperature, finite=True)

  def loss(
    self, variables: types.PyTree, images: types.Array, logits: types.Array
  ) -> types.Array:
    """Returns the divergence of logits [N, classes] from the teacher's, in nats."""
    options = networks.call_options(self.model, train=False)
    teacher_logits: Any = self.model.apply(variables, images, **options)
    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    return divergence(logits, teacher_logits, self.temperature)


def cross_entropy(logits: types.Array, targets: types.Array) -> types.Array:
  """Returns the mean cross-entropy in nats.

  Args:
    logits: [N, classes]; computed in float32 at least.
    targets: class probabilities, [N, classes].
  """
  return jnp.mean(optax.softmax_cross_entropy(types.widened(logits), targets))


def divergence(
  logits: types.Array, teacher_logits: types.Array, temperature: types.Scalar
) -> types.Array:
  """Returns the mean T^2 KL(softmax(t / T) || softmax(z / T)) in nats.

  Args:
    logits: z, the network's logits, [N, classes]; computed in float32 at least.
    teacher_logits: t, those of the teacher, likewise.
    temperature: T > 0.
  """
  types.check_positive('temperature', temperature, finite=True)
  student = jax.nn.log_softmax(types.widened(logits) / temperature)
  teacher = jax.nn.log_softmax(types.widened(teacher_logits) / temperature)
  each = jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
  return temperature**2 * jnp.mean(each)


def num_correct(logits: types.Array, targets: types.Array) -> types.Array:
  """Returns how many guesses are correct, each weighted by its target probability."""
  guesses = jnp.argmax(logits, axis=-1)
  return jnp.sum(jnp.take_along_axis(targets, guesses[:, None], axis=-1))
