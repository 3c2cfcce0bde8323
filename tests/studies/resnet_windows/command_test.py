"""Bad input of the study of windows on ResNets."""

import pytest

from bitjax.studies import resnet_windows


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--half_widths=1,2'], 'half_widths must list 0.5 and 1'),
    (['--units=relative'], 'units absolute, the primary contrast'),
    (['--network=vgg_small'], 'network must be one of resnet4'),
    (['--static_networks=resnet8'], 'static_networks must begin with the network'),
    (['--states=initialised'], 'states must list trained'),
    (['--static_widths=1'], 'static_widths 0.5, the second contrast'),
    (['--images=15'], 'num_parts must divide images, 15; got 2'),
    (['--images=64'], 'at most a quarter of validation_examples, 200; got 64'),
    (['--shapes=other'], 'shapes must be one of Bi-Real'),
    (['--step_rates=2'], 'step_rates must be'),
    (['--tuning_seeds=7,2'], 'no seed in common; both list 2'),
    (['--batch_size=5000'], 'batch_size must be at most 1242'),
    (['--dataset=cifar10'], 'data_dir'),
  ],
)  # fmt: skip
def test_bad_input(refused, flags, words):
  refused(resnet_windows.STUDY, ['--preset=smoke', *flags], words)
