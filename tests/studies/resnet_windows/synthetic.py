"""Results of the study whose answers are known."""

import numpy as np
import xarray

from bitjax.studies.resnet_windows import arms as arms_lib
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import gradients
from tests.studies import answered

SEEDS, LAYERS, STEPS = 6, 3, (0.1, 1.0)
EXTRAS = (estimators.NONE, estimators.SHRINKING, estimators.MASS)
SHAPES = ('Bi-Real', 'SwishSign', 'Gaussian')
WIDTHS = (0.25, 0.5, 1.0)
LAYERED = (
  *gradients.STATISTICS, 'norm', 'reliability', 'passing', 'entering_rms',
  'cosine', 'cosine_error', 'holdout_cosine', 'holdout_cosine_error',
)  # fmt: skip
START = 2.0  # The loss before a step.


def trained(
  half_widths=(0.25, 0.5, 1.0, 2.0),
  units=estimators.UNITS,
  extras=EXTRAS,
  shapes=SHAPES,
  seeds=SEEDS,
  points=None,
):
  """Returns outcomes whose test accuracy is 0.5, plus the points of an arm."""
  arms = arms_lib.every(half_widths, units, extras, shapes)
  labels = [str(arm) for arm in arms]
  dims, shape = ('arm', 'seed'), (len(arms), seeds)
  tuning = np.broadcast_to([[2.0] * 4, [1.0] * 4], (len(arms), 2, 4)).copy()
  return xarray.Dataset(
    {
      **answered.answered(labels, seeds, points or {}),
      'validation_loss': (dims, np.ones(shape)),
      'curve': ((*dims, 'epoch'), np.ones((*shape, 2))),
      'tuning_validation_loss': (('arm', 'rate', 'tuning_seed'), tuning),
    },
    {
      'arm': labels,
      'of': ('arm', [arm.estimator for arm in arms]),
      'start': ('arm', [arm.start for arm in arms]),
      'rate': [0.3, 1.0],
      'seed': range(seeds),
      'tuning_seed': range(1000, 1004),
      'epoch': [1, 2],
    },
    {'test_examples': answered.EXAMPLES},
  )


def looked(
  trained_names,
  shapes=SHAPES,
  networks=('resnet8_narrow',),
  seeds=SEEDS,
  values=None,
  reached=None,
  layers=LAYERS,
  states=('pretrained', 'trained'),
):
  """Returns gradients' numbers: 1, or `values` of (name, estimator or threshold).

  A step of all layers reaches a loss of 1.9 on B, or `reached` of the estimator, at the
  longer length, and the loss before it at the shorter. Numbers differ by seed by a
  hundred-thousandth; of the last layer they are 9, which nothing may read.
  """
  names = estimators.static(WIDTHS, trained_names, shapes)
  draw = np.random.default_rng(1)
  windows = estimators.FAMILIES[0], estimators.NONE
  alone = [name for name in names if estimators.of(name).family in windows]
  thresholds = [0.0, 0.5]
  states = list(states)
  lead, size = ('network', 'state', 'seed'), (len(networks), len(states), seeds)
  found = {}

  def noisy(shape, scale=1e-5):
    return scale * draw.normal(size=(*size, *shape))

  def numbers(name, labels):
    own = [(values or {}).get((name, label), 1.0) for label in labels]
    table = noisy((len(labels), layers)) + np.asarray(own)[:, None]
    table[..., -1] = 9.0
    return table

  for name in LAYERED:
    found[name] = ((*lead, 'estimator', 'position'), numbers(name, names))
  found['entering_share'] = (
    (*lead, 'estimator', 'position', 'half_width'),
    np.full((*size, len(names), layers, len(WIDTHS)), 0.5),
  )
  for name in ('reliability', 'signal_to_noise', 'cosine', 'holdout_cosine'):
    found[f'shifted_{name}'] = (
      (*lead, 'threshold', 'position'),
      numbers(f'shifted_{name}', thresholds),
    )
  found['shifted_loss'] = ((*lead, 'threshold'), START + noisy((2,)))
  ends = np.asarray([(reached or {}).get(name, 1.9) for name in names])
  for batch in ('search', 'holdout'):
    found[f'start_{batch}'] = (lead, np.full(size, START))
    table = np.full((*size, len(names), len(STEPS)), START)
    table[..., -1] = ends + noisy((len(names),))
    found[f'all_{batch}'] = ((*lead, 'estimator', 'step_rate'), table)
    found[f'layer_{batch}'] = (
      (*lead, 'alone', 'position', 'step_rate'),
      np.stack([table[..., names.index(name), :] for name in alone], 3)[
        ..., None, :
      ].repeat(layers, -2),
    )
  found['all_flips'] = (
    (*lead, 'estimator', 'step_rate'),
    np.full((*size, len(names), len(STEPS)), 0.01),
  )
  tuning = ('network', 'state', 'tuning_seed')
  table = np.full((*size[:2], 4, len(names), len(STEPS)), START)
  table[..., -1] = 1.9
  found['tuning_all_holdout'] = ((*tuning, 'estimator', 'step_rate'), table)
  found['tuning_layer_holdout'] = (
    (*tuning, 'alone', 'position', 'step_rate'),
    table[..., : len(alone), None, :].repeat(layers, -2),
  )
  families = [estimators.of(name).family for name in names]
  return xarray.Dataset(
    found,
    {
      'network': list(networks),
      'state': states,
      'seed': range(seeds),
      'tuning_seed': range(1000, 1004),
      'estimator': names,
      'alone': alone,
      'family': ('estimator', families),
      'position': range(1, layers + 1),
      'half_width': list(WIDTHS),
      'threshold': thresholds,
      'step_rate': list(STEPS),
    },
  )


def results(
  points=None,
  values=None,
  reached=None,
  networks=('resnet8_narrow',),
  states=('pretrained', 'trained'),
  **options,
):
  """Returns the results of the study, of `trained` and `looked`."""
  arms = trained(points=points, **options)
  names = list(dict.fromkeys(arms.of.values.tolist()))
  seeds = arms.sizes['seed']
  shapes = options.get('shapes', SHAPES)
  whole = looked(names, shapes, networks, seeds, values, reached, states=states)
  return arms.merge(whole).assign_attrs(arms.attrs)
