"""Does a soft staircase that hardens train better, and is its shape what matters?

python -m experiments.dsq --help
"""

from bitjax import cli
from bitjax.studies import dsq

if __name__ == '__main__':
  cli.main(dsq.STUDY)
