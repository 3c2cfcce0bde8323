"""Bad input of the study of hardware."""

import pytest

from bitjax.studies import hardware


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--bits=1,2'], 'bits must list 4, for the primary contrast; got 1, 2'),
    (['--bits=5'], 'bits must be one of 1, 1.58'),
    (['--network=vgg_small'], 'network must be one of mlp, resnet8'),
    (['--widths=0'], 'widths must be >= 1'),
    (['--luts=10'], 'luts must be >= 1000'),
    (['--optimizer=bop'], 'bop needs weights of 1 bit; got 1, 4'),
    (['--tuning_seeds=7,2'], 'no seed in common; both list 2'),
    (['--batch_size=5000'], 'batch_size must be at most 1242'),
    (['--dataset=cifar10'], 'data_dir'),
  ],
)
def test_bad_input(refused, flags, words):
  refused(hardware.STUDY, ['--preset=smoke', *flags], words)
