"""A study of whether training ends at a local optimum of single flips."""

from bitjax.studies.local_optima.study import STUDY

__all__ = ['STUDY']
