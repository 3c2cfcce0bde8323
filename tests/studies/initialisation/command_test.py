"""Bad input of the study of initialisations."""

import pytest

from bitjax.studies import initialisation


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--passing=xavier'], 'passing must list kaiming_normal'),
    (['--passing=other'], 'passing must be one of kaiming_normal'),
    (['--starts=scaled 7'], 'starts must be one of kaiming_normal'),
    (['--networks=vgg_small'], 'networks must be one of resnet4'),
    (['--optimizer=bop'], 'optimizer must be one of sgd'),
    (['--variant=react'], 'variant must be one of plain, bireal'),
    (['--classifier_decay=0'], 'classifier_decay must be'),
    (['--tuning_seeds=7,2'], 'no seed in common; both list 2'),
    (['--batch_size=5000'], 'batch_size must be at most 1242'),
    (['--dataset=cifar10'], 'data_dir'),
  ],
)  # fmt: skip
def test_bad_input(refused, flags, words):
  refused(initialisation.STUDY, ['--preset=smoke', *flags], words)
