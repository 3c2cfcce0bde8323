"""Optax transforms that limit, normalise or measure the steps of any optimizer.

Every budget is a link of an ``optax.chain``, so that any optimizer can be
confined to the ball in which others are compared. The order is: direction
(`steepest`, `normalize`), optimizer, budget (`project_budget`) last. For binary
weights, `bop` is an optimizer of its own, `limit_flips` and `clip_latent` limit
any other, and `flip_ratio` measures how many weights flip.
"""

from bitjax.transforms._bop import BopState
from bitjax.transforms._bop import bop
from bitjax.transforms._budget import ProjectBudgetState
from bitjax.transforms._budget import project_budget
from bitjax.transforms._clip_latent import clip_latent
from bitjax.transforms._direction import normalize
from bitjax.transforms._direction import steepest
from bitjax.transforms._flip_ratio import FlipRatioState
from bitjax.transforms._flip_ratio import flip_ratio
from bitjax.transforms._limit_flips import LimitFlipsState
from bitjax.transforms._limit_flips import limit_flips
from bitjax.transforms._project import project

__all__ = [
  'BopState',
  'FlipRatioState',
  'LimitFlipsState',
  'ProjectBudgetState',
  'bop',
  'clip_latent',
  'flip_ratio',
  'limit_flips',
  'normalize',
  'project',
  'project_budget',
  'steepest',
]
