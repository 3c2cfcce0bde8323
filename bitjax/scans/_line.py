r"""Scans the loss along a line: all learning rates of one step.

For a step along a direction d, ``line_scan`` answers: what is the loss of
``W - eta * d`` for each of many learning rates ``eta``? Only the layer's kernel
moves, so a forward pass for each rate can be avoided. There are four paths:

* ``'steps'``: a quantized kernel changes only at its breakpoints, and each one
  affects few examples (`_line_steps`), or a channel of a convolution
  (`_line_convolutions`).
* ``'affine'``: behind a real kernel, logits are affine between the kinks of the
  ReLUs (`_line_affine`).
* ``'distinct'``: behind any layer with a quantized kernel, rates between two
  breakpoints share one forward pass (`_line_distinct`).
* ``'brute_force'``: any network is evaluated at every rate; this is the reference.

All compute the same function. Static facts decide which of them apply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.scans import _line_affine
from bitjax.scans import _line_breakpoints
from bitjax.scans import _line_distinct
from bitjax.scans import _line_steps
from bitjax.scans import _paths
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['PATHS', 'LineScan', 'LineStart', 'line_scan', 'line_start']

PATHS = ('auto', 'steps', 'affine', 'distinct', 'brute_force')

# For fewer rates brute force is cheap, while there may be many breakpoints.
_FEW_RATES = 16
_MANY_LEVELS = 16  # Each level adds a search to the compiled program.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LineScan:
  """The losses along a line.

  Attributes:
    learning_rates: the scanned rates, [rates], in the order given.
    losses: mean loss at each rate in nats, [rates]; [views, rates] for several.
    uncertain: on the path ``'steps'`` of a dense layer, the number of examples for
      which rounding may have decided a sign behind it; else 0. Scalar; [views] for
      several.
    path: which path computed them.
  """

  learning_rates: types.Array
  losses: types.Array
  uncertain: types.Array
  path: str = dataclasses.field(metadata={'static': True})

  def __repr__(self) -> str:
    return _text.describe(
      self,
      path=self.path,
      rates=self.learning_rates,
      best=_text.reduce(np.fmin, self.losses),
      uncertain=_text.reduce(np.add, self.uncertain),
    )

  def best(self) -> tuple[types.Array, types.Array, types.Array]:
    """Returns index, learning rate and value of the lowest loss; NaN never wins.

    Each is a scalar, or [views]. Of equal losses the first one wins.
    """
    index, loss = lowest(self.losses)
    return index, self.learning_rates[index], loss


def lowest(losses: types.Array) -> tuple[types.Array, types.Array]:
  """Returns index and value of the lowest loss on the last axis; NaN never wins."""
  # Infinite losses count as finite here, so that they still win over NaN.
  finite = jnp.minimum(losses, jnp.finfo(losses.dtype).max)
  index = jnp.argmin(jnp.where(jnp.isnan(finite), jnp.inf, finite), axis=-1)
  index = index.astype(jnp.int32)
  loss = jnp.take_along_axis(losses, index[..., None], axis=-1)
  return index, loss[..., 0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LineStart:
  """The state that all lines from one kernel share on the path ``'steps'``.

  Attributes:
    views: state of the network at the start of the line, for each view.
  """

  views: tuple[_line_steps.Start, ...]


def line_start(
  view: _view.LayerView | Sequence[_view.LayerView],
) -> LineStart:
  """Prepares many lines from one quantized kernel, such as those of many gradients.

  Args:
    view: the layer, or several, as for `line_scan`.

  Returns:
    A `LineStart` for `line_scan`. It holds the inputs of each view transposed.

  Raises:
    BadInput: if the path ``'steps'`` of `line_scan` does not apply.
  """
  views = as_views(view)
  if obstacle := steps_obstacle(views):
    raise types.BadInput(f'The loss is not piecewise constant: {obstacle}.')
  dense = _stages.Dense(views[0].kernel, views[0].quantizer)
  return LineStart(_begin(views, dense.quantized))


@_report.reports
def line_scan(
  view: _view.LayerView | Sequence[_view.LayerView],
  direction: types.Array,
  learning_rates: types.Array,
  *,
  constrain: Callable[[types.Array], types.Array] | None = None,
  start: LineStart | None = None,
  path: str = 'auto',
  width: int | None = None,
  report: _report.Report | None = None,
) -> LineScan:
  r"""Returns the mean loss of ``kernel - eta * direction`` for each ``eta``.

  .. math:: L(\eta) = \frac1B \sum_b \ell_b(q(W - \eta d))

  Exactness: on the path ``'steps'``, every kernel equals that of brute force bit for
  bit. If inputs are integers (with sums below 2^24), so do the layer's products and
  what follows from them, and only the order of the sum in the mean may differ;
  otherwise the same holds except for ``uncertain`` examples. Behind a convolution the
  network's own stages follow, which a compiler may round once or twice, as on the path
  ``'tail'`` of `flip_gains`. On the path ``'affine'``, losses agree up to rounding; on
  ``'distinct'`` each is that of brute force at the first rate with the same kernel.

  The number of rates hardly matters: the cost of ``'steps'`` follows the number of
  breakpoints (of a convolution: of distinct kernels, each of which runs what follows the
  layer, packed where it is binary), that of ``'affine'`` the number of kinks. Rates that float32 cannot tell
  apart are equal and have equal losses; the zero direction has a constant loss.

  Args:
    view: the layer; the line starts at its latent kernel. Or several views that
      differ in their data, such as a batch to search and one to confirm: the
      kernel and its quantizer are those of the first.
    direction: d, of the kernel's shape.
    learning_rates: the values of eta, [rates], any order and sign. Where traced rates
      are not finite, losses are NaN; so are all losses of a traced direction that is
      not finite.
    constrain: function applied to every candidate kernel before it is evaluated, such
      as the projection onto a budget; None for no constraint. It bends the line, so
      it needs brute force.
    start: the result of `line_start` for the same view or views, with which each of
      many lines from one kernel costs its breakpoints only. Rates must then not be
      negative (where traced rates are, losses are NaN). Only the path ``'steps'``
      uses it.
    path: one of ``'steps'`` (quantized kernel), ``'affine'`` (real kernel, ReLU),
      ``'distinct'`` (quantized kernel of any layer) and ``'brute_force'``;
      ``'auto'`` takes the first that applies, and brute force for fewer than 16 rates.
    width: how many rates (on the path ``'steps'``: breakpoints, or images of a
      convolution; on ``'distinct'``: kernels) are vectorised at a time, which bounds
      the memory; None for a good choice.
    report: as for `flip_gains`; shares are of the breakpoints, the kernels or the
      rates.

  Returns:
    A `LineScan`, which also names the path taken.

  Raises:
    BadInput: for an empty batch or kernel, a direction of another shape or concrete
      and not finite, rates that are not a non-empty vector or concrete and not
      finite (or negative, with a start), views of different kernels, an unknown path,
      one that does not apply, or a convolution's loss that is not finite.
  """
  types.check_choice('path', path, PATHS)
  learning_rates = jnp.asarray(learning_rates)
  if learning_rates.ndim != 1 or learning_rates.size == 0:
    raise types.BadInput(
      'learning_rates must be a non-empty vector; got shape '
      f'{learning_rates.shape}.'
    )
  types.check_finite('learning_rates', learning_rates, arrays=True)
  check_width(width)
  views = as_views(view, direction)
  valid = jnp.isfinite(learning_rates)
  if start is not None:
    types.check_non_negative('learning_rates', learning_rates, arrays=True)
    if len(start.views) != len(views):
      raise types.BadInput(
        f'start must be that of the {len(views)} views; got one of '
        f'{len(start.views)}.'
      )
    valid &= learning_rates >= 0
  path = choose(path, views, constrain, learning_rates.size).path
  _view.check_loss(*views)
  dtype = types.promoted(jnp.float32, views[0].kernel, direction)
  rates = jnp.where(valid, learning_rates, 0).astype(dtype)
  order = jnp.argsort(rates)
  rates = rates[order]
  if path == 'brute_force':
    losses = _brute_force(views, direction, rates, constrain, width, report)
    uncertain = jnp.zeros(len(views), jnp.int32)
  else:
    scan = {'steps': _steps, 'affine': _affine, 'distinct': _distinct}[path]
    losses, uncertain = scan(views, direction, rates, start, width, report)
  # Equal rates take the loss of their first, as sums in another order differ.
  losses = losses[:, jnp.searchsorted(rates, rates)][:, jnp.argsort(order)]
  valid &= jnp.all(jnp.isfinite(direction))
  losses = types.nan_where(~valid[None, :], losses)
  if isinstance(view, _view.LayerView):
    losses, uncertain = losses[0], uncertain[0]
  return LineScan(learning_rates, losses, uncertain, path)


def check_width(width: int | None) -> None:
  """Raises `BadInput` for a width that is no integer >= 1, and not None."""
  if width is not None:
    types.check_integer('width', width, 1)


def as_views(
  view: _view.LayerView | Sequence[_view.LayerView],
  direction: types.Array | None = None,
) -> list[_view.LayerView]:
  """Returns the checked views of a line, with the first one's kernel and quantizer."""
  if isinstance(view, _view.LayerView):
    view = [view]
  if not view:
    raise types.BadInput('A line needs at least one view; got none.')
  first, *others = view
  for other in others:
    if other.kernel.shape != first.kernel.shape:
      raise types.BadInput(
        'The views of a line must share one kernel; got shapes '
        f'{first.kernel.shape} and {other.kernel.shape}.'
      )
  _view.check_filled(*view)
  if direction is not None:
    if direction.shape != first.kernel.shape:
      raise types.BadInput(
        'direction must have the shape of the kernel, '
        f'{first.kernel.shape}; got {direction.shape}.'
      )
    types.check_finite('direction', direction, arrays=True)
  return [
    dataclasses.replace(v, kernel=first.kernel, quantizer=first.quantizer)
    for v in view
  ]


def choose(
  path: str,
  views: list[_view.LayerView],
  constrain: Callable[[types.Array], types.Array] | None,
  num_rates: int,
) -> _paths.Choice:
  """Returns the path to take, and raises if a requested one does not apply."""
  obstacles = {
    'steps': steps_obstacle(views),
    'affine': _affine_obstacle(views),
    'distinct': _levels_obstacle(views) or _scale_obstacle(views[0]),
    'brute_force': None,
  }
  fast = [name for name in obstacles if name != 'brute_force']
  if constrain is not None:
    obstacles |= dict.fromkeys(fast, 'constrain bends the line')
  unwise = {}
  if num_rates < _FEW_RATES:
    unwise = dict.fromkeys(fast, f'there are fewer than {_FEW_RATES} rates')
  elif reason := next(filter(None, map(_line_steps.unwise, views)), None):
    unwise = {'steps': reason}
  return _paths.choose(path, obstacles, unwise)


def _scale_obstacle(view):
  if view.coupling == 'none':
    return None
  return (
    'the scale of the layer depends on its kernel, so that one weight moves '
    'others; see LayerView.freeze_scale'
  )


def steps_obstacle(views: list[_view.LayerView]) -> str | None:
  """Returns why the path ``'steps'`` does not apply, or None if it does."""
  if obstacle := _levels_obstacle(views):
    return obstacle
  for view in views:
    if obstacle := _scale_obstacle(view) or _line_steps.obstacle(view):
      return obstacle
  return None


def _levels_obstacle(views):
  levels = _line_breakpoints.num_levels(views[0].quantizer)
  if levels is None:
    return (
      "the kernel's quantizer is not known to be a staircase, such as "
      'quantizers.sign'
    )
  if levels > _MANY_LEVELS:
    return f'the kernel has more than {_MANY_LEVELS} levels: {levels}'
  return None


def _affine_obstacle(views):
  if views[0].quantizer is not None:
    return 'the kernel is quantized'
  for view in views:
    if obstacle := _scale_obstacle(view) or _split.obstacle(view):
      return obstacle
    if any(
      stage.kind == 'sign' or stage.quantizer is not None
      for stage in view.tail
      if isinstance(stage, _stages.Activation)
    ):
      return 'the activations are not piecewise linear (ReLU)'
  return None


def _brute_force(views, direction, rates, constrain, width, report):
  def loss(learning_rate):
    kernel = views[0].kernel - learning_rate * direction
    kernel = kernel if constrain is None else constrain(kernel)
    return jnp.stack([view.loss(kernel) for view in views])

  rates = {'learning_rate': rates}
  return _report.each(report, loss, rates, width=width).T


def _steps(views, direction, rates, start, width, report):
  begins_at_zero = start is not None
  if begins_at_zero:  # At rate 0 the kernel is the shared start's, W.
    rates = jnp.append(jnp.zeros((), rates.dtype), rates)
  line = _line_breakpoints.Grid(rates)
  weights, breakpoints = _line_breakpoints.find(
    views[0].kernel, direction, views[0].quantizer, line
  )
  begun = start.views if begins_at_zero else _begin(views, weights)
  _, stop = line.ends()
  results = [
    _line_steps.losses(
      one, breakpoints, stop, width, _report.part(report, number, len(begun))
    )
    for number, one in enumerate(begun)
  ]
  met = jnp.searchsorted(
    breakpoints.position, jnp.arange(rates.size)[begins_at_zero:], side='right'
  )
  return (
    jnp.stack([after[met] for after, _ in results]),
    jnp.stack([uncertain for _, uncertain in results]),
  )


def _begin(views, weights):
  return tuple(_line_steps.start(view, weights) for view in views)


def _affine(views, direction, rates, start, width, report):
  del start  # This path shares nothing between directions.
  losses = [
    _line_affine.losses(
      view,
      direction,
      rates,
      width,
      _report.part(report, number, len(views)),
    )
    for number, view in enumerate(views)
  ]
  return jnp.stack(losses), jnp.zeros(len(views), jnp.int32)


def _distinct(views, direction, rates, start, width, report):
  del start  # This path shares nothing between directions.
  losses = _line_distinct.losses(views, direction, rates, width, report)
  return losses, jnp.zeros(len(views), jnp.int32)
