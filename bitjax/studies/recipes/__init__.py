"""Flags, networks and quantizers that all studies of trainings share."""

from bitjax.studies.recipes.answers import right
from bitjax.studies.recipes.config import FACTORS
from bitjax.studies.recipes.config import NetworkConfig
from bitjax.studies.recipes.config import Parts
from bitjax.studies.recipes.config import TrainConfig
from bitjax.studies.recipes.kept import Kept
from bitjax.studies.recipes.kept import keep
from bitjax.studies.recipes.scored import reached
from bitjax.studies.recipes.scored import scored
from bitjax.studies.recipes.tuned import SMALL_CIFAR
from bitjax.studies.recipes.tuned import Pretrained
from bitjax.studies.recipes.tuned import Tuned
from bitjax.studies.recipes.tuned import TunedConfig
from bitjax.studies.recipes.tuned import chosen
from bitjax.studies.recipes.tuned import settings
from bitjax.studies.recipes.tuned import tuned
from bitjax.studies.recipes.zoo import ACTIVATIONS
from bitjax.studies.recipes.zoo import NETWORKS
from bitjax.studies.recipes.zoo import WEIGHTS
from bitjax.studies.recipes.zoo import build

__all__ = [
  'ACTIVATIONS',
  'FACTORS',
  'NETWORKS',
  'SMALL_CIFAR',
  'WEIGHTS',
  'Kept',
  'NetworkConfig',
  'Parts',
  'Pretrained',
  'TrainConfig',
  'Tuned',
  'TunedConfig',
  'build',
  'chosen',
  'keep',
  'reached',
  'right',
  'scored',
  'settings',
  'tuned',
]
