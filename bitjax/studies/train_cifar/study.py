r"""What do published recipes for low-bit ResNets and VGG reach?

Presets named after papers are published recipes. Their epochs may be cut
(--epochs=10): the schedules of learning rate, progress and phases keep their
shape. The test set is looked at once, at the end; validation examples taken
from the training files choose the best checkpoint. A training that was stopped
goes on from its last checkpoint. An accuracy within half a point of the target
is the same; its 95 % interval is over other seeds and other test images, so
that a single seed, the default, settles nothing. Published test accuracies of
the presets, in % (most of them of the best epoch, without a validation split):

  fp_resnet20 92.1; irnet_resnet20_w1a1 86.5; irnet_resnet20_w1a32 90.8;
  irnet_vgg_w1a1 90.4; dsq_resnet20_w1a1 84.1; dsq_resnet20_w1a32 90.2;
  rbnn_resnet20_w1a1 87.8; reste_resnet20_w1a1 87.92;
  reste_resnet20_w1a32 91.32; dorefa_resnet20_w1a32 90.0

Ten epochs (the presets short_*, see docs/studies/train_cifar.md) take 40
minutes of processor time, or 20 minutes on two cores with --mesh=batch:2. The
first command needs no files (digits32, W1A1, above 97 % in 3 minutes):

  bitjax train_cifar
  bitjax train_cifar --preset=short_w1a1 --data_dir=DIR
  bitjax train_cifar --preset=irnet_resnet20_w1a1 --data_dir=DIR
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from bitjax import cli
from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.train_cifar import figure
from bitjax.studies.train_cifar import findings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'Config', 'run']


@dataclasses.dataclass(frozen=True)
class Config(recipes.NetworkConfig):
  """Configuration of the study; each field is one flag."""

  target: float = cli.flag(
    97.0, 'Test accuracy to compare with, in %.', minimum=0, maximum=100
  )


_CIFAR = {'dataset': 'cifar10', 'validation_examples': 5000}
_SHORT = _CIFAR | {'epochs': 10.0, 'validation_examples': 1000}
_W1A1 = {'variant': 'bireal', 'weights': 'sign', 'activations': 'sign'}
_IRNET = _CIFAR | {'epochs': 400.0}
_RESTE = _CIFAR | {'epochs': 1000.0, 'batch_size': 256, 'warmup': 0.005}

PRESETS: dict[str, dict[str, Any]] = {
  'smoke': _W1A1
  | {'dataset': 'digits', 'network': 'resnet4', 'epochs': 0.1}
  | {'batch_size': 16, 'seeds': (0, 1)},
  'quick': _W1A1
  | {'epochs': 15.0, 'optimizer': 'adam', 'learning_rate': 4e-3}
  | {'augmentation': ('crop',), 'batch_size': 64},
  'fp_resnet20': _CIFAR | {'epochs': 200.0, 'target': 92.1},
  'short_fp': _SHORT | {'target': 82.4},
  'short_sgd_w1a1': _SHORT
  | _W1A1
  | {'validation_examples': 80, 'border': 'mean', 'offsets': 'batch'}
  | {'decayed': 'all', 'last_init_name': 'fan_in_uniform', 'target': 49.1},
  'short_w1a1': _SHORT
  | {'variant': 'react', 'weights': 'sign', 'activations': 'bireal'}
  | {'optimizer': 'adam', 'learning_rate': 3e-3, 'batch_size': 64}
  | {'weight_decay': 0.0, 'target': 60.0},
  'short_w1a32': _SHORT | {'weights': 'sign', 'target': 71.8},
  'irnet_resnet20_w1a1': _IRNET
  | {'variant': 'bireal', 'weights': 'irnet_slow', 'activations': 'ede_slow'}
  | {'target': 86.5},
  'irnet_resnet20_w1a32': _IRNET | {'weights': 'irnet', 'target': 90.8},
  'irnet_vgg_w1a1': _IRNET
  | {'network': 'vgg_small', 'weights': 'irnet', 'activations': 'ede'}
  | {'learning_rate': 0.007, 'target': 90.4},
  'dsq_resnet20_w1a1': _IRNET
  | {'weights': 'learned_dsq1', 'activations': 'dsq', 'target': 84.1},
  'dsq_resnet20_w1a32': _IRNET | {'weights': 'learned_dsq1', 'target': 90.2},
  'rbnn_resnet20_w1a1': _RESTE
  | {'variant': 'bireal', 'weights': 'rbnn', 'activations': 'rbnn'}
  | {'target': 87.8},
  'reste_resnet20_w1a1': _RESTE
  | {'variant': 'bireal', 'weights': 'reste', 'activations': 'reste'}
  | {'progress': 'cosine', 'target': 87.92},
  'reste_resnet20_w1a32': _RESTE
  | {'weights': 'reste', 'progress': 'cosine', 'target': 91.32},
  'dorefa_resnet20_w1a32': _IRNET | {'weights': 'dorefa1', 'target': 90.0},
}


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains every seed."""
  parts = config.open(sweep)
  stages = config.stages(parts.train.num_classes)
  recipe = training.Recipe(**config.recipe())
  taught = None
  if config.teacher is not None:
    teacher = config.full_precision(parts.train.num_classes)
    taught = training.Distillation(
      teacher, training.load_variables(config.teacher), config.teaching
    )
  phases = recipe.phases(stages, parts.train, distillation=taught)
  images = phases[0].task.prepare(jnp.asarray(parts.train.images[:1]))
  start = None
  if config.pretrained is not None:
    start = training.load_variables(config.pretrained, which=config.which)
    training.check_fits(stages[-1][1], start, images)
  if taught is not None:
    training.check_fits(taught.model, taught.variables, images)
  dims, coords = training.layout(phases, parts.train, config.batch_size)

  def train(folder, report, mesh, seed):
    return training.outcome(
      phases,
      *parts,
      batch_size=config.batch_size,
      seeds=seed.tolist(),
      folder=folder,
      variables=start,
      tensorboard=config.tensorboard,
      mesh=mesh,
      report=report,
    )

  results = sweep.hosted(
    train, name='train', lanes={'seed': config.seeds}, dims=dims, coords=coords
  )
  return results.assign_attrs(
    target=config.target,
    own=config.own(),
    test_examples=len(parts.test.labels),
  )


STUDY = cli.Study(
  'train_cifar', __doc__, Config, PRESETS, run, findings.judge, figure.page
)
