"""The toy problem that several studies share: one layer of an MLP moves in a ball.

`Config.open` makes the `Problems` of all seeds. A `Trial` holds what one seed has
drawn, and a `Problem` is one layer of its network on batches A and B. Functions such as
`multi_step` move that layer inside the ball; those in `searches` spend the ball in many
ways, by flips or by steps. An arm is a sweep, whose lanes may be seeds and estimators; the
learning rates of `single_step` are an axis of its results, not lanes::

  def lane(half_width, seed, arrays):
    window = quantizers.window(half_width)
    problem = problems.pose('binary', seed, arrays, activation_estimator=window)
    return toy.single_step(problem, problems.budget, rates)

  results = sweep(
    lane,
    name='step',
    lanes={'half_width': half_widths, 'seed': config.seeds},
    shared={'arrays': problems.arrays},
    dims=dict.fromkeys(toy.REPORTED, ('learning_rate',)),
    coords={'learning_rate': rates},
  )
"""

from bitjax.studies.toy.config import MAX_STEP
from bitjax.studies.toy.config import NETWORKS
from bitjax.studies.toy.config import RADII
from bitjax.studies.toy.config import Augmented
from bitjax.studies.toy.config import BallConfig
from bitjax.studies.toy.config import Config
from bitjax.studies.toy.config import Problems
from bitjax.studies.toy.config import Tuned
from bitjax.studies.toy.config import check_weights
from bitjax.studies.toy.config import num_weights
from bitjax.studies.toy.moves import OPTIMIZERS
from bitjax.studies.toy.moves import REPORTED
from bitjax.studies.toy.moves import Outputs
from bitjax.studies.toy.moves import multi_step
from bitjax.studies.toy.moves import noisy_single_step
from bitjax.studies.toy.moves import restarts
from bitjax.studies.toy.moves import single_step
from bitjax.studies.toy.problem import Problem
from bitjax.studies.toy.problem import Trial
from bitjax.studies.toy.problem import cross_entropy
from bitjax.studies.toy.problem import draw_trials
from bitjax.studies.toy.problem import pose_problem
from bitjax.studies.toy.problem import seed_keys
from bitjax.studies.toy.states import STATES
from bitjax.studies.toy.states import States
from bitjax.studies.toy.training import check_trainable
from bitjax.studies.toy.training import train
from bitjax.studies.toy.training import trained
from bitjax.studies.toy.variants import NORMAL
from bitjax.studies.toy.variants import Estimators
from bitjax.studies.toy.variants import Variant
from bitjax.studies.toy.variants import Windows

__all__ = [
  'MAX_STEP',
  'NETWORKS',
  'NORMAL',
  'OPTIMIZERS',
  'RADII',
  'REPORTED',
  'STATES',
  'Augmented',
  'BallConfig',
  'Config',
  'Estimators',
  'Outputs',
  'Problem',
  'Problems',
  'States',
  'Trial',
  'Tuned',
  'Variant',
  'Windows',
  'check_trainable',
  'check_weights',
  'cross_entropy',
  'draw_trials',
  'multi_step',
  'noisy_single_step',
  'num_weights',
  'pose_problem',
  'restarts',
  'seed_keys',
  'single_step',
  'train',
  'trained',
]
