"""Bad input of the study of fitted windows."""

import pytest

from bitjax.studies import fitted_windows


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--network=resnet21'], 'network must be one of mlp, resnet20'),
    (
      ['--arms=window 1,fitted'],
      'arms must list relative Gaussian and window 1, the primary contrast',
    ),
    (['--arms=window 3'], 'arms must be one of window 1, fixed window'),
    (['--refit_epochs=0'], 'refit_epochs must be > 0'),
    (['--sample=0'], 'sample must be >= 1'),
    (['--hidden=0'], 'hidden must be >= 1'),
    (['--rates=0'], 'rates must be >= 1e-06'),
    (['--tuning_seeds=7,2'], 'no seed in common; both list 2'),
    (['--batch_size=5000'], 'batch_size must be at most 1242'),
    (['--dataset=cifar10'], 'data_dir'),
  ],
)
def test_bad_input(refused, flags, words):
  refused(fitted_windows.STUDY, ['--preset=smoke', *flags], words)
