"""A study of the windows through which a binary ResNet's gradients pass."""

from bitjax.studies.resnet_windows.study import STUDY

__all__ = ['STUDY']
