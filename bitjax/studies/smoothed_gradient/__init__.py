"""A study of whether the straight-through estimator is a smoothed discrete gradient."""

from bitjax.studies.smoothed_gradient.study import STUDY

__all__ = ['STUDY']
