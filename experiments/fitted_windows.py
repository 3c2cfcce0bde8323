"""Do windows that fit their layer train a binary network better?

python -m experiments.fitted_windows --help
"""

from bitjax import cli
from bitjax.studies import fitted_windows

if __name__ == '__main__':
  cli.main(fitted_windows.STUDY)
