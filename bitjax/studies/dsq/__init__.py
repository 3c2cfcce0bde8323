"""A study of whether a soft staircase that hardens trains better."""

from bitjax.studies.dsq.study import STUDY

__all__ = ['STUDY']
