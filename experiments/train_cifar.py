"""What do published recipes for low-bit ResNets and VGG reach?

python -m experiments.train_cifar --help
"""

from bitjax import cli
from bitjax.studies import train_cifar

if __name__ == '__main__':
  cli.main(train_cifar.STUDY)
