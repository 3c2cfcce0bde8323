r"""Descends by the best single move each time, to a certified 1-flip optimum.

All gains are known exactly at every step; the best move is made while it lowers the
loss by more than rounding. There are two paths:

* ``'recompute'`` computes all gains anew after each move (`flip_gains`), for any view.
* ``'incremental'`` is for a binary layer that feeds a sign. Flipping weight (i, j)
  only affects the gains of the examples whose activation j flips, and those of the
  moves into unit j:

  .. math:: G \mathrel{+}= \sum_{b:\ a_{bj}\ \mathrm{flips}}
      \left( G^{(b)}_{\mathrm{after}} - G^{(b)}_{\mathrm{before}} \right),
    \qquad G_{:j} = \sum_b G^{(b)}_{:j}.

  For m such examples out of B, that costs 2 m / B of a computation of all gains, plus
  one column of it.

Sums that are updated drift by rounding. So when no improving move is left, the gains
are computed anew, and the optimum is *certified* only if there is none then either.

Blocks of moves (`_flip_blocks`) make many at once for one computation of all gains.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.scans import _flip_blocks
from bitjax.scans import _flip_sums
from bitjax.scans import _flips
from bitjax.scans import _flips_moves
from bitjax.scans import _paths
from bitjax.scans import _report
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['PATHS', 'FlipDescent', 'flip_descent']

PATHS = ('auto', 'incremental', 'recompute')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FlipDescent:
  """The result of `flip_descent`.

  Attributes:
    displacement: to be added to the kernel, of its shape.
    moved: index, in the flattened kernel, of the weight that each step moved, int32
      [max_flips]; -1 where no step was made.
    losses: entry k is the loss after k steps, in nats, [max_flips + 1]; entries
      beyond the last step repeat its loss, and those inside a block that before it.
    num_flips: number of steps made, int32.
    certified: whether the end is a 1-flip optimum by freshly computed gains, bool;
      False where ``max_flips`` ended the descent.
    best: the largest gain at the end (of the gains last computed), in nats.
    path: which path was taken.
  """

  displacement: types.Array
  moved: types.Array
  losses: types.Array
  num_flips: types.Array
  certified: types.Array
  best: types.Array
  path: str = dataclasses.field(metadata={'static': True})

  def __repr__(self) -> str:
    return _text.describe(
      self,
      path=self.path,
      weights=self.displacement,
      num_flips=self.num_flips,
      certified=self.certified,
      loss=_text.reduce(np.minimum, self.losses),
      best=self.best,
    )


@_report.reports
def flip_descent(
  view: _view.LayerView,
  max_flips: int,
  *,
  tolerance: types.Scalar = 1e-6,
  path: str = 'auto',
  block: int = 1,
  promise: types.Scalar = 0.5,
  report: _report.Report | None = None,
) -> FlipDescent:
  """Makes the best single move, again and again, until none lowers the loss.

  With a ``block`` above 1 it makes up to so many moves at once, of different units, before it
  computes all gains anew: the best ones, halved until the loss falls by a share ``promise``
  of the sum of their gains. It may end at another optimum than one move at a
  time, and is as much one.

  Args:
    view: a layer with a quantised kernel.
    max_flips: maximum number of steps, static.
    tolerance: by how much the loss must fall at each step, as a fraction of the loss
      before any step; smaller decreases count as rounding.
    path: ``'incremental'``, ``'recompute'``, or ``'auto'`` for the first that
      applies; blocks always recompute.
    block: the most moves that are made at once, static.
    promise: of a block, in (0, 1].
    report: as for `flip_gains`; shares are of ``max_flips``, which a descent to an
      optimum may not need.

  Returns:
    A `FlipDescent`.

  Raises:
    BadInput: for ``max_flips`` or ``block`` below 1, a negative tolerance, a promise
      outside (0, 1], an unknown path, ``'incremental'`` where it does not apply or with
      blocks, a full-precision kernel, or what `flip_gains` objects to.
  """
  types.check_choice('path', path, PATHS)
  types.check_non_negative('tolerance', tolerance, finite=True)
  types.check_integer('max_flips', max_flips, 1)
  types.check_integer('block', block, 1)
  types.check_positive('promise', promise)
  types.check_range('promise', promise, 0.0, 1.0)
  if view.quantizer is None:
    raise types.BadInput(
      'A descent by flips needs a quantised kernel; this one is not.'
    )
  _view.check_filled(view)
  _view.check_loss(view)
  if block > 1 and path == 'incremental':
    raise types.BadInput(
      "Blocks compute all gains anew: path must be 'auto' or 'recompute'."
    )
  if block > 1:
    found = _by_blocks(view, tolerance, promise, max_flips, block, report)
  else:
    incremental = choose(view, path).path == 'incremental'
    found = _descend(view, tolerance, max_flips, incremental, report)
  types.check_finite('The loss', found.losses[0])
  return found


def choose(view: _view.LayerView, path: str = 'auto') -> _paths.Choice:
  """Returns the path to take, and raises if a requested one does not apply."""
  obstacles = {'incremental': _flip_sums.obstacle(view), 'recompute': None}
  return _paths.choose(path, obstacles)


def _by_blocks(view, tolerance, promise, max_flips, block, report):
  kernel, record, certified, best = _flip_blocks.descend(
    view, tolerance, promise, max_flips, block, report
  )
  return FlipDescent(
    kernel - view.kernel,
    *record,
    certified=certified,
    best=best,
    path='recompute',
  )


@functools.partial(jax.jit, static_argnames=('max_flips', 'incremental'))
def _descend(view, tolerance, max_flips, incremental, report):
  begin = _flip_sums.begin if incremental else _Recomputed.begin
  steps = jnp.arange(max_flips + 1)

  def improves(state, record):
    best = jnp.max(state.gains())
    return (best > least) & (record.num_flips < max_flips)

  def flip(carry):
    state, record = carry
    _report.tick(report, record.num_flips, max_flips)
    choice = jnp.argmax(state.gains().reshape(-1)).astype(jnp.int32)
    state = state.flip(choice)
    now = record.num_flips + 1
    record = _flip_blocks.Record(
      record.moved.at[record.num_flips].set(choice % view.kernel.size),
      jnp.where(steps >= now, state.loss(), record.losses),
      now,
    )
    return state, record

  def descend(carry):
    kernel, record, _, _ = carry
    state = begin(dataclasses.replace(view, kernel=kernel))
    num_before = record.num_flips
    state, record = jax.lax.while_loop(
      lambda carry: improves(*carry), flip, (state, record)
    )
    best = jnp.max(state.gains())
    certified = (record.num_flips == num_before) & ~(best > least)
    return state.kernel, record, certified, best

  def unfinished(carry):
    _, record, certified, _ = carry
    return ~certified & (record.num_flips < max_flips)

  loss = view.loss(view.kernel)
  least = tolerance * loss
  record = _flip_blocks.start(max_flips, loss)
  kernel, record, certified, best = jax.lax.while_loop(
    unfinished,
    descend,
    (view.kernel, record, jnp.zeros((), bool), jnp.zeros_like(loss)),
  )
  return FlipDescent(
    kernel - view.kernel,
    *record,
    certified=certified,
    best=best,
    path='incremental' if incremental else 'recompute',
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Recomputed:
  """A state of the descent whose gains are computed anew after each move."""

  view: _view.LayerView
  current: _flips.FlipGains

  @classmethod
  def begin(cls, view: _view.LayerView) -> _Recomputed:
    return cls(view, _flips.flip_gains(view))

  @property
  def kernel(self) -> types.Array:
    return self.view.kernel

  def gains(self) -> types.Array:
    return self.current.gains

  def loss(self) -> types.Array:
    return self.current.loss

  def flip(self, choice: types.Array) -> _Recomputed:
    there = _flips_moves.moves(self.view).destinations.reshape(-1)[choice]
    kernel = self.kernel.reshape(-1).at[choice % self.kernel.size].set(there)
    kernel = kernel.reshape(self.kernel.shape)
    return self.begin(dataclasses.replace(self.view, kernel=kernel))
