"""What do all staircases and gradient estimators look like?

python -m experiments.estimator_gallery --help
"""

from bitjax import cli
from bitjax.studies import estimator_gallery

if __name__ == '__main__':
  cli.main(estimator_gallery.STUDY)
