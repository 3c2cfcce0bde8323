"""Recipes: the hyperparameters that papers print under 'implementation details'.

A recipe says everything about a training except the network and the data. Durations
are in epochs and shares of the training, so that a shortened training keeps its shape.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_MAX_STEPS = 2**31 - 1  # Updates are counted in int32.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """The hyperparameters of a training.

  Attributes:
    epochs: passes over the training set; may be fractional.
    batch_size: examples of an update.
    optimizer: one of `OPTIMIZERS`.
    learning_rate: the learning rate at its peak.
    schedule: one of `SCHEDULES`.
    warmup: share of the training before the peak, in [0, 1).
    momentum: momentum of SGD.
    weight_decay: weight decay, as in `optimizer`.
    decayed: the leaves that weight decay acts on, ``'kernels'`` or ``'all'``.
    quantizer_rate: factor on the learning rate for the parameters of quantizers.
    quantizer_decay: weight decay of the alphas of PACT and DSQ; None to treat them as
      ``decayed`` says.
    clip_latent: bound on the magnitude of binary layers' weights; None for none.
    augmentation: names for `data.standard`, such as ``('crop', 'flip', 'mixup')``.
    border: colour around cropped images, ``'black'`` or the ``'mean'`` of the
      training set.
    offsets: whether each ``'image'`` or the whole ``'batch'`` draws an offset for
      the crop.
    alpha: the parameter alpha of mixup and cutmix.
    smoothing: label smoothing, in [0, 1).
    average: decay of the moving average of all variables; None for none.
    progress: one of `PROGRESS`.
    binary: regular expressions for the binary layers; see `optimizer`.
    frozen: regular expressions for leaves that never change; see `optimizer`.

  Raises:
    BadInput: for a number out of range, an unknown name, or what `optimizer` refuses.
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
  quantizer_decay: float | None = None
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
    types.check_positive('epochs', self.epochs, finite=True)
    types.check_integer('batch_size', self.batch_size, 1)
    types.check_positive('alpha', self.alpha, finite=True)
    types.check_positive('learning_rate', self.learning_rate, finite=True)
    types.check_choice('optimizer', self.optimizer, _optimizers.OPTIMIZERS)
    types.check_choice('schedule', self.schedule, _schedules.SCHEDULES)
    types.check_choice('progress', self.progress, _schedules.PROGRESS)
    types.check_fraction('smoothing', self.smoothing)
    if self.average is not None:
      types.check_open_interval('average', self.average, 0.0, 1.0)
    types.check_number('warmup', self.warmup)
    if not 0 <= self.warmup < 1:
      raise types.BadInput(f'warmup must be in [0, 1); got {self.warmup}.')
    types.check_choice('border', self.border, BORDERS)
    types.check_choice('offsets', self.offsets, OFFSETS)
    # Both check the rest of the fields, which they call by the same names.
    self._augmentation(0)
    self._tx(1)

  def num_steps(self, num_examples: int) -> int:
    """Returns the number of updates of the whole training, at least one.

    Args:
      num_examples: number of examples in the training set.

    Raises:
      BadInput: if they do not fill one batch, or for more updates than can be counted.
    """
    per_epoch = num_examples // self.batch_size
    if not per_epoch:
      raise types.BadInput(
        f'batch_size must be at most {num_examples}, the examples to train on; '
        f'got {self.batch_size}.'
      )
    num_steps = max(1, round(self.epochs * per_epoch))
    if num_steps > _MAX_STEPS:
      raise types.BadInput(
        f'epochs must be at most {_MAX_STEPS // per_epoch} with these batches, for '
        f'{_MAX_STEPS} updates; got {self.epochs:g}.'
      )
    return num_steps

  def phases(
    self,
    stages: Sequence[tuple[float, nn.Module]] | nn.Module,
    dataset: data.Dataset,
    *,
    distillation: _losses.Distillation | None = None,
  ) -> list[_fit.Phase]:
    """Returns the phases of the training, which `fit` runs.

    Args:
      stages: a model; or several of one shape, such as one with quantized activations
        and then one with quantized weights too. Each of several comes with the share
        of the training at which it ends; shares increase to 1.
      dataset: the training set; images are normalised by its statistics.
      distillation: a teacher; None for none.

    Raises:
      BadInput: for shares that do not increase to 1, or a phase without updates.
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
    prepare = preparation(dataset)
    mean = prepare.keywords['mean'] / dataset.scale
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
      quantizer_decay=self.quantizer_decay,
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


def preparation(dataset: data.Dataset) -> functools.partial[types.Array]:
  """Returns the function by which recipes prepare images for a network.

  It is `data.normalize`, with mean and deviation of each channel of a training set.

  Args:
    dataset: the training set.
  """
  statistics = data.channel_statistics(dataset.images, dataset.scale)
  return functools.partial(
    data.normalize,
    mean=statistics.mean,
    std=statistics.std,
    scale=dataset.scale,
  )


def _then(augmentation, prepare):
  def augment(key, images, targets):
    images, targets = augmentation(key, images, targets)
    return prepare(images), targets

  return augment
