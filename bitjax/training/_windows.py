r"""Fits the width and the family of an estimator to exact gains of flips, layer by layer.

An estimator of width :math:`\sigma` predicts the gain of a move as a kernel estimate does
a density: it averages what a changed sign is worth over the examples whose pre-activation
lies within about :math:`\sigma` of the threshold, in place of the few that really cross it.
With a batch of B examples such an average has, to leading order,

.. math::
  \text{bias} \propto \sigma^2, \qquad \text{variance} \propto \frac1{B \sigma}, \qquad
  \text{so the best} \quad \sigma \propto B^{-1/5}

for a smooth density and worth: a wide window looks where signs do not change, a narrow one
at too few examples. The optimum depends on the layer and on the state of training, so it is
fitted: the prediction on one half of a batch should agree with the exact gains on the
other, whose noise is independent. Kernels of different form (`FAMILIES`) can be tried in the
same way; in theory the form matters less than the width.

References:
  Silverman, Density estimation for statistics and data analysis, 1986, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from bitjax import measures
from bitjax import quantizers
from bitjax import scans
from bitjax import types

__all__ = ['FAMILIES', 'Family', 'FittedWidth', 'fit_width']

Family: TypeAlias = Callable[[types.Scalar], quantizers.Estimator]


def _rectangle(width):
  return quantizers.relative(quantizers.window(width))


def _gaussian(width):
  return quantizers.relative(quantizers.gaussian(width))


def _triangle(width):
  return quantizers.relative(quantizers.polynomial(width))


def _swish_sign(width):
  # Its derivative is positive up to 2.4 / beta, and negative beyond.
  return quantizers.relative(quantizers.swish_sign(2.4 / width))


# Functions of a width in units of the layer's spread.
FAMILIES: dict[str, Family] = {
  'rectangle': _rectangle,
  'Gaussian': _gaussian,
  'triangle': _triangle,
  'SwishSign': _swish_sign,
}


class FittedWidth(NamedTuple):
  """How well estimators of several widths predict exact gains.

  Attributes:
    width: the width of the best score, of those whose estimator passes something.
    score: its score; -inf if no width can be judged: none passes anything, all gains are
      equal, or a loss is not finite. Then the width is the first.
    scores: for each width, the correlation over all moves of the prediction on one half
      with the exact gains on the other, averaged over both directions; 0 for a width
      whose estimator passes nothing, NaN for one whose answer, or where a loss, is not
      finite. Of several families [families, widths].
    family: position of the best family, int32; 0 for a single one.
  """

  width: types.Array
  score: types.Array
  scores: types.Array
  family: types.Array


def fit_width(
  view: scans.LayerView,
  other: scans.LayerView,
  estimator: Family | Sequence[Family],
  widths: types.Array,
  *,
  coordinates: types.Array | None = None,
  chunk: int | None = None,
) -> FittedWidth:
  r"""Chooses the width, and the family, of the estimator of the first sign behind a layer.

  .. math:: \max_\sigma \; \mathrm{corr}\left( -G_1(\sigma) \, \Delta, \; g_2 \right)
    + \mathrm{corr}\left( -G_2(\sigma) \, \Delta, \; g_1 \right)

  :math:`G_h(\sigma)` is the gradient of half h with an estimator of width :math:`\sigma` at
  that sign, :math:`g_h` are the exact gains of `scans.flip_gains`, and :math:`\Delta` the
  changes of the quantised weights. All other estimators are those of the view: fit from the
  last layer to the first, to use fitted ones behind. A correlation does not see a factor, so
  it is the width that is fitted, and no learning rate. It costs the gains of both halves, a
  forward and backward pass of the batch, and for each width of each family a backward
  pass of the layer alone.

  Args:
    view: the layer on one half of a batch, with a quantised kernel.
    other: the same layer on the other half.
    estimator: makes an estimator of a width, such as `quantizers.gaussian` or
      ``lambda c: quantizers.relative(quantizers.window(c))``; or several such families,
      such as ``[*training.FAMILIES.values()]``, among which is chosen too, the first of the
      best. Static: traced once, so pass the same functions again. A running
      spread (`quantizers.relative`) is that which the view's sign has.
    widths: what to choose from, [widths], positive.
    coordinates: indices of weights in the flattened kernel, as `scans.draw_sample` draws
      them, for a layer whose gains would cost too much; None for all.
    chunk: as for `scans.flip_gains`.

  Returns:
    A `FittedWidth`. It depends on nothing but its arguments.

  Raises:
    BadInput: for views of different kernels or without a sign behind the layer, no widths
      or one that is not positive, and what `scans.flip_gains` objects to.
  """
  families = check_families(estimator)
  widths = _checked(widths)
  if chunk is not None:
    types.check_integer('chunk', chunk, 1)
  for half in (view, other):
    if half.quantizer is None:
      raise types.BadInput(
        'The view must have a quantised kernel, whose levels say how far a flip moves.'
      )
    if next(signs(half.tail), None) is None:
      raise types.BadInput(
        'No sign follows the layer of the view, so there is no estimator to fit.'
      )
  if view.kernel.shape != other.kernel.shape:
    raise types.BadInput(
      'Both views must be of the same layer; their kernels have shapes '
      f'{view.kernel.shape} and {other.kernel.shape}.'
    )
  one, two = (
    scans.flip_gains(half, coordinates=coordinates, chunk=chunk).gains
    for half in (view, other)
  )
  pair = (
    _scores(view, two, widths, coordinates, families),
    _scores(other, one, widths, coordinates, families),
  )
  scores = (pair[0] + pair[1]) / 2
  # A correlation is 0 where one side is constant: a width that passes nothing must not win
  # because all others predict badly, nor one whose score is NaN.
  known = jnp.abs(pair[0]) + jnp.abs(pair[1]) > 0
  judged = jnp.where(known, scores, -jnp.inf)
  best = jnp.argmax(judged)
  family, width = jnp.divmod(best.astype(jnp.int32), len(widths))
  if callable(estimator):
    scores = scores[0]
  return FittedWidth(widths[width], jnp.max(judged), scores, family)


def check_families(estimator: Family | Sequence[Family]) -> tuple[Family, ...]:
  """Returns the families as a tuple; raises `BadInput` unless there is one or more."""
  single = not isinstance(estimator, Sequence)
  families = (estimator,) if single else tuple(estimator)
  for family in families:
    if not callable(family):
      raise types.BadInput(
        'estimator must be a function of a width, such as quantizers.gaussian, or '
        f'several; got {types.shown(family)}.'
      )
  if not families:
    raise types.BadInput('estimator must have at least one family; got none.')
  return families


@functools.partial(jax.jit, static_argnames='families')
def _scores(view, gains, widths, coordinates, families):
  r"""Returns the correlations of predictions with the gains, [families, widths].

  An estimator matters at one sign alone. So what lies behind is differentiated once, for
  all of them: :math:`G(\sigma) = G_0 + J^T E_\sigma(g, x)`, with g the gradient of the sign's
  outputs, x its inputs, J their derivative by the kernel, and :math:`G_0` what passes by
  the sign (a shortcut).
  """
  moves = scans.moves(view)
  changes = moves.per_weight(moves.changes)
  sign: Any = next(signs(view.tail))
  staircase = quantizers.staircase(sign.quantizer)
  spread = quantizers.spread_of(sign.quantizer)

  def run(kernel, added):
    inputs = []

    def constant(x):
      inputs.append(x)
      return jax.lax.stop_gradient(staircase(x)) + added

    tail, _ = _replaced(
      view.tail, lambda stage: dataclasses.replace(stage, quantizer=constant)
    )
    loss = dataclasses.replace(view, tail=tail).loss(kernel)
    return loss, inputs[0]

  found = jax.eval_shape(lambda kernel: run(kernel, 0)[1], view.kernel)
  zeros = jnp.zeros(found.shape, found.dtype)
  past, g = jax.grad(lambda *args: run(*args)[0], (0, 1))(view.kernel, zeros)
  x, to_kernel = jax.vjp(lambda kernel: run(kernel, zeros)[1], view.kernel)

  def score(family, width):
    quantizer = quantizers.attach(staircase, family(width))
    if spread is not None:
      quantizer = quantizers.with_spread(quantizer, spread)
    _, to_inputs = jax.vjp(quantizer, x)
    (through,) = to_kernel(*to_inputs(g))
    predicted = -(past + through) * changes
    if coordinates is not None:
      flat = predicted.reshape(*gains.shape[:-1], -1)
      predicted = flat[..., coordinates]
    finite = jnp.isfinite(predicted).all() & jnp.isfinite(gains).all()
    found = measures.correlation(predicted.reshape(-1), gains.reshape(-1))
    return jnp.where(finite, found, jnp.nan)

  return jnp.stack(
    [
      jax.lax.map(functools.partial(score, family), widths)
      for family in families
    ]
  )


def signs(stages: Sequence[scans.Stage]) -> Iterator[scans.Activation]:
  """Yields all signs of stages, in order."""
  for stage in stages:
    if isinstance(stage, scans.Residual):
      yield from signs(stage.body)
    elif isinstance(stage, scans.Activation) and stage.kind == 'sign':
      yield stage


def _replaced(stages, fn):
  """Returns stages with ``fn`` of the first sign, and whether there is one."""
  found, done = [], False
  for stage in stages:
    if done:
      found.append(stage)
    elif isinstance(stage, scans.Activation) and stage.kind == 'sign':
      found.append(fn(stage))
      done = True
    elif isinstance(stage, scans.Residual):
      body, done = _replaced(stage.body, fn)
      found.append(scans.Residual(body, stage.shortcut))
    else:
      found.append(stage)
  return tuple(found), done


def _checked(widths):
  """Returns widths as an array, if they are positive numbers."""
  widths = jnp.asarray(widths)
  widths = widths.astype(types.promoted(jnp.float32, widths))
  if widths.ndim != 1 or not widths.size:
    raise types.BadInput(
      f'widths must be numbers, at least one; got an array of shape {widths.shape}.'
    )
  types.check_positive('widths', jnp.min(widths))
  return widths
