"""Whether gradient estimators can be told apart."""

from bitjax.studies.variant_ste.study import STUDY

__all__ = ['STUDY']
