"""Schedules of the learning rate and of the progress over a training.

*Learning rates* are optax schedules, functions of the step. *Progress* runs from 0 to
1 and drives annealed quantizers and estimators: DSQ's alpha or a shrinking window,
IR-Net's t, ReSTE's o.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax

from bitjax import types

__all__ = ['PROGRESS', 'SCHEDULES', 'learning_rate', 'progress']

SCHEDULES = ('cosine', 'step', 'linear', 'constant')
PROGRESS = ('linear', 'cosine', 'hard')


def learning_rate(
  kind: str,
  peak: float,
  num_steps: int,
  *,
  warmup: int = 0,
  milestones: Sequence[float] = (0.5, 0.75),
  factor: float = 0.1,
) -> optax.Schedule:
  r"""Returns a schedule of the learning rate.

  With t the share of the updates after the warm-up that are made, the rate is
  :math:`\tfrac12 \eta (1 + \cos \pi t)` for ``'cosine'`` and :math:`\eta (1 - t)`
  for ``'linear'``; ``'step'`` multiplies it by ``factor`` at each milestone;
  ``'constant'`` keeps it. The warm-up rises linearly and begins at
  :math:`\eta / (\mathrm{warmup} + 1)`, so that every update has an effect.

  Args:
    kind: one of `SCHEDULES`.
    peak: eta, > 0.
    num_steps: number of updates, warm-up included.
    warmup: number of updates before the peak.
    milestones: shares of ``num_steps`` in (0, 1), increasing.
    factor: factor on the rate at each milestone, in (0, 1].

  Raises:
    BadInput: for an unknown kind, or numbers out of range.
  """
  types.check_choice('kind', kind, SCHEDULES)
  types.check_positive('peak', peak, finite=True)
  types.check_integer('num_steps', num_steps, 1)
  types.check_number('warmup', warmup)
  if not 0 <= warmup < num_steps:
    raise types.BadInput(
      f'warmup must be in [0, num_steps), here {num_steps}; got {warmup}.'
    )
  rest = num_steps - warmup
  if kind == 'cosine':
    main = optax.cosine_decay_schedule(peak, rest)
  elif kind == 'linear':
    main = optax.linear_schedule(peak, 0.0, rest)
  elif kind == 'constant':
    main = optax.constant_schedule(peak)
  else:
    types.check_open_interval('factor', factor, 0.0, 1.0 + 1e-12)
    for share in milestones:
      types.check_number('milestones', share)
    if list(milestones) != sorted({m for m in milestones if 0 < m < 1}):
      raise types.BadInput(
        f'milestones must grow within (0, 1); got {tuple(milestones)}.'
      )
    factors: dict[int, float] = {}
    for step in [round(m * num_steps) - warmup for m in milestones]:
      factors[step] = factor * factors.get(step, 1.0)
    main = optax.piecewise_constant_schedule(peak, factors)
  if warmup:
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    main = optax.join_schedules([rise, main], [warmup])

  def at(step):
    with types.as_optax():
      return main(step)

  return at


def progress(
  kind: str, num_steps: int
) -> Callable[[types.Array], types.Scalar]:
  r"""Returns a schedule of the progress, from 0 at the first update to 1 at the last.

  At update t of n it is :math:`p = t / (n - 1)` for ``'linear'``,
  :math:`\tfrac12 (1 - \cos \pi p)` for ``'cosine'``, which is slow at both ends, and
  1 throughout for ``'hard'``, which means no annealing.

  Args:
    kind: one of `PROGRESS`.
    num_steps: number n of updates.

  Raises:
    BadInput: for an unknown kind, or no steps.
  """
  types.check_choice('kind', kind, PROGRESS)
  types.check_integer('num_steps', num_steps, 1)

  def at(step):
    if kind == 'hard':
      return jnp.ones((), jnp.float32)
    share = jnp.asarray(step, jnp.float32) / max(num_steps - 1, 1)
    share = jnp.clip(share, 0.0, 1.0)
    return share if kind == 'linear' else 0.5 * (1 - jnp.cos(jnp.pi * share))

  return at
