"""Whether a sweep that is cut, killed and spread ends the same."""

from bitjax.studies.scaling.study import STUDY

__all__ = ['STUDY']
