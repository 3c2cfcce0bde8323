r"""Computes the loss along a line for a real kernel and a piecewise linear tail.

Along ``W - eta * d`` the pre-activations are affine in the learning rate,

.. math:: p(\eta) = x W - \eta \, x d,

and so is every later layer for as long as no ReLU changes its pattern, down to
the logits. Each example therefore *walks*: its logits and their slopes are
computed at one rate, together with the distance to the nearest kink of any ReLU
in any layer. Up to that kink, a rate costs the example one log-sum-exp over the
classes; beyond it, logits and slopes are computed anew. Kinks are few (some tens per
example and line), so the rest of the network is evaluated a few dozen times, not once
per rate.

An example always restarts at a rate of the grid, from its pre-activations there.
Errors do not accumulate, and as the loss is continuous, a kink misjudged by
rounding moves it by rounding only.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import sizes
from bitjax import types
from bitjax.scans import _report
from bitjax.scans import _split
from bitjax.scans import _stages
from bitjax.scans import _view

__all__ = ['losses']


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Walk:
  """The affine piece that each example is on.

  The logits are relative to that of the label, so the loss is their log-sum-exp.
  """

  origin: types.Array  # [examples], rate at which the logits were computed.
  following: types.Array  # [examples], index of the first rate beyond the kink.
  logits: types.Array  # [examples, classes].
  slopes: types.Array  # [examples, classes].


@functools.partial(jax.jit, static_argnames='width')
def losses(
  view: _view.LayerView,
  direction: types.Array,
  rates: types.Array,
  width: int | None = None,
  report: Any = None,
) -> types.Array:
  """Returns the mean losses at sorted rates, [rates].

  Args:
    view: a layer without a quantizer or a scale computed from its weights, whose tail
      consists of affine maps and ReLUs.
    direction: d, of the kernel's shape.
    rates: sorted, [rates].
    width: rates that are scanned at a time.
    report: progress; None for no report.
  """
  split = _split.split(view)
  dense = _stages.Dense(split.matrix, arithmetic=split.next_arithmetic)
  stages = (*split.front, dense, *split.rest)
  products = split.products(view.inputs)
  velocity = -jnp.matmul(view.inputs, direction, precision='highest')
  num_examples = view.labels.size
  chunk = min(width or sizes.here().affine_rates, rates.size)
  num_rows = min(sizes.here().affine_examples, num_examples)
  padding = -rates.size % chunk
  padded = jnp.append(rates, jnp.full(padding, rates[-1], rates.dtype))

  def restart(walk, first):
    """Restarts the first few examples whose kink lies before the chunk's end."""
    waiting = walk.following < first + chunk
    row, valid = _first_true(waiting, num_rows)
    index = walk.following[row]
    origin = padded[index]
    z = products[row] + origin[:, None] * velocity[row]
    logits, slopes, reach = _linearize(stages, z, velocity[row])
    beyond = jnp.searchsorted(padded, origin + reach).astype(jnp.int32)
    label = view.labels[row][:, None]
    new = _Walk(
      origin,
      jnp.maximum(index + 1, beyond),
      logits - jnp.take_along_axis(logits, label, axis=1),
      slopes - jnp.take_along_axis(slopes, label, axis=1),
    )
    target = jnp.where(valid, row, num_examples)
    walk = jax.tree.map(
      lambda all_, some: all_.at[target].set(some, mode='drop'), walk, new
    )
    return walk, new, jnp.where(valid, index, padded.size)

  def scan_chunk(walk, first):
    here = first + jnp.arange(chunk)
    some = jax.lax.dynamic_slice_in_dim(padded, first, chunk)

    def step(carry):
      walk, total = carry
      walk, new, start = restart(walk, first)
      return walk, total + _sums(new, start, here, some)

    carry = walk, _sums(walk, jnp.zeros_like(walk.following), here, some)
    return jax.lax.while_loop(
      lambda carry: jnp.any(carry[0].following < first + chunk), step, carry
    )

  classes = jax.eval_shape(lambda z: _stages.apply(stages, z), products).shape[
    1
  ]
  nothing = jnp.zeros((num_examples, classes), products.dtype)
  walk = _Walk(
    jnp.zeros(num_examples, rates.dtype),
    jnp.zeros(num_examples, jnp.int32),
    nothing,
    nothing,
  )
  starts = jnp.arange(0, padded.size, chunk, dtype=jnp.int32)
  _, sums = _report.scan(report, scan_chunk, walk, starts)
  return sums.ravel()[: rates.size] / num_examples


def _first_true(mask, size):
  """Returns indices of the first ``size`` true entries, and which of them exist."""
  count = jnp.cumsum(mask)
  slot = jnp.arange(size)
  index = jnp.searchsorted(count, slot, side='right')
  return jnp.minimum(index, mask.size - 1), slot < count[-1]


def _linearize(stages, x, slope):
  """Returns output, slope, and distance to the nearest kink ahead, [rows]."""
  reach = jnp.full(x.shape[:1], jnp.inf, x.dtype)
  for stage in stages:
    if isinstance(stage, _stages.Activation):
      if stage.kind == 'relu':
        positive = x > 0
        crosses = jnp.where(positive, slope < 0, slope > 0)
        distance = jnp.where(
          crosses, -x / jnp.where(crosses, slope, 1), jnp.inf
        )
        reach = jnp.minimum(reach, jnp.min(distance, axis=1))
        x, slope = jax.nn.relu(x), jnp.where(positive, slope, 0)
    else:
      if isinstance(stage, _stages.Dense):
        stage = stage.freeze()
      x, slope = jax.jvp(stage, (x,), (slope.astype(x.dtype),))
  return x, slope, reach


def _sums(walk, start, here, rates):
  """Sums, at each rate, the losses of the examples whose piece covers it, [rates]."""
  past = rates[:, None] - walk.origin[None, :]
  # Unrolled: XLA's CPU backend does not vectorise a sum over a leading axis.
  logits = [
    walk.logits[:, c][None, :] + past * walk.slopes[:, c][None, :]
    for c in range(walk.logits.shape[1])
  ]
  top = logits[0]
  for logit in logits[1:]:
    top = jnp.maximum(top, logit)
  total = jnp.zeros_like(top)
  for logit in logits:
    total += jnp.exp(logit - top)
  known = (start[None, :] <= here[:, None]) & (
    here[:, None] < walk.following[None, :]
  )
  return jnp.sum(jnp.where(known, top + jnp.log(total), 0), axis=1)
