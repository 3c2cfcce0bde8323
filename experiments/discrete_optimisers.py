"""Do discrete methods train signs better than STE, and up to which dimension?

python -m experiments.discrete_optimisers --help
"""

from bitjax import cli
from bitjax.studies import discrete_optimisers

if __name__ == '__main__':
  cli.main(discrete_optimisers.STUDY)
