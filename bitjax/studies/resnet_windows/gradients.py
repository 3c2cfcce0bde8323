r"""Gradients of one network with every estimator, and what they are worth.

Estimators change the backward pass only. So one program takes the gradient of each: the
estimator is chosen by its number while it runs. Normalisations use given statistics, as in
evaluation, so that examples do not depend on each other and exact gains are defined.

With :math:`q` the signs of a layer's weights, the gradient :math:`g` predicts that flipping
weight i lowers the loss by :math:`2 q_i g_i`. What it really lowers it by is the *exact
gain*, of which some weights of each layer are computed; half of it is the discrete gradient,
with the sign of the weight. The cosine of prediction and gain is that of the two gradients.

A sign is looked at from both sides: with :math:`g` the cotangent of its output and
:math:`\bar x` that of its input, the share of the gradient that passes is
:math:`\sum |\bar x| / \sum |g|`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import measures
from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import tree
from bitjax import types
from bitjax.studies.resnet_windows import estimators

__all__ = ['STATISTICS', 'Gains', 'Problem', 'Taken']

# Names of `measures.GradientStatistics` that need no reference.
STATISTICS = (
  'mean',
  'coordinate_variance',
  'batch_variance',
  'sparsity',
  'signal_to_noise',
)
Layers = dict[str, Any]


class Gains(NamedTuple):
  """Exact gains of some weights of each layer.

  Attributes:
    samples: layer -> the weights.
    search: layer -> their gains on A, [coordinates].
    holdout: layer -> their gains on B, [coordinates].
  """

  samples: Layers
  search: Layers
  holdout: Layers


class Taken(NamedTuple):
  """The gradient of one estimator on A.

  Attributes:
    directions: layer -> the gradient of its latent kernel, of the kernel's shape.
    numbers: name -> one number for each layer, [layers].
  """

  directions: Layers
  numbers: dict[str, types.Array]


class Problem:
  """The questions about networks of one kind, each compiled once.

  Args:
    build: estimator -> the network, with a threshold before each sign.
    layers: paths of quantized layers, from first to last.
    names: the estimators.
    half_widths: half-widths c, for the share of what enters a sign within [-c, c].
    num_parts: number of equal parts of A, over which gradients vary.
    sample: weights of a layer whose exact gains are computed.
  """

  def __init__(
    self,
    build: Callable[[quantizers.Estimator], Any],
    layers: Sequence[str],
    names: Sequence[str],
    half_widths: Sequence[float],
    *,
    num_parts: int,
    sample: int,
  ):
    self._build, self._layers = build, list(layers)
    self._rules = [_at_its_progress(estimators.of(name)) for name in names]
    self._half_widths = jnp.asarray(half_widths, jnp.float32)
    self._num_parts, self._sample = num_parts, sample
    self._model = build(quantizers.window(1.0))
    self.calibrated = jax.jit(self._calibrated)
    self.gains = jax.jit(self._gains)
    self.take = jax.jit(self._take)
    self.step = jax.jit(self._step, static_argnames='alone')
    self.losses = jax.jit(self._losses)

  def _calibrated(self, variables, images):
    """Returns variables whose normalisations have the statistics of these images."""
    _, updated = self._model.clone(momentum=0.0).apply(
      variables, images, train=True, mutable=['batch_stats']
    )
    return {'params': variables['params'], **updated}

  def _gains(self, variables, search, holdout, key):
    """Returns `Gains`: the samples are drawn by the key.

    A flip leaves the mean magnitude that multiplies the signs as it is, as the
    gradient has it.
    """
    samples, found = {}, ({}, {})
    for number, layer in enumerate(self._layers):
      views = [
        nn.layer_view(
          self._model, variables, *batch, layer=layer, train=False
        ).freeze_scale()
        for batch in (search, holdout)
      ]
      size = min(self._sample, views[0].kernel.size)
      own = jax.random.fold_in(key, number)
      samples[layer] = scans.draw_sample(views[0], size, own)
      for view, kept in zip(views, found, strict=True):
        exact = scans.flip_gains(view, coordinates=samples[layer])
        kept[layer] = exact.gains
    return Gains(samples, *found)

  def _take(self, number, variables, search, holdout, gains):
    """Returns the gradient of an estimator on A, `Taken`.

    Args:
      number: of the estimator.
      variables: of the network.
      search: A, a `data.Batch`.
      holdout: B.
      gains: `Gains` at the same variables.

    Returns:
      A `Taken` with `STATISTICS` over the parts of A; ``norm`` of the mean; ``reliability``,
      its correlation with the gradient on B; ``passing`` and, of what enters the signs,
      ``entering_rms`` and, [layers, half_widths], ``entering_share``; the cosine with the exact
      gains on A, ``cosine``, and on B, ``holdout_cosine``, with the standard error of each
      from sampling weights, ``cosine_error`` and ``holdout_cosine_error``.
    """
    parts = jax.tree.map(
      lambda *leaves: jnp.concatenate(
        [leaf.reshape(self._num_parts, -1, *leaf.shape[1:]) for leaf in leaves]
      ),
      search,
      holdout,
    )
    every, signs = jax.lax.map(
      lambda part: self._of_batch(number, variables, part), parts
    )
    each, others = (
      jax.tree.map(lambda leaf, own=own: leaf[own], every)
      for own in (slice(self._num_parts), slice(self._num_parts, None))
    )
    signs = jax.tree.map(lambda leaf: leaf[: self._num_parts], signs)
    directions, other = (
      jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), parts)
      for parts in (each, others)
    )
    rows = []
    for layer in self._layers:
      statistics = measures.gradient_statistics(each[layer])
      row = {name: getattr(statistics, name) for name in STATISTICS}
      row['norm'] = jnp.linalg.norm(jnp.ravel(directions[layer]))
      row['reliability'] = measures.correlation(directions[layer], other[layer])
      kernel = self._kernels(variables['params'])[layer]
      rows.append(row | _nearness(layer, kernel, directions[layer], gains))
    numbers = {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}
    return Taken(directions, numbers | _over_parts(signs))

  def _of_batch(self, number, variables, batch):
    """Returns the gradient of each layer's kernel, and what passes each sign."""
    params = variables['params']
    rest = {k: v for k, v in variables.items() if k != 'params'}

    def objective(kernels, taps):
      tapped = _Tapped(self._rules, number, taps)
      model = self._model.clone(input_quantizer=tapped)
      moved = self._with(params, kernels)
      logits = model.apply({'params': moved, **rest}, batch.inputs)
      return _cross_entropy(logits, batch.labels), tapped.seen

    kernels = self._kernels(params)
    _, shapes = jax.eval_shape(objective, kernels, None)
    taps = [
      (jnp.zeros(x.shape, x.dtype), jnp.zeros(x.shape, x.dtype)) for x in shapes
    ]
    gradient = jax.grad(objective, argnums=(0, 1), has_aux=True)
    (found, cotangents), seen = gradient(kernels, taps)
    sums = [
      {
        'passed': jnp.sum(jnp.abs(before)),
        'arrived': jnp.sum(jnp.abs(behind)),
        'square': jnp.mean(jnp.square(x)),
        'share': measures.entering(x, self._half_widths).shares,
      }
      for (before, behind), x in zip(cotangents, seen, strict=True)
    ]
    return found, {
      name: jnp.stack([row[name] for row in sums]) for name in sums[0]
    }

  def _step(
    self,
    variables,
    directions,
    search,
    holdout,
    fractions,
    budget,
    *,
    alone=False,
  ):
    """Returns the losses after a step of all layers, and of each alone.

    A step has the length of a fraction of the budget, which is a share of the l2 norm of
    the latent weights that move.

    Args:
      variables: of the network.
      directions: layer -> the gradient.
      search: A, a `data.Batch`.
      holdout: B.
      fractions: of the budget, [rates].
      budget: the share.
      alone: whether each layer also steps by itself.

    Returns:
      ``all_search``, ``all_holdout``, and ``all_flips``, the share of weights whose sign
      changes, [rates]; and, if each layer steps ``alone``, ``layer_search`` and
      ``layer_holdout``, [layers, rates].
    """
    kernels = self._kernels(variables['params'])
    rest = {k: v for k, v in variables.items() if k != 'params'}
    weights, slopes = (
      jnp.stack(
        [jnp.linalg.norm(jnp.ravel(x[layer])) for layer in self._layers]
      )
      for x in (kernels, directions)
    )

    def reach(length, slope):
      return budget * length / jnp.where(slope > 0, slope, 1)

    together = reach(jnp.linalg.norm(weights), jnp.linalg.norm(slopes))
    cases = jnp.full((1, len(slopes)), together)
    if alone:
      own = jnp.diag(reach(weights, slopes))
      cases = jnp.concatenate([cases, own])

    def at(case):
      scales, fraction = case
      moved = {
        layer: kernels[layer] - fraction * scales[index] * directions[layer]
        for index, layer in enumerate(self._layers)
      }
      own = {'params': self._with(variables['params'], moved), **rest}
      losses = [
        _cross_entropy(self._model.apply(own, batch.inputs), batch.labels)
        for batch in (search, holdout)
      ]
      flips = tree.flips(moved, kernels).astype(jnp.float32)
      size = sum(kernel.size for kernel in kernels.values())
      return jnp.stack([*losses, flips / size])

    fractions = jnp.asarray(fractions, jnp.float32)
    repeated = (
      jnp.repeat(cases, len(fractions), axis=0),
      jnp.tile(fractions, len(cases)),
    )
    table = jax.lax.map(at, repeated).reshape(len(cases), -1, 3)
    found = {
      'all_search': table[0, :, 0],
      'all_holdout': table[0, :, 1],
      'all_flips': table[0, :, 2],
    }
    if alone:
      found |= {
        'layer_search': table[1:, :, 0],
        'layer_holdout': table[1:, :, 1],
      }
    return found

  def _losses(self, variables, *batches):
    """Returns the mean loss on each batch."""
    return [
      _cross_entropy(self._model.apply(variables, b.inputs), b.labels)
      for b in batches
    ]

  def _kernels(self, params):
    """Returns layer -> latent kernel."""
    found = {}
    for layer in self._layers:
      block, name = layer.split('/')
      found[layer] = params[block][name]['kernel']
    return found

  def _with(self, params: Mapping[str, Any], kernels: Layers) -> dict[str, Any]:
    # A copy of all dicts.
    found = jax.tree.map(lambda leaf: leaf, dict(params))
    for layer, kernel in kernels.items():
      block, name = layer.split('/')
      found[block][name]['kernel'] = kernel
    return found


class _Tapped:
  """A sign that is called once for each layer; each call has zeros added on both sides.

  Attributes:
    seen: what has entered, in the order of the calls.
  """

  def __init__(self, rules, number, taps):
    def chosen(g, x, x_q, progress):
      del progress
      return jax.lax.switch(number, rules, g, x, x_q)

    self._sign = quantizers.attach(quantizers.sign(), chosen)
    self._taps = taps
    self.seen: list[Any] = []

  def __call__(self, x, *, progress=1.0):
    del progress
    self.seen.append(x)
    if self._taps is None:
      return self._sign(x)
    before, behind = self._taps[len(self.seen) - 1]
    return self._sign(x + before) + behind


def _at_its_progress(estimator):
  rule, progress = estimator.make(), estimator.progress
  return lambda g, x, x_q: rule(g, x, x_q, progress).astype(g.dtype)


def _cross_entropy(logits, labels):
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  )


def _nearness(layer, kernel, direction, gains):
  """Returns the cosine of predicted and exact gains, on A and on B."""
  sample = gains.samples[layer]
  signs = jnp.where(kernel >= 0, 2.0, -2.0)
  predicted = jnp.ravel(signs * direction)[sample.coordinates]
  found = {}
  for prefix, exact in (('', gains.search), ('holdout_', gains.holdout)):
    cosine = sample.agreement(predicted, exact[layer]).cosine
    found[f'{prefix}cosine'] = cosine.value
    found[f'{prefix}cosine_error'] = cosine.error
  return found


def _over_parts(signs):
  """Returns what passes and enters the signs, of sums over the parts of a batch."""
  passed, arrived = (
    jnp.sum(signs[name], axis=0) for name in ('passed', 'arrived')
  )
  return {
    'passing': passed / jnp.where(arrived > 0, arrived, 1),
    'entering_rms': jnp.sqrt(jnp.mean(signs['square'], axis=0)),
    'entering_share': jnp.mean(signs['share'], axis=0),
  }
