"""Schedules of the learning rate and of the progress over a training.

*Learning rates* are optax schedules, functions of the step. *Progress* runs from 0 to
1 and drives annealed quantizers and estimators: DSQ's alpha or a shrinking window,
IR-Net's t, ReSTE's o.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from bitjax import types

__all__ = ['PROGRESS', 'SCHEDULES', 'learning_rate', 'progress', 'restarts']

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


def restarts(
  peak: types.Scalar,
  num_steps: int,
  periods: int,
  key: types.Array,
  *,
  spread: types.Scalar = 0.5,
) -> optax.Schedule:
  r"""Returns a learning rate that falls from its peak again and again, at random times.

  Training is cut into periods, whose lengths :math:`l_k` are proportional to draws that are
  uniform on :math:`[1 - s, 1 + s]`, and rounded to updates. In each, the rate is

  .. math:: \tfrac12 \eta \left( 1 + \cos \pi \frac{t - t_k}{l_k} \right),
    \qquad t_k \le t < t_k + l_k.

  It ends near 0, as that of ``learning_rate('cosine', ...)`` does, which is what one period
  is: its control of equal length. Times are a function of the key alone, so that a
  training which is resumed restarts at the same updates.

  Args:
    peak: eta > 0; may be traced.
    num_steps: number of updates; from there on the rate is 0.
    periods: number of periods >= 1, one more than that of restarts; static.
    key: a random key.
    spread: s in [0, 1); at 0 all periods are equally long, as in SGDR.

  Raises:
    BadInput: for a peak that is not positive, more periods than updates, or a spread outside
      [0, 1).

  References:
    Loshchilov & Hutter, SGDR: stochastic gradient descent with warm restarts, 2017
    (https://arxiv.org/abs/1608.03983).
  """
  types.check_positive('peak', peak, finite=True)
  num_steps = types.check_integer('num_steps', num_steps, 1)
  periods = types.check_integer('periods', periods, 1)
  types.check_fraction('spread', spread)
  if periods > num_steps:
    raise types.BadInput(
      f'periods must be at most num_steps, here {num_steps}; got {periods}.'
    )
  drawn = 1 + spread * jax.random.uniform(
    key, (periods,), jnp.float32, minval=-1.0
  )
  ends = jnp.round(num_steps * jnp.cumsum(drawn) / jnp.sum(drawn))
  ends = ends.astype(jnp.int32).at[-1].set(num_steps)
  begins = jnp.concatenate([jnp.zeros(1, jnp.int32), ends[:-1]])

  def at(step):
    now = jnp.searchsorted(ends, step, side='right', method='compare_all')
    now = jnp.minimum(now, periods - 1)
    length = jnp.maximum(ends[now] - begins[now], 1)
    share = jnp.clip((step - begins[now]) / length, 0.0, 1.0)
    return peak * 0.5 * (1 + jnp.cos(jnp.pi * share))

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
