r"""Shifts the threshold of the activations' sign, and looks at the gradient.

N12 asks what a change of "the threshold" does to the mean and the variance of the
straight-through gradient. One reading is the threshold of the *window*, at which the
gradient stops (`arms`). The other is that of the *quantizer*: the activation is
:math:`\operatorname{sign}(z - t)`, so the forward pass changes as well, and the network
is another one. Here t is a multiple of the spread (root mean square on A) of what
enters a layer's activations in the network without thresholds. The normal STE is that
of the shifted input: its window of half-width 1 moves with the threshold.

Dividing the sign's input by a number instead changes nothing forward; backward it is a
window of another half-width that keeps its mass, which `arms` follows.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import lanes
from bitjax import measures
from bitjax import quantizers
from bitjax import sweeps
from bitjax.evidence import optional
from bitjax.studies import toy
from bitjax.studies.variant_ste import families
from bitjax.studies.variant_ste import gradients
from bitjax.studies.variant_ste import layerwise

if TYPE_CHECKING:
  import xarray

__all__ = ['compare']


def compare(
  networks: toy.States,
  sweep: sweeps.Sweep,
  thresholds: Sequence[float],
  *,
  num_groups: int,
) -> xarray.Dataset:
  """Takes the normal STE's gradient at every threshold, in every set of layers.

  Args:
    networks: the networks of all seeds, in all states.
    sweep: runs the sweep.
    thresholds: in units of the spread, besides 0; without any, nothing is run.
    num_groups: number of equal parts of a batch, over which gradients vary.

  Returns:
    A dataset over (state, seed, place, threshold, ...), with ``place`` as in
    `families.places`: ``shifted_loss`` of the network on A;
    ``shifted_reliability``, the correlation of the first layer's gradients on A and
    B; by layer, ``shifted_NAME`` for each of `measures.GradientStatistics` that needs
    no reference.
  """
  if not thresholds:
    return optional.load('xarray').Dataset()
  places = families.places(len(networks.problems.config.hidden))
  values = [0.0, *sorted(thresholds)]
  alone = ('place', 'threshold')
  dims = dict.fromkeys(('shifted_loss', 'shifted_reliability'), alone)
  dims |= {f'shifted_{name}': (*alone, 'layer') for name in _STATISTICS}
  found = sweep(
    functools.partial(
      _lane,
      networks=networks,
      places=tuple(places.values()),
      num_groups=num_groups,
    ),
    name='thresholds',
    lanes=networks.lanes,
    shared=networks.shared | {'values': jnp.asarray(values, jnp.float32)},
    dims=dims,
    coords={
      'place': list(places),
      'threshold': np.asarray(values),
      'layer': networks.problems.layers,
    },
    chunk=1,
  )
  return networks.label(found)


_STATISTICS = tuple(
  name
  for name in measures.GradientStatistics._fields
  if name not in ('gain', 'bias')
)


def _lane(state, seed, arrays, starts, values, *, networks, places, num_groups):
  """Computes all thresholds for one seed at one state."""
  trial = networks.trial(state, seed, arrays, starts)
  problems = networks.problems
  model, layers = problems.model('binary'), problems.layers
  params = trial.variables['params']
  kernels = {layer: params[layer]['kernel'] for layer in layers}
  search, holdout = trial.batches[max(problems.config.batch_size)]
  spreads = layerwise.spreads(model, kernels, search.inputs)[:-1]
  estimators = layerwise.estimators(quantizers.window(1.0), spreads)

  def at(inside, value):
    shifts = value * spreads * inside

    def loss(moved, inputs, labels):
      logits = layerwise.logits(
        model, kernels | moved, inputs, estimators, thresholds=shifts
      )
      return toy.cross_entropy(logits, labels)

    def of_parts(batch, names):
      moved = {layer: kernels[layer] for layer in names}
      part = functools.partial(jax.value_and_grad(loss), moved)
      parts = gradients.split(batch, num_groups)._asdict()
      return lanes.each(part, parts)

    losses, own = of_parts(search, layers)
    _, other = of_parts(holdout, layers[:1])
    first = layers[0]
    found = [measures.gradient_statistics(own[layer]) for layer in layers]
    return {
      'shifted_loss': jnp.mean(losses),
      'shifted_reliability': measures.correlation(
        jnp.mean(own[first], axis=0), jnp.mean(other[first], axis=0)
      ),
    } | {
      f'shifted_{name}': jnp.stack([getattr(each, name) for each in found])
      for name in _STATISTICS
    }

  masks = jnp.asarray(places, jnp.float32)
  return lanes.grid(at, {'inside': masks, 'value': values})
