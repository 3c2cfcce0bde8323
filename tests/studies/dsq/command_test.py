"""Bad input of the study of DSQ."""

import pytest

from bitjax.studies import dsq


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--network=resnet21'], 'network must be one of resnet20, resnet32'),
    (['--arms=learned'], 'arms must list falling and fixed 0.2'),
    (['--arms=falling,fixed 0.3'], 'arms must be one of clipped identity'),
    (['--bits=0'], 'bits must be >= 1'),
    (['--bits=1,1'], 'bits lists 1 twice'),
    (['--rates=0'], 'rates must be >= 1e-06'),
    (['--tuning_seeds=7,2'], 'no seed in common; both list 2'),
    (['--tuning_seeds=7,7'], 'tuning_seeds lists 7 twice'),
    (['--batch_size=5000'], 'batch_size must be at most 1242'),
    (['--dataset=cifar10'], 'data_dir'),
    (['--optimizer=bop', '--bits=1,2'], 'bop needs weights of 1 bit; got 1, 2'),
    (['--clip_latent=1', '--bits=2'], 'clip_latent needs weights of 1 bit'),
  ],
)
def test_bad_input(refused, flags, words):
  refused(dsq.STUDY, ['--preset=smoke', *flags], words)
