"""Evaluates one function at every point of named axes, resumably and with labels.

`Sweep` computes blocks of lanes on all devices and processes of a job, keeps each
block as a file, and returns a labelled ``xarray`` dataset.
"""

from bitjax.sweeps.run import Run
from bitjax.sweeps.sweep import Sweep
from bitjax.sweeps.sweep import TraceError

__all__ = ['Run', 'Sweep', 'TraceError']
