"""Optax transforms that limit, normalise or measure the steps of any optimizer.

Every budget is a link of an ``optax.chain``, so that any optimizer can be
confined to the ball in which others are compared. The order is: direction
(`steepest`, `normalize`), optimizer, budget (`project_budget`) last. For binary
weights, `bop` is an optimizer of its own, `limit_flips` and `clip_latent` limit
any other, and `flip_ratio` measures how many weights flip. `admm` and `proximal_steps`
train full-precision weights towards scaled levels (`project_levels`); they contain
their optimizer. `perturb` draws a perturbation at intervals of a training.
"""

from bitjax.transforms._admm import admm
from bitjax.transforms._admm_state import AdmmState
from bitjax.transforms._admm_state import admm_lagrangian
from bitjax.transforms._admm_state import admm_weights
from bitjax.transforms._bop import BopState
from bitjax.transforms._bop import bop
from bitjax.transforms._budget import ProjectBudgetState
from bitjax.transforms._budget import project_budget
from bitjax.transforms._clip_latent import clip_latent
from bitjax.transforms._direction import normalize
from bitjax.transforms._direction import steepest
from bitjax.transforms._flip_ratio import FlipRatioState
from bitjax.transforms._flip_ratio import flip_ratio
from bitjax.transforms._levels import ScaledLevels
from bitjax.transforms._levels import project_levels
from bitjax.transforms._limit_flips import LimitFlipsState
from bitjax.transforms._limit_flips import limit_flips
from bitjax.transforms._perturb import PerturbState
from bitjax.transforms._perturb import perturb
from bitjax.transforms._project import project
from bitjax.transforms._proximal import ProximalState
from bitjax.transforms._proximal import proximal_steps

__all__ = [
  'AdmmState',
  'BopState',
  'FlipRatioState',
  'LimitFlipsState',
  'PerturbState',
  'ProjectBudgetState',
  'ProximalState',
  'ScaledLevels',
  'admm',
  'admm_lagrangian',
  'admm_weights',
  'bop',
  'clip_latent',
  'flip_ratio',
  'limit_flips',
  'normalize',
  'perturb',
  'project',
  'project_budget',
  'project_levels',
  'proximal_steps',
  'steepest',
]
