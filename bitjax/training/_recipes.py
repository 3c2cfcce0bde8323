"""A recipe: the numbers that papers print under 'implementation details'.

It says everything about a training but the network and the data, in epochs and
shares of the training, so that a shortened training keeps its shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools

from flax import linen as nn

from bitjax import data
from bitjax import types
from bitjax.training import _fit
from bitjax.training import _losses
from bitjax.training import _optimizers
from bitjax.training import _schedules
from bitjax.training import _task

__all__ = ['BORDERS', 'OFFSETS', 'Recipe']

BORDERS = ('black', 'mean')
OFFSETS = ('image', 'batch')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """How to train.

  Attributes:
    epochs: passes over the training set, may be a fraction.
    batch_size: examples of an update.
    optimizer: one of `OPTIMIZERS`.
    learning_rate: at its peak.
    schedule: one of `SCHEDULES`.
    warmup: share of the training before the peak, in [0, 1).
    momentum: of SGD.
    weight_decay: as in `optimizer`.
    decayed: what it acts on, ``'kernels'`` or ``'all'``.
    quantizer_rate: learning rate of quantizers' parameters, as a multiple.
    clip_latent: bound on binary layers' weights; None for none.
    augmentation: names for `data.standard`, such as ``('crop', 'flip', 'mixup')``.
    border: colour around cropped images, ``'black'`` or the ``'mean'`` of the
      training set.
    offsets: who draws one for the crop, every ``'image'`` or the ``'batch'``.
    alpha: of mixup and cutmix.
    smoothing: label smoothing.
    average: decay of the moving average; None for none.
    progress: one of `PROGRESS`.
    binary: expressions for the binary layers, see `optimizer`.
    frozen: expressions for leaves that stay, see `optimizer`.

  Raises:
    ValueError: for no epochs, a batch without examples, a warm-up out of range,
      an alpha that is not positive, or an augmentation, a border or offsets of
      another name.
  """

  epochs: float = 10.0
  batch_size: int = 128
  optimizer: str = 'sgd'
  learning_rate: float = 0.1
  schedule: str = 'cosine'
  warmup: float = 0.0
  momentum: float = 0.9
  weight_decay: float = 1e-4
  decayed: str = 'kernels'
  quantizer_rate: float = 1.0
  clip_latent: float | None = None
  augmentation: tuple[str, ...] = ('crop', 'flip')
  border: str = 'black'
  offsets: str = 'image'
  alpha: float = 1.0
  smoothing: float = 0.0
  average: float | None = None
  progress: str = 'linear'
  binary: tuple[str, ...] = ('Block_',)
  frozen: tuple[str, ...] = ()

  def __post_init__(self):
    types.check_positive('epochs', self.epochs)
    types.check_integer('batch_size', self.batch_size, 1)
    types.check_positive('alpha', self.alpha)
    if not 0 <= self.warmup < 1:
      raise types.BadInput(f'warmup must be in [0, 1); got {self.warmup}.')
    types.check_choice('border', self.border, BORDERS)
    types.check_choice('offsets', self.offsets, OFFSETS)
    self._augmentation(0)

  def num_steps(self, num_examples: int) -> int:
    """Updates of the whole training, at least one.

    Args:
      num_examples: of the training set.

    Raises:
      ValueError: if they do not fill one batch.
    """
    per_epoch = num_examples // self.batch_size
    if not per_epoch:
      raise types.BadInput(
        f'batch_size must be at most {num_examples}, the examples to train on; '
        f'got {self.batch_size}.'
      )
    return max(1, round(self.epochs * per_epoch))

  def phases(
    self,
    stages: Sequence[tuple[float, nn.Module]] | nn.Module,
    dataset: data.Dataset,
    *,
    distillation: _losses.Distillation | None = None,
  ) -> list[_fit.Phase]:
    """What `fit` runs.

    Args:
      stages: a model; or several of one shape, each with the share of the training
        at which it ends, growing to 1: activations quantized first, then weights.
      dataset: the training set; images are normalised by its statistics.
      distillation: a teacher; None for none.

    Raises:
      ValueError: for shares that do not grow to 1, or a phase without updates.
    """
    if isinstance(stages, nn.Module):
      stages = [(1.0, stages)]
    shares = [share for share, _ in stages]
    grow = shares == sorted(set(shares)) and min(shares, default=0) > 0
    if not grow or shares[-1] != 1:
      raise types.BadInput(f'shares must grow to 1; got {shares}.')
    total = self.num_steps(len(dataset.labels))
    ends = [max(1, round(share * total)) for share in shares]
    if ends != sorted(set(ends)):
      raise types.BadInput(
        f'every phase needs an update; shares {shares} of {total} updates leave '
        'one without.'
      )
    statistics = data.channel_statistics(dataset.images, dataset.scale)
    prepare = preparation(statistics, dataset.scale)
    mean = statistics.mean / dataset.scale
    augment = self._augmentation(mean if self.border == 'mean' else 0)
    tx = self._tx(total)
    return [
      _fit.Phase(
        _task.Task(
          model,
          tx,
          dataset.num_classes,
          prepare,
          augment=_then(augment, prepare),
          progress=_schedules.progress(self.progress, total),
          smoothing=self.smoothing,
          distillation=distillation,
          average=self.average,
        ),
        end,
      )
      for end, (_, model) in zip(ends, stages, strict=True)
    ]

  def _tx(self, total):
    return _optimizers.optimizer(
      self.optimizer,
      _schedules.learning_rate(
        self.schedule,
        self.learning_rate,
        total,
        warmup=min(round(self.warmup * total), total - 1),
      ),
      momentum=self.momentum,
      weight_decay=self.weight_decay,
      decayed=self.decayed,
      quantizer_rate=self.quantizer_rate,
      clip_latent=self.clip_latent,
      binary=self.binary,
      frozen=self.frozen,
    )

  def _augmentation(self, fill):
    return data.standard(
      self.augmentation,
      fill=fill,
      shared=self.offsets == 'batch',
      mixup_alpha=self.alpha,
      cutmix_alpha=self.alpha,
    )


def preparation(
  statistics: data.Statistics, scale: float
) -> Callable[[types.Array], types.Array]:
  """Normalisation by the statistics of a training set."""
  return functools.partial(
    data.normalize,
    mean=statistics.mean,
    std=statistics.std,
    scale=scale,
  )


def _then(augmentation, prepare):
  def augment(key, images, targets):
    images, targets = augmentation(key, images, targets)
    return prepare(images), targets

  return augment
