"""Is the straight-through estimator a smoothed discrete gradient?

python -m experiments.smoothed_gradient --help
"""

from bitjax import cli
from bitjax.studies import smoothed_gradient

if __name__ == '__main__':
  cli.main(smoothed_gradient.STUDY)
