r"""What a network is trained for: the loss, and the score that tells how good it is.

The loop knows a problem by the means that it takes, over examples, batches and periods: of
losses, and of values from whose mean a score follows. Of classes the values are right
guesses, and their mean is the accuracy. Of images they are squared errors, from whose mean
follows the PSNR: a mean of decibels would be infinite if one tile were exact.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import optax

from bitjax import measures
from bitjax import types
from bitjax.training import _losses

__all__ = ['Classification', 'Problem', 'Reconstruction']


class Problem(Protocol):
  """A loss and a score; pure functions, called inside ``jit``."""

  @property
  def score(self) -> str:
    """The name of the score in the history, after ``train_`` and ``validation_``."""
    ...

  def targets(self, labels: types.Array) -> types.Array:
    """Returns what the loss compares with, from labels as they are stored."""
    ...

  def loss(self, outputs: types.Array, targets: types.Array) -> types.Array:
    """Returns the mean loss of a batch."""
    ...

  def total(self, outputs: types.Array, targets: types.Array) -> types.Array:
    """Returns the sum of a training batch's values."""
    ...

  def each(
    self, outputs: types.Array, labels: types.Array
  ) -> tuple[types.Array, types.Array]:
    """Returns the loss and the value of each example, [N], in evaluation."""
    ...

  def summary(self, mean: types.Array) -> types.Array:
    """Returns the score that follows from a mean of values; larger is better."""
    ...

  def shown(self, score: float) -> str:
    """Returns a score with its unit, for a line of progress."""
    ...


@dataclasses.dataclass(frozen=True)
class Classification:
  """Classes by cross-entropy, in nats; the score is the share of right guesses.

  Attributes:
    num_classes: number of classes of the labels.
  """

  num_classes: int
  score = 'accuracy'

  def __post_init__(self):
    types.check_integer('num_classes', self.num_classes, 1)

  def targets(self, labels: types.Array) -> types.Array:
    """Returns probabilities of classes, float32 [N, classes]."""
    return jax.nn.one_hot(labels, self.num_classes, dtype=jnp.float32)

  def loss(self, outputs: types.Array, targets: types.Array) -> types.Array:
    """Returns the mean cross-entropy of logits [N, classes]."""
    return _losses.cross_entropy(outputs, targets)

  def total(self, outputs: types.Array, targets: types.Array) -> types.Array:
    """Returns the number of right guesses, each weighted by its probability."""
    return _losses.num_correct(outputs, targets)

  def each(
    self, outputs: types.Array, labels: types.Array
  ) -> tuple[types.Array, types.Array]:
    """Returns cross-entropies [N], and which guesses are right, bool [N]."""
    logits = outputs.astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses, jnp.argmax(logits, axis=-1) == labels

  def summary(self, mean: types.Array) -> types.Array:
    """Returns the share itself."""
    return mean

  def shown(self, score: float) -> str:
    """Returns per cent."""
    return f'{100 * score:.1f} %'


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  r"""Images by the mean absolute error, in grey levels; the score is their PSNR.

  .. math:: \ell = 255 \operatorname{mean} |y - t|, \qquad
    \mathrm{PSNR} = 10 \log_{10}(255^2 / \operatorname{mean} \mathrm{MSE})

  Outputs y and targets t have values from 0 to 1 and the same shape, labels are bytes. The
  PSNR is that of all images of a period, or of an evaluation, as one; papers' is the mean
  over whole images (`image_scores`). Outputs are clipped and rounded to bytes before an
  evaluation, and not while training.

  Attributes:
    border: pixels at each edge that the PSNR leaves out; papers take the scale.
    channels: ``'luma'`` or ``'rgb'``, as for `bitjax.measures.psnr`.

  Raises:
    BadInput: for a negative border, or other channels.
  """

  border: int = 0
  channels: measures.Channels = 'luma'
  score = 'psnr'

  def __post_init__(self):
    types.check_integer('border', self.border, 0)
    types.check_choice('channels', self.channels, measures.CHANNELS)

  def targets(self, labels: types.Array) -> types.Array:
    """Returns bytes as floats from 0 to 1."""
    return labels.astype(jnp.float32) / 255

  def loss(self, outputs: types.Array, targets: types.Array) -> types.Array:
    """Returns the mean absolute error in grey levels."""
    return 255 * jnp.mean(jnp.abs(types.widened(outputs) - targets))

  def total(self, outputs: types.Array, targets: types.Array) -> types.Array:
    """Returns the sum of the images' mean squared errors, in grey levels squared."""
    wide = 255 * types.widened(outputs)
    return jnp.sum(self._errors(wide, 255 * targets))

  def each(
    self, outputs: types.Array, labels: types.Array
  ) -> tuple[types.Array, types.Array]:
    """Returns absolute and squared errors, the mean over each image, [N]."""
    wide = 255 * types.widened(outputs)
    truth = labels.astype(wide.dtype)
    losses = jnp.mean(jnp.abs(wide - truth), axis=(1, 2, 3))
    return losses, self._errors(jnp.round(jnp.clip(wide, 0, 255)), truth)

  def summary(self, mean: types.Array) -> types.Array:
    """Returns the PSNR of a mean squared error, in decibels."""
    return 10 * jnp.log10(255**2 / mean)

  def shown(self, score: float) -> str:
    """Returns decibels."""
    return f'{score:.2f} dB'

  def _errors(self, images, truth):
    return measures.squared_error(
      images, truth, border=self.border, channels=self.channels
    )
