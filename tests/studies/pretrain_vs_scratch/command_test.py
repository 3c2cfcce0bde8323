"""Bad input of the study of pretraining."""

import pytest

from bitjax.studies import pretrain_vs_scratch


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--starts=scratch'], 'starts must list scratch and pretrained'),
    (['--starts=scratch,other'], 'starts must be one of scratch'),
    (['--mixups=1'], 'mixups must list 0, the primary contrast; got 1'),
    (['--precisions=W3A3'], 'precisions must be one of W1A1'),
    (['--tuning_seeds=7,2'], 'no seed in common; both list 2'),
    (['--augmentation=mixup'], 'must leave mixup to --mixups'),
    (['--optimizer=bop', '--precisions=W1A1,FP'], 'bop needs weights of 1 bit'),
    (['--image_size=3'], 'image_size: side must divide the height'),
    (['--train_examples=5000'], 'train_examples: examples must be at most 1242'),
    (['--batch_size=5000'], 'batch_size must be at most 1242'),
    (['--dataset=cifar10'], 'data_dir'),
  ],
)  # fmt: skip
def test_bad_input(refused, flags, words):
  refused(pretrain_vs_scratch.STUDY, ['--preset=smoke', *flags], words)
