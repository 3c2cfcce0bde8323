"""Every staircase and every gradient estimator, drawn.

python -m experiments.estimator_gallery --help
"""

from bitjax import cli
from bitjax.studies import estimator_gallery

if __name__ == '__main__':
  cli.main(estimator_gallery.STUDY)
