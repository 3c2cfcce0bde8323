"""What does the window of the straight-through estimator do to a binary ResNet?

python -m experiments.resnet_windows --help
"""

from bitjax import cli
from bitjax.studies import resnet_windows

if __name__ == '__main__':
  cli.main(resnet_windows.STUDY)
