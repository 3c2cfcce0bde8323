"""Published recipes for low-bit super-resolution."""

from bitjax.studies.train_superres.study import STUDY

__all__ = ['STUDY']
