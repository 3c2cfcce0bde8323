"""What do published recipes for low-bit super-resolution reach?

python -m experiments.train_superres --help
"""

from bitjax import cli
from bitjax.studies import train_superres

if __name__ == '__main__':
  cli.main(train_superres.STUDY)
