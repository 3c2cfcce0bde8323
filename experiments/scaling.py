"""Does a sweep that is cut, killed and spread cost little and end the same?

python -m experiments.scaling --help
"""

from bitjax import cli
from bitjax.studies import scaling

if __name__ == '__main__':
  cli.main(scaling.STUDY)
