"""Published recipes for low-bit super-resolution."""

from bitjax.studies.train_super_resolution.study import STUDY

__all__ = ['STUDY']
