"""Bad input of the main study: one line, status 2, nothing written."""

import pytest

from bitjax.studies import multistep_ste


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--dataset=imagenet', 'mnist5k'),
    ('--optimizers=sgd,rmsprop', 'adam'),
    ('--norm=l3', 'linf'),
    ('--networks=ternary', 'binary_weights'),
    ('--preset=huge', 'quick'),
    ('--learning_rate=1', 'learning_rates'),
    ('--budget=-1', 'budget'),
    ('--budget=nan', 'budget'),
    ('--noise=-0.1', 'noise'),
    ('--noise=0.5', 'list 0'),
    ('--seeds=', 'seeds'),
    ('--batch_size=4000', 'augment=shift'),
    ('--dataset=mnist', 'data_dir'),
    ('--out=/proc/nowhere/run', '/proc/nowhere'),
  ],
)
def test_bad_input(refused, flag, words):
  refused(multistep_ste.STUDY, [flag], words)
