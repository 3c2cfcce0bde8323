"""Are more bits in each weight, or more weights, easier to train, and why?

python -m experiments.bits_vs_width --help
"""

from bitjax import cli
from bitjax.studies import bits_vs_width

if __name__ == '__main__':
  cli.main(bits_vs_width.STUDY)
