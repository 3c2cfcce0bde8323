"""Which initialisation suits a binary network, and why is a small classifier better?

python -m experiments.initialisation --help
"""

from bitjax import cli
from bitjax.studies import initialisation

if __name__ == '__main__':
  cli.main(initialisation.STUDY)
