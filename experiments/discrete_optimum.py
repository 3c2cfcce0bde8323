"""How near do gradients and searches come to the best point of a small ball?

python -m experiments.discrete_optimum --help
"""

from bitjax import cli
from bitjax.studies import discrete_optimum

if __name__ == '__main__':
  cli.main(discrete_optimum.STUDY)
