"""Several small steps of STE against one scanned step."""

from bitjax.studies.multistep_ste.study import STUDY

__all__ = ['STUDY']
