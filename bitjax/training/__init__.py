"""The training loop for quantized networks, and the parts that it is made of.

A training consists of one or more phases. A `Phase` is a `Task` (model, optimiser,
augmentation, loss, schedule of the progress) and the update that ends it. `fit` runs
phases on feeds of `bitjax.data`, for several seeds side by side, and resumes from the
checkpoints that it writes.
"""

from bitjax.training._checkpoints import KEPT
from bitjax.training._checkpoints import Checkpoints
from bitjax.training._checkpoints import describe
from bitjax.training._checkpoints import description_of
from bitjax.training._checkpoints import load_variables
from bitjax.training._evaluation import STATISTICS
from bitjax.training._evaluation import Scores
from bitjax.training._evaluation import evaluator
from bitjax.training._evaluation import statistician
from bitjax.training._fit import Fitted
from bitjax.training._fit import Phase
from bitjax.training._fit import Reporter
from bitjax.training._fit import fit
from bitjax.training._fitted_sign import fitted_sign
from bitjax.training._log import Log
from bitjax.training._losses import Distillation
from bitjax.training._losses import cross_entropy
from bitjax.training._losses import divergence
from bitjax.training._optimizers import DECAYED
from bitjax.training._optimizers import OPTIMIZERS
from bitjax.training._optimizers import MultiplierState
from bitjax.training._optimizers import optimizer
from bitjax.training._outcome import LAYERED
from bitjax.training._outcome import layout
from bitjax.training._outcome import outcome
from bitjax.training._problems import Classification
from bitjax.training._problems import Problem
from bitjax.training._problems import Reconstruction
from bitjax.training._recipes import BORDERS
from bitjax.training._recipes import OFFSETS
from bitjax.training._recipes import Recipe
from bitjax.training._recipes import preparation
from bitjax.training._reconstruction import ImageScores
from bitjax.training._reconstruction import enlarge
from bitjax.training._reconstruction import image_scores
from bitjax.training._reconstruction import reconstruction
from bitjax.training._refit import Refit
from bitjax.training._schedules import PROGRESS
from bitjax.training._schedules import SCHEDULES
from bitjax.training._schedules import learning_rate
from bitjax.training._schedules import progress
from bitjax.training._schedules import restarts
from bitjax.training._signals import CoFlips
from bitjax.training._signals import Signal
from bitjax.training._state import Totals
from bitjax.training._state import TrainState
from bitjax.training._state import check_fits
from bitjax.training._state import create
from bitjax.training._state import kernels
from bitjax.training._state import switch
from bitjax.training._state import variables_of
from bitjax.training._task import Task
from bitjax.training._task import check_batch_split
from bitjax.training._windows import FAMILIES
from bitjax.training._windows import Family
from bitjax.training._windows import FittedWidth
from bitjax.training._windows import fit_width

__all__ = [
  'BORDERS',
  'DECAYED',
  'FAMILIES',
  'KEPT',
  'LAYERED',
  'OFFSETS',
  'OPTIMIZERS',
  'PROGRESS',
  'SCHEDULES',
  'STATISTICS',
  'Checkpoints',
  'Classification',
  'CoFlips',
  'Distillation',
  'Family',
  'Fitted',
  'FittedWidth',
  'ImageScores',
  'Log',
  'MultiplierState',
  'Phase',
  'Problem',
  'Recipe',
  'Reconstruction',
  'Refit',
  'Reporter',
  'Scores',
  'Signal',
  'Task',
  'Totals',
  'TrainState',
  'check_batch_split',
  'check_fits',
  'create',
  'cross_entropy',
  'describe',
  'description_of',
  'divergence',
  'enlarge',
  'evaluator',
  'fit',
  'fit_width',
  'fitted_sign',
  'image_scores',
  'kernels',
  'layout',
  'learning_rate',
  'load_variables',
  'optimizer',
  'outcome',
  'preparation',
  'progress',
  'reconstruction',
  'restarts',
  'statistician',
  'switch',
  'variables_of',
]
