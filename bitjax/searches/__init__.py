"""Searches over the signs of a binary layer, without gradients.

Each is a pure function of a view, a state and a number of rounds. A state is a pytree of
arrays that holds all that the future depends on, its random key included, so a search can
be saved after any call and gone on with: the same calls give the same bits. They may
start from any checkpoint, and the losses that they compare are exact.
"""

from bitjax.searches._annealing import AnnealingState
from bitjax.searches._annealing import anneal
from bitjax.searches._annealing import annealing_start
from bitjax.searches._genetic import GeneticState
from bitjax.searches._genetic import evolve
from bitjax.searches._genetic import genetic_start
from bitjax.searches._optimum import LayerOptimum
from bitjax.searches._optimum import layer_optimum
from bitjax.searches._perturb import flip_signs

__all__ = [
  'AnnealingState',
  'GeneticState',
  'LayerOptimum',
  'anneal',
  'annealing_start',
  'evolve',
  'flip_signs',
  'genetic_start',
  'layer_optimum',
]
