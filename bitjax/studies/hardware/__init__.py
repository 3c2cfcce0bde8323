"""A study of what few bits save: energy, memory and cycles, beside accuracy."""

from bitjax.studies.hardware.study import STUDY

__all__ = ['STUDY']
