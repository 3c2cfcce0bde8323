r"""Looks at gradients of networks that are not trained any further, state by state.

A and B are disjoint parts of the validation images, which no training has seen; a seed draws
its own, and its own weights whose exact gains are computed, so that intervals over seeds
contain the error of sampling weights. The statistics of normalisations are those of some
training images, in every state alike: weights from full precision have others than the
binary network needs.

The quantizer's threshold may be *shifted*: the activation is :math:`\operatorname{sign}(x - t)`,
with t a multiple of the root mean square of what enters in the network without thresholds, in
all layers at once. That is another network, whose gradient (with window 1 around the
threshold) and exact gains are compared as well. A threshold that is *scaled* is a window
that keeps its mass (see `estimators`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import sweeps
from bitjax import training
from bitjax.evidence import protocols
from bitjax.studies import recipes
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import gradients
from bitjax.studies.resnet_windows import models as models_lib
from bitjax.studies.resnet_windows import networks

if TYPE_CHECKING:
  import xarray

__all__ = ['batches', 'measure']

_PER_LAYER = (
  *gradients.STATISTICS,
  *('norm', 'reliability', 'passing', 'entering_rms'),
  *('cosine', 'cosine_error', 'holdout_cosine', 'holdout_cosine_error'),
)
# Of networks with thresholds: what does not depend on the estimator alone.
_SHIFTED = (*gradients.STATISTICS, 'reliability', 'cosine', 'holdout_cosine')
_TUNED_BY = ('layer_holdout', 'all_holdout')


def measure(
  config: Any,
  parts: recipes.Parts,
  models: dict[str, models_lib.Models],
  rate: float,
  sweep: sweeps.Sweep,
) -> xarray.Dataset:
  """Looks at the gradients of every network, in every state.

  Args:
    config: of the study.
    parts: the data.
    models: network -> its weights.
    rate: factor on the learning rate of the training in one bit.
    sweep: the run.

  Returns:
    Over (network, state, seed, ...), with tuning seeds apart (`protocols.apart`): by
    ``estimator`` and ``position`` of the quantized layer, what `gradients.Problem.take`
    returns; by ``step_rate``, what a step reaches, of one layer for windows only
    (``alone``); ``start_search`` and ``start_holdout``, the losses before it; and with
    thresholds, by ``threshold``, ``shifted_loss`` on A and ``shifted_NAME`` by position. A
    network has NaN at positions of a deeper one.
  """
  import xarray

  found = []
  for network, own in models.items():
    # All seeds are trained before any of them is looked at.
    for state in config.states:
      own.variables(state, config.seeds, rate)
    each = _Lane(config, parts, own, rate)
    found.append(
      sweep.hosted(
        each.measure,
        name=f'gradients_{network}',
        lanes={'seed': (*config.seeds, *config.tuning_seeds)},
        static={'state': config.states},
        dims=_dims(bool(config.thresholds)),
        coords={
          'estimator': each.names,
          'alone': each.alone,
          'position': np.arange(1, len(each.layers) + 1),
          'step_rate': np.asarray(config.step_rates),
          'half_width': np.asarray(config.static_widths),
          'threshold': np.asarray([0.0, *config.thresholds]),
        },
        chunk=1,
      ).expand_dims(network=[network])
    )
  families = [estimators.of(name).family for name in config.estimators()]
  joined = xarray.concat(found, 'network', join='outer')
  joined = joined.assign_coords(family=('estimator', families))
  return protocols.apart(joined, config.tuning_seeds, _TUNED_BY)


def _dims(shifted):
  both = ('estimator', 'position')
  dims: dict[str, tuple[str, ...]] = dict.fromkeys(_PER_LAYER, both)
  dims['entering_share'] = (*both, 'half_width')
  for batch in ('search', 'holdout'):
    dims[f'layer_{batch}'] = ('alone', 'position', 'step_rate')
    dims[f'all_{batch}'] = ('estimator', 'step_rate')
  dims['all_flips'] = ('estimator', 'step_rate')
  if shifted:
    dims |= {f'shifted_{n}': ('threshold', 'position') for n in _SHIFTED}
    dims['shifted_loss'] = ('threshold',)
  return dims


def batches(
  config: Any, parts: recipes.Parts, seed: int
) -> tuple[data.Batch, data.Batch, Any]:
  """Draws A, B and the images by which normalisations are set.

  Args:
    config: of the study.
    parts: the data.
    seed: the seed.

  Returns:
    A and B, disjoint, of the validation images; and training images, all as a network
    sees them.
  """
  draw = np.random.default_rng(seed)
  prepare = training.preparation(parts.train)
  order = draw.permutation(len(parts.validation.labels))
  search, holdout = (
    data.Batch(
      prepare(jnp.asarray(parts.validation.images[at])),
      jnp.asarray(parts.validation.labels[at]),
    )
    for at in (order[: config.images], order[config.images : 2 * config.images])
  )
  size = min(2 * config.images, len(parts.train.labels))
  others = draw.choice(len(parts.train.labels), size, replace=False)
  return (search, holdout, prepare(jnp.asarray(parts.train.images[others])))


class _Lane:
  """Measures networks of one kind, seed by seed."""

  def __init__(self, config, parts, models, rate):
    self._config, self._parts, self._models = config, parts, models
    self._rate = rate
    self.names = config.estimators()
    windows = estimators.FAMILIES[0], estimators.NONE
    self.alone = [n for n in self.names if estimators.of(n).family in windows]
    (start,) = models.variables(models_lib.STATES[0], [0])
    self.layers = networks.layers(models.network, start['params'])
    self._problem = gradients.Problem(
      lambda estimator: models.with_estimator(estimator, shifted=True),
      self.layers,
      self.names,
      config.static_widths,
      num_parts=config.num_parts,
      sample=config.sample,
    )

  def measure(self, *, state, seed, folder, report, mesh):
    """Returns what is measured of one seed, with a leading axis."""
    del folder, report, mesh
    (number,) = seed.tolist()
    (variables,) = self._models.variables(state, [number], self._rate)
    found = self._of_seed(variables, number)
    return {k: np.asarray(v, np.float32)[None] for k, v in found.items()}

  def _of_seed(self, variables, seed):
    config, problem = self._config, self._problem
    search, holdout, others = batches(config, self._parts, seed)
    key = jax.random.key(seed)
    none = dict.fromkeys(self.layers, 0.0)
    plain = self._shifted(variables, none, others)
    gains = problem.gains(plain, search, holdout, key)
    losses = problem.losses(plain, search, holdout)
    found = dict(zip(('start_search', 'start_holdout'), losses, strict=True))
    rows, units = [], None
    for number, name in enumerate(self.names):
      taken = problem.take(number, plain, search, holdout, gains)
      if name == estimators.ONE:
        units = taken.numbers['entering_rms']
      reached = problem.step(
        plain,
        taken.directions,
        search,
        holdout,
        config.step_rates,
        config.budget,
        alone=name in self.alone,
      )
      rows.append(jax.device_get(taken.numbers | reached))
    for name in {key: None for row in rows for key in row}:
      found[name] = np.stack([row[name] for row in rows if name in row])
    if not config.thresholds:
      return found
    units = dict(zip(self.layers, np.asarray(units), strict=True))
    return found | self._thresholds(
      variables, units, (search, holdout, others), key
    )

  def _thresholds(self, variables, units, drawn, key):
    """Returns the gradient's numbers at every threshold, with window 1."""
    *pair, others = drawn
    problem, one = self._problem, self.names.index(estimators.ONE)
    rows = []
    for value in (0.0, *self._config.thresholds):
      shifts = {layer: value * unit for layer, unit in units.items()}
      moved = self._shifted(variables, shifts, others)
      gains = problem.gains(moved, *pair, key)
      numbers = problem.take(one, moved, *pair, gains).numbers
      row = {f'shifted_{name}': numbers[name] for name in _SHIFTED}
      row['shifted_loss'], _ = problem.losses(moved, *pair)
      rows.append(jax.device_get(row))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

  def _shifted(self, variables, thresholds, images):
    params = networks.with_thresholds(variables['params'], thresholds)
    moved = {**variables, 'params': params}
    return self._problem.calibrated(moved, images)
