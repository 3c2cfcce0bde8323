"""Bad input of the study of fitted windows."""

import pytest

from bitjax.studies import fitted_windows


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (
      ['--network=resnet21'],
      'network must be one of mlp, mlp_of_signs, resnet20',
    ),
    (
      ['--arms=window 1,fitted'],
      'arms must list relative Gaussian and window 1, the primary contrast',
    ),
    (['--arms=Bop by STE'], 'list Bop by smoothed gains and Bop by STE'),
    (
      ['--arms=Bop by STE,Bop by smoothed gains'],
      'network=mlp_of_signs, whose only parameters are signs, need each other',
    ),
    (
      ['--arms=Bop by STE,Bop by smoothed gains,window 1'],
      'arms must be estimators, or all of Bop by STE',
    ),
    (['--network=mlp_of_signs'], 'need each other'),
    (['--flip_rate=2'], 'flip_rate must be <= 1'),
    (['--draws=0'], 'draws must be >= 1'),
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
