r"""What do published recipes for low-bit super-resolution reach?

Presets named after papers are published recipes, of which --epochs makes shorter
trainings of the same shape. An epoch takes 20 patches from each image, which for
800 images are 1000 updates, as in EDSR's code; the loss is the mean absolute error.
DIR/train has images to train on, of which 10 choose the best checkpoint instead,
DIR/Set5 those of the test, at which is looked once, at the end. A training that was stopped goes on from its last checkpoint.
`bitjax super_resolve` enlarges images by the network.

PSNR (luma of whole images, a border of the scale left out) is compared with that of
bicubic resampling, and with --target, which is what was published, in dB:

  edsr_baseline x2, Set5, 38.02 (model card of super-image; EDSR's own code gives
  34.61 of RGB on DIV2K); srresnet x2, Set5, 38.00 (BBCU's table, of a network without
  BatchNorm); bbcu_w1a1 x2, Set5, 37.58 and react_w1a1 x2, Set5, 37.26 (BBCU's table);
  pams_w8a8 x4, Set14, 28.585 and pams_w4a4 28.199 (PAMS's repository); ddtb_w4a4 x2,
  Set5, 37.72, ddtb_w3a3 37.51 and ddtb_w2a2 37.25 (DDTB's repository)

Of e2fif_w1a1 (x4) no published number could be verified, so it has no target. Digits of
BBCU's table were read off its picture. Rates and lengths are those of the published
code, but for react_w1a1, which has BBCU's. What differs from the papers: networks have
3 x 3 convolutions, a quantized convolution at the end of the body, ReLU or hardtanh for
leaky ReLUs, and shortcuts of full precision; E2FIF sees luma alone, BBCU multiplies
images by 130 (here the branch by 1/130) and has one more convolution before the tail.
PAMS and DDTB learn from the features of a teacher too, and DDTB's bounds follow the image;
both start from full precision: give --pretrained. Otherwise they begin at random.

A difference within 0.1 dB does not matter. The 95 % interval is over seeds, so that a
single seed, the default, settles nothing. In this order, the commands train a light
network on photographs that come with packages (some minutes), and EDSR's baseline
for a hundredth of its recipe, from which DDTB's network of two bits starts:

  bitjax train_superres
  bitjax train_superres --preset=edsr_baseline --epochs=3 --data_dir=DIR
  bitjax train_superres --preset=ddtb_w2a2 --epochs=0.6 --data_dir=DIR
    --pretrained=runs/train_superres/edsr_baseline/lanes/train/0-0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitjax import cli
from bitjax import sweeps
from bitjax.studies.train_superres import config as config_lib
from bitjax.studies.train_superres import figure
from bitjax.studies.train_superres import findings
from bitjax.studies.train_superres import trainings

if TYPE_CHECKING:
  import xarray

__all__ = ['PRESETS', 'STUDY', 'run']

_PUBLISHED: dict[str, Any] = {
  'images': 'folder',
  'validation_images': 10,
  'blocks': 16,
  'channels': 64,
  'batch_size': 16,
  'side': 48,
  'repeats': 20,
  'epochs': 300.0,
  'learning_rate': 1e-4,
  'schedule': 'step',
  'milestones': (2 / 3,),
}
_FINE_TUNED = {'epochs': 60.0, 'milestones': tuple(k / 6 for k in range(1, 6))}
_BBCU = {'side': 32, 'shortcut': 'each', 'kernels': 'scaled'}
_BBCU |= {'inputs': 'bireal', 'thresholds': True, 'activation': 'rprelu'}
_PAMS = {'scale': 4, 'epochs': 30.0, 'milestones': (1 / 3, 2 / 3)}
_PAMS |= {'test_set': 'Set14'}

PRESETS: dict[str, dict[str, Any]] = {
  'smoke': {'epochs': 0.25, 'seeds': (0, 1, 2), 'blocks': 1, 'channels': 4}
  | {'side': 8, 'target': 30.0, 'base': 'bicubic'},
  'quick': {'blocks': 4, 'base': 'bicubic', 'learning_rate': 4e-3}
  | {'side': 24, 'batch_size': 16, 'repeats': 64, 'epochs': 40.0},
  'edsr_baseline': _PUBLISHED | {'target': 38.02},
  'srresnet': _PUBLISHED
  | {'norm': True, 'epochs': 500.0, 'milestones': (0.4, 0.8), 'target': 38.0},
  'e2fif_w1a1': _PUBLISHED
  | {'scale': 4, 'shortcut': 'each', 'norm': True, 'upsampler': 'direct'}
  | {'kernels': 'signs', 'inputs': 'bireal', 'learning_rate': 2e-4},
  'bbcu_w1a1': _PUBLISHED | _BBCU | {'multiplier': 1 / 130, 'target': 37.58},
  'react_w1a1': _PUBLISHED | _BBCU | {'norm': True, 'target': 37.26},
  'pams_w8a8': _PUBLISHED
  | _PAMS
  | {'kernels': 'max8', 'inputs': 'pams8', 'target': 28.585},
  'pams_w4a4': _PUBLISHED
  | _PAMS
  | {'kernels': 'max4', 'inputs': 'pams4', 'target': 28.199},
  'ddtb_w4a4': _PUBLISHED
  | _FINE_TUNED
  | {'kernels': 'lsq4', 'inputs': 'ddtb4', 'target': 37.72},
  'ddtb_w3a3': _PUBLISHED
  | _FINE_TUNED
  | {'kernels': 'lsq3', 'inputs': 'ddtb3', 'target': 37.51},
  'ddtb_w2a2': _PUBLISHED
  | _FINE_TUNED
  | {'kernels': 'lsq2', 'inputs': 'ddtb2', 'target': 37.25},
}


def run(config: config_lib.Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Trains every seed."""
  return trainings.train(config, config.open(sweep), sweep)


STUDY = cli.Study(
  'train_superres',
  __doc__,
  config_lib.Config,
  PRESETS,
  run,
  findings.judge,
  figure.page,
)
