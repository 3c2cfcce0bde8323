"""A study of how near every method comes to the best point of a small ball."""

from bitjax.studies.discrete_optimum.study import STUDY

__all__ = ['STUDY']
