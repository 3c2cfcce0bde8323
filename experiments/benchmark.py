"""How fast are the parts, as ratios within one run?

python -m experiments.benchmark --help
"""

from bitjax import cli
from bitjax.studies import benchmark

if __name__ == '__main__':
  cli.main(benchmark.STUDY)
