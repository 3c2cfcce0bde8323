"""A study of whether low-bit networks should start from full precision, and of mixup."""

from bitjax.studies.pretrain_vs_scratch.study import STUDY

__all__ = ['STUDY']
