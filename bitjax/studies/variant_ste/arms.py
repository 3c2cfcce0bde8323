r"""Compares variants of the straight-through gradient on the toy problem.

A *variant* is the binary network with other estimators: the same forward pass,
another gradient. One lane is one seed at one state of its network (initial or
trained). In it every variant's gradient is taken on the same batches, followed at the
same learning rates, and compared with two gradients that need no estimator. One is the
*discrete* gradient

.. math:: D_i = \tfrac12 \bigl(L(q_i = +1) - L(q_i = -1)\bigr),

with all other weights as they are. The other is the *central* difference of the latent
weights, :math:`(L(w + s e_i) - L(w - s e_i)) / 2s`, with s their median magnitude: it
is :math:`D_i / s` where :math:`|w_i| \le s`, and 0 elsewhere.

A step through all layers also depends on how a variant divides the gradient among the
layers. There windows are followed twice: at height 1, and at the heights that keep
their mass (see `layerwise`).
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import descent
from bitjax import lanes
from bitjax import measures
from bitjax import scans
from bitjax import sweeps
from bitjax import tree
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.toy import dispatch
from bitjax.studies.variant_ste import families
from bitjax.studies.variant_ste import gradients
from bitjax.studies.variant_ste import layerwise

if TYPE_CHECKING:
  import xarray

__all__ = ['EVERYWHERE', 'PRIMARY', 'compare', 'discrete']

PRIMARY = 'window on activations 0.5'  # The variant of the primary contrast.
# The variants that step through all layers as well, besides windows layer by layer.
EVERYWHERE = ('normal', PRIMARY, 'window on weights 0.05', 'Bi-Real')


def compare(
  networks: toy.States,
  sweep: sweeps.Sweep,
  variants: Sequence[toy.Variant],
  rates: Sequence[float],
  *,
  everywhere: Sequence[str],
  few_rates: Sequence[float],
  half_widths: Sequence[float],
  num_groups: int,
) -> xarray.Dataset:
  """Runs all variants on every seed, in every state of its network.

  Args:
    networks: the networks of all seeds, in all states.
    sweep: runs the sweep.
    variants: the variants; the first is the normal STE.
    rates: learning rates of a step of the first layer, as fractions of
      `descent.reach`.
    everywhere: names of the variants that also step through all layers, besides those
      with windows of each layer's own. These and `PRIMARY` do so twice: once more with
      windows that keep their mass, as the name with `families.KEPT`.
    few_rates: learning rates of those steps, each of which costs a forward pass.
    half_widths: half-widths c, for the shares of pre-activations within [-c, c].
    num_groups: number of equal parts of a batch, over which gradients vary.

  Returns:
    A dataset over (state, seed, variant, ...): ``search``, ``holdout``, ``flips``,
    ``used`` by learning rate; ``start_search``, ``start_holdout`` before the step;
    ``all_search``, ``all_holdout`` for steps through all layers; ``affected``, the
    share of the first layer's gradient that differs from the normal STE's;
    ``reliability``, the correlation of the gradients on A and B; agreements with the
    gradients that need no estimator; by layer, gradient statistics and what enters the
    activations. ``entering_rms`` is the unit of relative windows.
  """
  names = [variant.name for variant in variants]
  chosen = {
    name: (number, None)
    for number, name in enumerate(names)
    if name in everywhere or variants[number].windows
  }
  num_hidden = len(networks.problems.config.hidden)
  half = toy.Windows((families.HALF,) * num_hidden, (0.0,) * num_hidden)
  own = {each.name: each.windows for each in variants} | {PRIMARY: half}
  chosen |= {
    f'{name}{families.KEPT}': (number, own[name])
    for name, (number, _) in chosen.items()
    if own[name] is not None
  }
  fn = functools.partial(
    _lane,
    networks=networks,
    variants=tuple(variants),
    chosen=tuple(chosen.values()),
    num_groups=num_groups,
  )
  dims: dict[str, tuple[str, ...]] = dict.fromkeys(
    toy.REPORTED, ('variant', 'learning_rate')
  )
  dims |= dict.fromkeys(('all_search', 'all_holdout'), ('chosen', 'few_rate'))
  dims |= dict.fromkeys(_PER_VARIANT, ('variant',))
  dims |= dict.fromkeys(_PER_LAYER, ('variant', 'layer'))
  entering = ('entering_mean', 'entering_std', 'entering_rms')
  dims |= dict.fromkeys(entering, ('layer',))
  dims |= {'entering_share': ('layer', 'half_width')}
  found = sweep(
    fn,
    name='variants',
    lanes=networks.lanes,
    shared=networks.shared
    | {
      'rates': jnp.asarray(rates, jnp.float32),
      'few_rates': jnp.asarray(few_rates, jnp.float32),
      'half_widths': jnp.asarray(half_widths, jnp.float32),
    },
    dims=dims,
    coords={
      'variant': names,
      'layer': networks.problems.layers,
      'learning_rate': np.asarray(rates),
      'few_rate': np.asarray(few_rates),
      'half_width': np.asarray(half_widths),
      'chosen': list(chosen),
    },
    chunk=1,
  )
  return networks.label(found).assign_coords(
    family=('variant', [variant.family for variant in variants]),
    setting=('variant', [float(variant.setting) for variant in variants]),
  )


_AGREEMENTS = tuple(
  f'{truth}_{name}'
  for truth in ('discrete', 'central', 'holdout_discrete')
  for name in measures.Agreement._fields
)
_PER_VARIANT = ('affected', 'reliability', *_AGREEMENTS)
_PER_LAYER = tuple(
  f'gradient_{name}' for name in measures.GradientStatistics._fields
)


def _lane(
  state,
  seed,
  arrays,
  starts,
  rates,
  few_rates,
  half_widths,
  *,
  networks,
  variants,
  chosen,
  num_groups,
):
  """Computes all variants for one seed at one state."""
  trial = networks.trial(state, seed, arrays, starts)
  problems = networks.problems
  size = max(problems.config.batch_size)
  model = problems.model('binary')
  layers = problems.layers
  posed = {
    layer: toy.pose_problem(model, trial, size, layer=layer) for layer in layers
  }
  first = posed[layers[0]]
  truths = {layer: discrete(posed[layer].search) for layer in layers}
  kernels = {layer: posed[layer].kernel for layer in layers}
  search, _ = trial.batches[size]
  spreads = layerwise.spreads(model, kernels, search.inputs)
  compared = _truths(first, truths[layers[0]])
  gradients_of = gradients.by_part(
    model,
    trial,
    size,
    variants,
    spreads[:-1],
    num_parts=num_groups,
    layers=layers,
  )

  def describe(variant):
    search, holdout = gradients_of(variant)
    directions = {layer: jnp.mean(search[layer], axis=0) for layer in layers}
    other = jnp.mean(holdout[layers[0]], axis=0)
    statistics = [
      measures.gradient_statistics(search[layer], truths[layer])
      for layer in layers
    ]
    return {
      'directions': directions,
      'reliability': measures.correlation(directions[layers[0]], other),
    } | {
      f'gradient_{name}': jnp.stack([getattr(s, name) for s in statistics])
      for name in measures.GradientStatistics._fields
    }

  start = scans.line_start([first.search, first.holdout])

  def follow(direction):
    sorted_once = measures.ranked(direction)
    outputs = toy.single_step(
      first, problems.budget, rates, direction=direction, start=start
    )
    for name, truth in compared.items():
      found = measures.agreement(sorted_once, truth)._asdict()
      outputs |= {f'{name}_{kind}': value for kind, value in found.items()}
    return outputs

  def through_all(number, heights, directions):
    direction = {
      layer: heights[index] * directions[layer][number]
      for index, layer in enumerate(layers)
    }
    return _all_layers(problems, model, trial, direction, few_rates)

  outputs = lanes.each(describe, {'variant': jnp.arange(len(variants))})
  everywhere = outputs.pop('directions')
  directions = everywhere[layers[0]]
  outputs |= dispatch.each_once(follow, directions)
  outputs['affected'] = jax.lax.map(
    lambda d: tree.share(d != directions[0]), directions
  )
  everywhere = lanes.each(
    through_all,
    {
      'number': jnp.asarray([number for number, _ in chosen]),
      'heights': jnp.stack(
        [layerwise.heights(windows, spreads[:-1]) for _, windows in chosen]
      ),
    },
    shared={'directions': everywhere},
  )
  outputs |= {f'all_{name}': value for name, value in everywhere.items()}
  before = first.losses(first.kernel)
  outputs |= {f'start_{name}': value for name, value in before.items()}
  outputs['entering_rms'] = spreads
  return outputs | _entering(posed, layers, half_widths)


def _truths(problem, truth):
  """Returns the gradients that directions are compared with, sorted beforehand."""
  step = jnp.median(jnp.abs(problem.kernel))
  central = jnp.where(jnp.abs(problem.kernel) <= step, truth / step, 0)
  found = {
    'discrete': truth,
    'central': central,
    'holdout_discrete': discrete(problem.holdout),
  }
  return {name: measures.ranked(value) for name, value in found.items()}


def discrete(view: scans.LayerView) -> types.Array:
  """Returns the discrete gradient of a binary layer, of the kernel's shape.

  Args:
    view: a layer whose kernel passes through the sign.
  """
  # A flip takes q to -q, and its gain is the decrease of the loss.
  signs = jnp.where(view.kernel >= 0, 1.0, -1.0)
  return 0.5 * signs * scans.flip_gains(view).gains


def _all_layers(problems, model, trial, direction, fractions):
  """Returns the losses on A and B after steps through all layers, [rates] each."""
  params = {
    layer: leaves['kernel']
    for layer, leaves in trial.variables['params'].items()
  }
  rates = fractions * descent.reach(params, direction, problems.budget)

  def at(rate):
    moved = jax.tree.map(lambda w, d: w - rate * d, params, direction)
    variables = {'params': {k: {'kernel': w} for k, w in moved.items()}}
    batches = trial.batches[max(problems.config.batch_size)]
    return {
      name: toy.cross_entropy(
        model.apply(variables, batch.inputs), batch.labels
      )
      for name, batch in zip(('search', 'holdout'), batches, strict=True)
    }

  return lanes.each(at, {'rate': rates})


def _entering(posed, layers, half_widths):
  """Describes each layer's pre-activations on A; those of the last are logits."""
  found = [
    measures.entering(view.search.pre_activations(view.kernel), half_widths)
    for view in (posed[layer] for layer in layers)
  ]
  return {
    'entering_mean': jnp.stack([entered.mean for entered in found]),
    'entering_std': jnp.stack([entered.std for entered in found]),
    'entering_share': jnp.stack([entered.shares for entered in found]),
  }
