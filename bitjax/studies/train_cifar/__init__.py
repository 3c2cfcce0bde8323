"""Published recipes for low-bit convolutional networks."""

from bitjax.studies.train_cifar.study import STUDY

__all__ = ['STUDY']
