"""A study of sweeps that are cut into chunks, killed, and spread over devices."""

from bitjax.studies.scaling.study import STUDY

__all__ = ['STUDY']
