"""How fast the parts are, as ratios within one run."""

from bitjax.studies.benchmark.study import STUDY

__all__ = ['STUDY']
