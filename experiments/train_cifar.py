"""Trains a low-bit convolutional network as its paper did.

python -m experiments.train_cifar --help
"""

from bitjax import cli
from bitjax.studies import train_cifar

if __name__ == '__main__':
  cli.main(train_cifar.STUDY)
