"""Transforms for optax: what proposes a step stays, what limits it is added.

Every budget is a link of an ``optax.chain``, so that any optimizer can be
confined to the ball in which others are compared. The order is: direction
(`steepest`, `normalize`), optimizer, budget (`project_budget`) last.
"""

from bitjax.transforms._budget import ProjectBudgetState
from bitjax.transforms._budget import project_budget
from bitjax.transforms._direction import normalize
from bitjax.transforms._direction import steepest
from bitjax.transforms._project import project

__all__ = [
  'ProjectBudgetState',
  'normalize',
  'project',
  'project_budget',
  'steepest',
]
