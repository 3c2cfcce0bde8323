"""A study of initialisations: what passes the windows, and what trains better."""

from bitjax.studies.initialisation.study import STUDY

__all__ = ['STUDY']
