"""In what sense does the discrete gradient bound the straight-through estimator?

python -m experiments.discrete_gradient --help
"""

from bitjax import cli
from bitjax.studies import discrete_gradient

if __name__ == '__main__':
  cli.main(discrete_gradient.STUDY)
