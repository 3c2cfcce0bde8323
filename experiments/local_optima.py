"""Does training end at a local optimum of single flips, and would leaving it help?

python -m experiments.local_optima --help
"""

from bitjax import cli
from bitjax.studies import local_optima

if __name__ == '__main__':
  cli.main(local_optima.STUDY)
