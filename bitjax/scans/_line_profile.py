r"""Computes the loss along a line at all learning rates, for a quantized kernel.

The kernel is piecewise constant along the line, so the loss is known at *every*
rate once it is known after each breakpoint. "Every" means every floating-point rate:
a breakpoint is the first representable rate with the new kernel, and the profile
agrees with brute force at all representable rates.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.scans import _line
from bitjax.scans import _line_breakpoints
from bitjax.scans import _line_steps
from bitjax.scans import _report
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['LineProfile', 'line_profile']


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LineProfile:
  """The piecewise constant loss along a line.

  On ``starts[n] <= eta < starts[n + 1]`` the loss is ``losses[..., n]``. The arrays
  are as long as there can be intervals; the unused last ones start at ``high``.

  Attributes:
    starts: first rate of each interval, [intervals], sorted.
    losses: mean loss of each in nats, [intervals]; [views, intervals] for several.
    low: first rate of the profile.
    high: its last rate, included.
    num_breakpoints: how many weights change between them.
    uncertain: see `LineScan`.
  """

  starts: types.Array
  losses: types.Array
  low: types.Array
  high: types.Array
  num_breakpoints: types.Array
  uncertain: types.Array

  def __repr__(self) -> str:
    return _text.describe(
      self,
      low=self.low,
      high=self.high,
      num_breakpoints=self.num_breakpoints,
      best=_text.reduce(np.fmin, self.losses),
      uncertain=_text.reduce(np.add, self.uncertain),
    )

  def at(self, learning_rates: types.Array) -> types.Array:
    """Returns the losses at rates within [low, high]; NaN outside."""
    rates = jnp.asarray(learning_rates, self.starts.dtype)
    index = jnp.searchsorted(self.starts, rates, side='right') - 1
    inside = (rates >= self.low) & (rates <= self.high)
    return types.nan_where(~inside, self.losses[..., index])

  def best(self) -> tuple[types.Array, types.Array, types.Array]:
    """Returns first rate, end and loss of the best interval; NaN never wins.

    The end is the first rate with another loss, or ``high`` if there is none. Each is
    a scalar, or [views].
    """
    index, loss = _line.lowest(self.losses)
    start = self.starts[index]
    starts = jnp.broadcast_to(self.starts, self.losses.shape)
    beyond = (starts > start[..., None]) & (self.losses != loss[..., None])
    end = jnp.min(jnp.where(beyond, starts, self.high), axis=-1)
    return start, end, loss


@_report.reports
def line_profile(
  view: _view.LayerView | Sequence[_view.LayerView],
  direction: types.Array,
  low: types.Scalar,
  high: types.Scalar,
  *,
  width: int | None = None,
  report: _report.Report | None = None,
) -> LineProfile:
  r"""Returns the loss of ``kernel - eta * direction`` for all eta in [low, high].

  Args:
    view: the layer, with a quantized kernel; or several, see `line_scan`.
    direction: d, of the kernel's shape.
    low: first learning rate.
    high: last learning rate, included.
    width: breakpoints that are processed at a time; None for a good choice.
    report: as for `flip_gains`; shares are of the breakpoints.

  Returns:
    A `LineProfile`. It has no more distinct losses than breakpoints + 1, and the
    best interval is at least as good as the best point of any grid.

  Raises:
    BadInput: if the path ``'steps'`` of `line_scan` does not apply, or for concrete
      rates that are not finite or not in order.
  """
  views = _line.as_views(view, direction)
  if obstacle := _line.steps_obstacle(views):
    raise types.BadInput(f'The loss is not piecewise constant: {obstacle}.')
  _line.check_width(width)
  types.check_finite('low', low)
  types.check_finite('high', high)
  kernel = views[0].kernel
  dtype = types.promoted(kernel, direction)
  low, high = (jnp.asarray(rate, dtype) for rate in (low, high))
  if not isinstance(high - low, jax.core.Tracer) and high < low:
    raise types.BadInput(f'low must not exceed high; got {low} and {high}.')
  line = _line_breakpoints.AllRates(low, high)
  weights, breakpoints = _line_breakpoints.find(
    kernel, direction, views[0].quantizer, line
  )
  _, stop = line.ends()
  count = jnp.sum(breakpoints.position < stop, dtype=jnp.int32)
  # Where several weights change at one rate, the loss is that after the last one.
  last = jnp.searchsorted(
    breakpoints.position, breakpoints.position, side='right'
  )
  results = [
    _line_steps.losses(
      _line_steps.start(view, weights),
      breakpoints,
      stop,
      width,
      _report.part(report, number, len(views)),
    )
    for number, view in enumerate(views)
  ]
  losses = jnp.stack([after[jnp.append(0, last)] for after, _ in results])
  uncertain = jnp.stack([uncertain for _, uncertain in results])
  losses = types.nan_where(~jnp.all(jnp.isfinite(direction)), losses)
  if isinstance(view, _view.LayerView):
    losses, uncertain = losses[0], uncertain[0]
  return LineProfile(
    jnp.append(low, line.rate(breakpoints.position)),
    losses,
    low,
    high,
    count,
    uncertain,
  )
