"""Can the normal and a variant straight-through estimator be told apart?

python -m experiments.variant_ste --help
"""

from bitjax import cli
from bitjax.studies import variant_ste

if __name__ == '__main__':
  cli.main(variant_ste.STUDY)
