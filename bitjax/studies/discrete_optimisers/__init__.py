"""A study of discrete methods for the signs of a layer, by dimension."""

from bitjax.studies.discrete_optimisers.study import STUDY

__all__ = ['STUDY']
