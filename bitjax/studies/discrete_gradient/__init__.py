"""A study of whether the discrete gradient bounds the straight-through estimator."""

from bitjax.studies.discrete_gradient.study import STUDY

__all__ = ['STUDY']
