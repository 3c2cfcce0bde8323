"""Bad input of the study of local optima."""

import pytest

from bitjax.studies import local_optima


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--perturbed=513', 'perturbed must be at most 512, the weights of the'),
    ('--batch_size=32,64', 'batch_size takes at most 1 value; got 2'),
    ('--batch_size=1000', 'need 2000 examples; the data has 1797'),
    ('--adam_rates=0.1,0.1', 'adam_rates lists 0.1 twice'),
    ('--budget=0.1', 'unknown flag --budget'),
    ('--seeds=0,1001', 'seeds and tuning_seeds must have no seed in common'),
    ('--longer=1', 'longer must be'),
    ('--norm=l2', 'unknown flag --norm'),
  ],
)
def test_bad_input(refused, flag, words):
  refused(local_optima.STUDY, ['--preset=smoke', flag], words)
