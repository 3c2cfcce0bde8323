r"""Computes flip gains: how far every single move of a kernel lowers the loss.

For a *move* of weight k, which takes its quantised value to a neighbouring one
(see `moves`), the gain is the exact decrease of the mean loss:

.. math:: g_k = L(W) - L(W \text{ with move } k), \qquad
  L(W) = \frac1B \sum_b \ell_b(W).

By brute force each gain costs one forward pass. Only one layer changes, though, and
the other paths exploit that, each more than the one before. The last column is the
cost in forward passes, for the first layer of a 784-256-256-10 network (of ``tail``: for
a convolution of a binary ResNet-20, for each move):

===============  ==============================================  ==============
path             applies to                                      784-256-256-10
===============  ==============================================  ==============
``brute_force``  any view                                        200 704 passes
``tail``         any convolution or layer; examples not coupled  0.003 to 0.12 a move
``rank_one``     known stages, examples and weights not coupled  100 to 470
``sign``         the same, and the layer feeds a sign            5 to 10
``layers``       a whole network: each layer by its own path     their sum
===============  ==============================================  ==============

Convolutions have paths of their own: ``pooled`` for the last one, before a mean over
positions and a dense layer, and ``masks`` for one that feeds a sign.

Exactness. In exact arithmetic all paths are equal. In float32 gains differ from
those in exact arithmetic by rounding errors of the losses: below 1e-6 of the mean
loss. Decisions of a sign are another matter, since one changed activation moves
the loss by O(1/B): the ``sign`` path decides as the network itself would, by the
same sums and the same rounded affine stages. Where the sums are exact (integers
or multiples of a power of two, below 2^24 units) so are all its decisions. Otherwise
an example whose moved pre-activation lies within rounding of the threshold is a
*near tie*, which may be decided either way; near ties can be counted. The ``tail`` path
applies the network's own stages to the network's own sums (of integers: the same sums;
of reals, those of the layer and of a convolution that comes next are moved, which rounds
once more), one after another. A compiler may round a stage of one program differently than that of
another, so there too an example within rounding of a later threshold is a near tie,
which that path does not count: its moves reach thresholds of all later layers, and to
follow intervals through them takes longer than the gains themselves. The paths ``masks``
and ``pooled`` count near ties at the sign that the convolution feeds (`_conv_ties`).
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import sizes
from bitjax import types
from bitjax.scans import _conv_masks
from bitjax.scans import _conv_pooled
from bitjax.scans import _conv_tail
from bitjax.scans import _conv_ties
from bitjax.scans import _coordinates
from bitjax.scans import _flips_brute_force
from bitjax.scans import _flips_moves
from bitjax.scans import _flips_rank_one
from bitjax.scans import _flips_sign
from bitjax.scans import _network
from bitjax.scans import _paths
from bitjax.scans import _report
from bitjax.scans import _sample
from bitjax.scans import _text
from bitjax.scans import _view

__all__ = ['PATHS', 'FlipGains', 'brute_force_gains', 'flip_gains']

PATHS = (
  *('auto', 'layers', 'sign', 'rank_one', 'pooled', 'masks', 'tail'),
  'brute_force',
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FlipGains:
  """The gains of single moves.

  Attributes:
    gains: decrease of the mean loss by each move, in nats; positive is better.
      [fan_in, units] for the flips of a binary kernel, [2, fan_in, units] for
      moves up and down; 0 where a weight has no such move. (In general
      ``kernel.shape``, or [coordinates], instead of [fan_in, units].)
    second_moments: mean over the examples of the squared decrease.
    loss: mean loss before any move, in nats.
    near_ties: for each move, how many examples may have been decided by
      rounding, at the sign that the layer feeds, int32 of the shape of ``gains``;
      None if not counted.
    num_examples: number of examples that the loss is a mean over.
    path: which path computed them.
    sample: the sample whose weights' gains these are; None for those of all weights, or
      of given coordinates.
  """

  gains: types.Array
  second_moments: types.Array
  loss: types.Array
  near_ties: types.Array | None
  num_examples: int = dataclasses.field(metadata={'static': True})
  path: str = dataclasses.field(metadata={'static': True})
  sample: _sample.Sample | None = None

  def __repr__(self) -> str:
    return _text.describe(
      self,
      path=self.path,
      moves=self.gains,
      num_examples=self.num_examples,
      loss=self.loss,
      best=_text.reduce(np.maximum, self.gains),
      near_ties=_text.reduce(np.add, self.near_ties),
    )

  def standard_errors(self) -> types.Array:
    r"""Returns the standard error of each gain as an estimate of its expectation.

    .. math:: \sqrt{(m_2 - g^2) / (B - 1)}

    It is infinite for one example. Where the loss couples the examples (batch
    statistics), they are not independent, and the standard error is only a guide.
    """
    if self.num_examples == 1:
      return jnp.full_like(self.gains, jnp.inf)
    variance = jnp.maximum(self.second_moments - self.gains**2, 0.0)
    return jnp.sqrt(variance / (self.num_examples - 1))


@_report.reports
def flip_gains(
  view: _view.LayerView,
  *,
  step: types.Scalar | None = None,
  coordinates: types.Array | _sample.Sample | None = None,
  path: str = 'auto',
  chunk: int | None = None,
  count_near_ties: bool = False,
  report: _report.Report | None = None,
) -> FlipGains:
  """Returns the gain of every single move of the layer's kernel.

  Args:
    view: the layer.
    step: size of the moves of a full-precision kernel, in its units; None for
      quantised kernels, whose levels say how far they move.
    coordinates: the weights whose moves are evaluated, on the paths ``pooled``,
      ``masks``, ``tail`` and ``brute_force``, and of a whole network, by these, on
      ``layers`` (under ``jit`` on ``brute_force``): indices in the flattened kernel,
      [coordinates], or a sample (`draw_sample`), which the result keeps; None for all.
    path: ``'auto'`` takes the fastest path that is exact for this view; it
      depends on static facts only, and the result names it.
    chunk: how much is in memory at a time: examples on the fast paths, moves
      by brute force; None for a good number.
    count_near_ties: whether the paths ``sign``, ``masks`` and ``pooled`` also count
      near ties at the sign that the layer feeds, which about doubles the cost of
      ``sign``, and evaluates that sign twice for each move on the others. The other
      paths count none; on ``tail`` it would take as long as the gains.
    report: called with the share of the work that is done, in (0, 1], at most 100
      times, and with 1 at the end; None for no report.

  Returns:
    `FlipGains`. Under ``jit`` all gains are NaN if the loss is not finite, and the gains
    of coordinates that are no indices of weights; otherwise either is an error, for
    convolutions and networks before any gain is computed.

  Raises:
    BadInput: for an empty batch or kernel, a missing, superfluous or
      non-positive step, an unknown path, a fast path that does not apply to the
      view (the message says why), a sample of a layer of another shape, coordinates
      that are no indices of weights, a chunk below 1, or a loss that is concrete and
      not finite.
  """
  types.check_choice('path', path, PATHS)
  check_options(step=step, chunk=chunk)
  _view.check_filled(view)
  sample = None
  if isinstance(coordinates, _sample.Sample):
    sample, coordinates = coordinates, coordinates.coordinates
    _sample.check(sample, view)
  if coordinates is not None:
    _coordinates.check(coordinates, view.kernel.size)
  path = choose(view, path, coordinates).path
  if path != 'pooled':  # It takes less than a forward pass.
    _view.check_loss(view)
  if path == 'layers':
    gains = _by_layer(view, coordinates, report, step, chunk, count_near_ties)
  else:
    gains = _flip_gains(
      view, step, coordinates, path, chunk, count_near_ties, report
    )
  types.check_finite('The loss', gains.loss)
  return dataclasses.replace(gains, sample=sample)


@_report.reports
def brute_force_gains(
  losses: Callable[[types.PyTree], types.Array],
  params: types.PyTree,
  leaf: str,
  destinations: types.Array,
  *,
  coordinates: types.Array | None = None,
  chunk: int | None = None,
  report: _report.Report | None = None,
) -> FlipGains:
  """Returns the gain of single moves in one leaf of any pytree, for any loss.

  Args:
    losses: function of ``params`` that returns each example's loss, [examples], or
      one loss (the gains then have no standard errors).
    params: pytree from which all moves start.
    leaf: name of the leaf, such as ``'params/Dense_0/kernel'``.
    destinations: values after the moves, ``[moves, *leaf.shape]``, or [moves,
      coordinates] if there are coordinates.
    coordinates: indices in the flattened leaf, [coordinates]; None for all.
    chunk: moves that are evaluated at a time; None for a good number.
    report: as for `flip_gains`.

  Returns:
    `FlipGains` with gains of the shape of ``destinations``.

  Raises:
    BadInput: for an unknown leaf, destinations of another shape or none at all,
      coordinates that are no indices (under ``jit`` their gains are NaN), a chunk
      below 1, or a loss that is concrete and not finite.
  """
  check_options(chunk=chunk)
  of_leaf, array = _flips_brute_force.leaf_losses(losses, params, leaf)
  wanted = array.shape
  if coordinates is not None:
    _coordinates.check(coordinates, array.size)
    wanted = coordinates.shape
  if destinations.shape[1:] != wanted or destinations.size == 0:
    raise types.BadInput(
      f'destinations must have shape {("moves", *wanted)} and not be empty; '
      f'got {destinations.shape}.'
    )
  indices, outside = _coordinates.within(coordinates, array.size)
  loss, *totals = _flips_brute_force.moments(
    of_leaf, array, destinations, indices, chunk, report
  )
  types.check_finite('The loss', loss)
  first, second = (types.nan_where(outside, total) for total in totals)
  num_examples = jax.eval_shape(of_leaf, array).size
  return FlipGains(first, second, loss, None, num_examples, 'brute_force')


def check_options(
  *, step: types.Scalar | None = None, chunk: int | None = None
) -> None:
  """Raises `BadInput` for a step that is not positive, or a chunk below 1."""
  if step is not None:
    types.check_positive('step', step, finite=True)
  if chunk is not None:
    types.check_integer('chunk', chunk, 1)


def choose(
  view: _view.LayerView,
  path: str = 'auto',
  coordinates: types.Array | None = None,
) -> _paths.Choice:
  """Returns the requested path, which must apply, or the first that applies."""
  whole = isinstance(view.product, _network.Network)
  obstacles: dict[str, str | None] = {}
  obstacles['sign'] = _flips_sign.obstacle(view)
  obstacles['rank_one'] = _flips_rank_one.obstacle(view)
  if coordinates is not None:
    obstacles = dict.fromkeys(
      obstacles, 'it computes all moves, not those of coordinates'
    )
  if whole or path == 'layers':
    reason = None if whole else 'it is not that of a whole network'
    if whole and isinstance(coordinates, jax.core.Tracer):
      reason = 'it must know of which layers the coordinates are'
    obstacles = {'layers': reason} | obstacles
  obstacles['pooled'] = _conv_pooled.obstacle(view)
  obstacles['masks'] = _conv_masks.obstacle(view)
  obstacles['tail'] = _conv_tail.obstacle(view)
  unwise = {}
  if obstacles['masks'] is None and obstacles['tail'] is None:
    reason = _conv_masks.unwise(view, coordinates)
    unwise = {} if reason is None else {'masks': reason}
  return _paths.choose(path, obstacles | {'brute_force': None}, unwise)


def _by_layer(view, coordinates, report, step, chunk, near_ties):
  """Returns the gains of all layers of a network, as one vector of weights."""
  every = [*view.product.views(view)]
  own, order = [None] * len(every), None
  if coordinates is not None:
    ends = np.cumsum([layer.kernel.size for layer in every])
    number = np.searchsorted(ends, np.asarray(coordinates), side='right')
    own = [
      np.asarray(coordinates)[number == n] - (end - layer.kernel.size)
      for n, (end, layer) in enumerate(zip(ends, every, strict=True))
    ]
    order = np.argsort(np.argsort(number, kind='stable'), kind='stable')
  chosen = [
    (layer, given, choose(layer, coordinates=given).path)
    for layer, given in zip(every, own, strict=True)
    if given is None or given.size
  ]
  parts = [
    _flip_gains(
      layer,
      step,
      None if given is None else jnp.asarray(given),
      path,
      chunk,
      near_ties,
      _report.part(report, number, len(chosen)),
    )
    for number, (layer, given, path) in enumerate(chosen)
  ]

  def join(leaves):
    if order is not None:
      return jnp.concatenate(leaves, axis=-1)[..., order]
    flat = [
      leaf.reshape(*leaf.shape[: leaf.ndim - layer.kernel.ndim], -1)
      for leaf, (layer, _, _) in zip(leaves, chosen, strict=True)
    ]
    return jnp.concatenate(flat, axis=-1)

  ties = [part.near_ties for part in parts]
  return FlipGains(
    gains=join([part.gains for part in parts]),
    second_moments=join([part.second_moments for part in parts]),
    loss=parts[0].loss,
    near_ties=None if any(tie is None for tie in ties) else join(ties),
    num_examples=view.labels.size,
    path=f'layers: {", ".join(part.path for part in parts)}',
  )


@functools.partial(
  jax.jit, static_argnames=('path', 'chunk', 'count_near_ties')
)
def _flip_gains(view, step, coordinates, path, chunk, count_near_ties, report):
  moves = _flips_moves.moves(view, step=step)
  size = sizes.here()
  near_ties = None
  coordinates, outside = _coordinates.within(coordinates, view.kernel.size)
  if count_near_ties and path in ('masks', 'pooled'):
    near_ties = _conv_ties.counts(
      view, moves, chunk, _report.part(report, 0, 2)
    )
    report = _report.part(report, 1, 2)
    if coordinates is not None:
      near_ties = _picked(near_ties, coordinates)
  if path == 'sign':
    sums, near_ties = _flips_sign.moments(
      view,
      moves.changes,
      chunk or size.sign_examples,
      count_near_ties,
      report,
    )
  elif path == 'rank_one':
    sums = _flips_rank_one.moments(
      view, moves, chunk or size.rank_one_examples, report
    )
  elif path == 'pooled':
    sums = _conv_pooled.moments(view, moves, chunk, report)
    if coordinates is not None:
      sums = (sums[0], *(_picked(total, coordinates) for total in sums[1:]))
  elif path == 'masks':
    sums = _conv_masks.moments(view, moves, coordinates, chunk, report)
  elif path == 'tail':
    sums = _conv_tail.moments(view, moves, coordinates, chunk, report)
  else:
    destinations = moves.destinations
    if coordinates is not None:
      destinations = _picked(destinations, coordinates)
    sums = _flips_brute_force.moments(
      view.losses, view.kernel, destinations, coordinates, chunk, report
    )
  loss, first, second = sums
  broken = ~jnp.isfinite(loss) | outside
  return FlipGains(
    gains=types.nan_where(broken, moves.per_weight(first)),
    second_moments=types.nan_where(broken, moves.per_weight(second)),
    loss=loss,
    near_ties=None if near_ties is None else moves.per_weight(near_ties),
    num_examples=view.labels.size,
    path=path,
  )


def _picked(x, coordinates):
  """Returns the entries of [moves, *kernel.shape] at flat coordinates."""
  return x.reshape(x.shape[0], -1)[:, coordinates]
