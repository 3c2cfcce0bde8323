"""A study of what bits and what width are worth to a low-bit network."""

from bitjax.studies.bits_vs_width.study import STUDY

__all__ = ['STUDY']
