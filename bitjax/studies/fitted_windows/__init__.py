"""A study of whether windows that fit their layer train better."""

from bitjax.studies.fitted_windows.study import STUDY

__all__ = ['STUDY']
