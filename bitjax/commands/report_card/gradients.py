r"""How near an estimator's gradient comes to the truth, and how it repeats.

The *linear prediction* of a flip's gain is minus the gradient times the change of the
weight. It is compared, over all flips of a layer, with three truths that need no
estimator: exact gains on the same batch A, gains on A that are averaged over random flips
of the other weights (smoothed), and exact gains on a batch B that nothing has seen. The
truths are computed once, and serve all estimators.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import lanes
from bitjax import measures
from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy

if TYPE_CHECKING:
  import xarray

__all__ = [
  'CHUNK',
  'STATISTICS',
  'TRUTHS',
  'curve',
  'linear',
  'nearness',
  'properties',
  'truths',
]

TRUTHS = ('exact', 'smoothed', 'held-out')
STATISTICS = ('signal_to_noise', 'bias', 'sparsity')
CHUNK = 4  # Lanes that are saved together.
_DRAWS = 1 << 22  # Folded into a seed's noise key to draw flips.


def linear(view: scans.LayerView) -> types.Array:
  """Returns what a view's estimators predict of each flip, of the kernel's shape."""
  changes = scans.moves(view).changes[0]
  return -jax.grad(view.loss)(view.kernel) * changes


def truths(
  networks: toy.States, sweep: sweeps.Sweep, *, draws: int, flip_rate: float
) -> dict[str, Any]:
  """Computes the truths of all tested seeds, states, batch sizes and layers.

  Args:
    networks: the networks of all seeds, in all states.
    sweep: runs the sweep.
    draws: draws of smoothed gains.
    flip_rate: probability of a flip in a draw.

  Returns:
    ``'SIZE LAYER'`` -> gains, [states, seeds, truths, *kernel.shape], in nats.
  """
  problems = networks.problems
  fn = functools.partial(_truths, networks, draws, flip_rate)
  found = {}
  for size in problems.config.batch_size:
    results = sweep(
      functools.partial(fn, size=size),
      name=f'truths_{size}',
      lanes=networks.lanes | {'seed': problems.config.seeds},
      shared=networks.shared,
      dims={
        layer: ('truth', f'{layer}_in', f'{layer}_out')
        for layer in problems.layers
      },
      chunk=CHUNK,
    )
    for layer in problems.layers:
      found[f'{size} {layer}'] = jnp.asarray(results[layer].values)
  return found


def _truths(networks, draws, flip_rate, *, size, state, seed, arrays, starts):
  trial = networks.trial(state, seed, arrays, starts)
  model = networks.problems.model('binary')
  found = {}
  for layer in networks.problems.layers:
    posed = toy.pose_problem(model, trial, size, layer=layer)
    key = jax.random.fold_in(posed.noise_key, _DRAWS)
    gains = {
      'exact': scans.flip_gains(posed.search).gains,
      'smoothed': scans.smoothed_gains(
        posed.search, key, flip_rate, draws
      ).gains,
      'held-out': scans.flip_gains(posed.holdout).gains,
    }
    found[layer] = jnp.stack([gains[name] for name in TRUTHS])
  return found


def nearness(
  networks: toy.States,
  sweep: sweeps.Sweep,
  estimator: quantizers.Estimator,
  known: dict[str, Any],
  *,
  num_parts: int,
) -> xarray.Dataset:
  """Measures an estimator's gradients on every tested seed, in every state.

  Args:
    networks: the networks of all seeds, in all states.
    sweep: runs the sweeps.
    estimator: the estimator of all activations.
    known: what `truths` returned.
    num_parts: number of equal parts of the largest batch.

  Returns:
    ``correlation`` and ``cosine`` over (batch_size, state, seed, layer, truth) of linear
    predictions on A with the truths; ``replication`` over (batch_size, state, seed, layer),
    the correlation of the predictions on A and on B; and, of gradients on the parts of the
    largest A, the `STATISTICS` of `measures.gradient_statistics` over (state, seed,
    layer), the exact discrete gradient of A being the reference.
  """
  problems = networks.problems
  layers, seeds = problems.layers, problems.config.seeds
  axes: dict[str, Any] = {
    'lanes': networks.lanes | {'seed': seeds},
    'shared': networks.shared | {'known': known, 'tested': jnp.asarray(seeds)},
    'chunk': CHUNK,
  }
  found = sweep(
    functools.partial(_near, networks, estimator),
    name='nearness',
    static={'batch_size': sorted(problems.config.batch_size)},
    dims=dict.fromkeys(('correlation', 'cosine'), ('layer', 'truth'))
    | {'replication': ('layer',)},
    coords={'layer': layers, 'truth': list(TRUTHS)},
    **axes,
  )
  varied = sweep(
    functools.partial(_varied, networks, estimator, num_parts),
    name='variance',
    dims=dict.fromkeys(STATISTICS, ('layer',)),
    coords={'layer': layers},
    **axes,
  )
  return networks.label(found.assign(varied.data_vars))


def _near(
  networks, estimator, *, batch_size, state, seed, arrays, starts, known, tested
):
  trial = networks.trial(state, seed, arrays, starts)
  model = networks.problems.model('binary', activation_estimator=estimator)
  rows = []
  for layer in networks.problems.layers:
    posed = toy.pose_problem(model, trial, batch_size, layer=layer)
    on_a, on_b = linear(posed.search), linear(posed.holdout)
    truth = _of_lane(known[f'{batch_size} {layer}'], state, seed, tested)
    rows.append(
      {
        'correlation': jax.lax.map(
          functools.partial(_correlation, on_a), truth
        ),
        'cosine': jax.lax.map(functools.partial(_cosine, on_a), truth),
        'replication': _correlation(on_a, on_b),
      }
    )
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _correlation(a, b):
  """Returns the correlation; NaN, not 0, where a prediction is not finite."""
  finite = jnp.isfinite(a).all() & jnp.isfinite(b).all()
  return jnp.where(finite, measures.correlation(a, b), jnp.nan)


def _cosine(a, b):
  """Returns the cosine; predictions and gradients have the same."""
  return measures.agreement(a, b).cosine


def _varied(
  networks, estimator, num_parts, *, state, seed, arrays, starts, known, tested
):
  trial = networks.trial(state, seed, arrays, starts)
  size = max(networks.problems.config.batch_size)
  model = networks.problems.model('binary', activation_estimator=estimator)
  parts = jax.tree.map(
    lambda leaf: leaf.reshape(num_parts, -1, *leaf.shape[1:]),
    trial.batches[size][0],
  )
  rows = []
  for layer in networks.problems.layers:

    def gradient(inputs, labels, layer=layer):
      view = nn.layer_view(model, trial.variables, inputs, labels, layer)
      return jax.grad(view.loss)(view.kernel)

    gradients = lanes.each(gradient, parts._asdict())
    truth = _of_lane(known[f'{size} {layer}'], state, seed, tested)[0]
    kernel = trial.variables['params'][layer]['kernel']
    # A flip takes the sign s to -s, so its gain is 2 s times the discrete gradient.
    reference = 0.5 * jnp.where(kernel >= 0, 1.0, -1.0) * truth
    found = measures.gradient_statistics(gradients, reference)
    rows.append({name: getattr(found, name) for name in STATISTICS})
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _of_lane(values, state, seed, tested):
  return values[state, jnp.argmax(tested == seed)]


def curve(
  estimator: quantizers.Estimator, points: int, progress: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns x, and the gradient that an estimator passes there if 1 comes in.

  The points are the quantiles of a standard normal distribution: their root mean square is
  1, so that what is relative to the spread is in its own unit.

  Args:
    estimator: the estimator.
    points: number of points.
    progress: of the training, in [0, 1].
  """
  shares = (np.arange(points, dtype=np.float32) + 0.5) / points

  @jax.jit
  def pass_one(shares, progress):
    x = jax.scipy.special.ndtri(shares)[:, None]
    x_q = jnp.where(x >= 0, 1.0, -1.0)
    return x, estimator(jnp.ones_like(x), x, x_q, progress)

  x, passed = pass_one(shares, np.float32(progress))
  return np.asarray(x)[:, 0], np.asarray(passed, np.float32)[:, 0]


def properties(estimator: quantizers.Estimator) -> dict[str, bool]:
  """Returns what kind of rule an estimator is, as tried on random numbers.

  Returns:
    Whether it is ``annealed`` (its answer depends on the progress), ``proportional`` (to
    the incoming gradient, up to rounding) and ``entrywise`` (its answer at an entry depends
    on that entry alone).
  """
  g, x = np.random.default_rng(0).normal(size=(2, 512, 2)).astype(np.float32)
  rule = jax.jit(
    lambda g, x, p: estimator(g, x, jnp.where(x >= 0, 1.0, -1.0), p)
  )
  passed = [rule(g, x, np.float32(p)) for p in (0.0, 0.5, 1.0)]
  half = rule(g[:256], x[:256], np.float32(0.5))
  multiple = rule(-8 * g, x, np.float32(0.5))
  near = functools.partial(np.allclose, rtol=1e-4, atol=1e-6)
  return {
    'annealed': not all(near(one, passed[0]) for one in passed),
    'proportional': near(multiple, -8 * passed[1]),
    'entrywise': near(half, passed[1][:256]),
  }
