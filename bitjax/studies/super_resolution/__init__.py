"""A study of which parts of a super-resolution network do not suit low bits."""

from bitjax.studies.super_resolution.study import STUDY

__all__ = ['STUDY']
