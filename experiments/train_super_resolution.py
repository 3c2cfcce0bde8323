"""What do published recipes for low-bit super-resolution reach?

python -m experiments.train_super_resolution --help
"""

from bitjax import cli
from bitjax.studies import train_super_resolution

if __name__ == '__main__':
  cli.main(train_super_resolution.STUDY)
