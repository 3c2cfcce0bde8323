"""A benchmark of the library's parts, as ratios within one run."""

from bitjax.studies.benchmark.study import STUDY

__all__ = ['STUDY']
