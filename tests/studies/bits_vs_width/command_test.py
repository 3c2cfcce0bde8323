"""Bad input of the study of bits and width."""

import pytest

from bitjax.studies import bits_vs_width


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--bits=1,2'], 'bits must list 4, for the primary contrast; got 1, 2'),
    (['--bits=5'], 'bits must be one of 1, 1.58'),
    (['--equal=width'], 'equal must list bits, for the primary contrast'),
    (['--kinds=random'], 'kinds must list scratch'),
    (['--widths=0'], 'widths must be >= 1'),
    (['--flips=1.5'], 'flips must be <= 1'),
    (['--optimizer=bop'], 'bop needs weights of 1 bit; got 1, 4'),
    (['--tuning_seeds=7,2'], 'no seed in common; both list 2'),
    (['--batch_size=5000'], 'batch_size must be at most 1242'),
    (['--dataset=cifar10'], 'data_dir'),
  ],
)  # fmt: skip
def test_bad_input(refused, flags, words):
  refused(bits_vs_width.STUDY, ['--preset=smoke', *flags], words)
