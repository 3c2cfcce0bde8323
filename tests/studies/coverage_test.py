"""What the intervals of every study cover: its whole protocol on data of known truth.

Results of the smoke preset serve as a template. Around its means, results of new seeds
are drawn: the losses of a seed share an effect, and each has noise of its own, normal or
skewed. All that a verdict rests on is repeated: settings are tuned on tuning seeds, or
chosen on A, samples are paired, arms are judged together. The truth is what thousands
of seeds say with the same tuning seeds. (Where a study keeps only the runs at tuned
settings, as `discrete_optimisers` does, these settings are taken as given.)

Every study prints its row of the table of docs/verdicts.md, and more; `tally` says what:

  pytest -m slow tests/studies/coverage_test.py -s
"""

import functools
import math

import numpy as np
import pytest
import xarray

from bitjax import cli
from bitjax import studies
from bitjax.evidence import protocols
from bitjax.evidence import samples
from bitjax.studies.discrete_gradient import outcomes as gradient_outcomes
from bitjax.studies.discrete_optimisers import outcomes
from bitjax.studies.multistep_ste import choices
from bitjax.studies.smoothed_gradient import findings as smoothed
from tests.studies import claims
from tests.studies import tally

pytestmark = pytest.mark.slow

SEEDS, MANY = 12, 1500
# Draws of the tuning seeds, and of tested seeds for each.
TUNINGS, TRIALS = 8, 25
RESAMPLES = 1000
NAMES = (
  'discrete_gradient', 'discrete_optimisers', 'discrete_optimum', 'local_optima',
  'multistep_ste', 'smoothed_gradient', 'variant_ste',
)  # fmt: skip


@pytest.fixture(scope='module')
def templates(tmp_path_factory):
  @functools.cache
  def template(name):
    out = tmp_path_factory.mktemp(name) / 'run'
    assert (
      cli.launch(studies.load(name), ['--preset=smoke', f'--out={out}']) == 0
    )
    return xarray.load_dataset(out / 'results.nc', engine='h5netcdf')

  return template


@pytest.fixture
def quick(monkeypatch):
  """Leaves out what is not tested, and resamples less, which blurs intervals a little."""
  drawn = samples.weights

  def fewer(num, num_resamples, seed):
    most = 2 if num >= MANY else RESAMPLES
    return drawn(num, min(num_resamples, most), seed)

  def unsettled(found, over, average=('draw',)):
    """How often the tuned choice would be another is in no interval."""
    losses = found['tuning_holdout']
    others = {'tuning_seed', *over, *average} & {*losses.dims}
    return 0.0 * losses.isel(dict.fromkeys(others, 0), drop=True)

  monkeypatch.setattr(samples, 'weights', fewer)
  monkeypatch.setattr(protocols, 'unsettled', unsettled)
  monkeypatch.setattr(outcomes, '_RESAMPLES', RESAMPLES)
  # These give details only.
  for module, name in (
    (choices, 'made'), (smoothed, '_details'), (gradient_outcomes, 'otherwise'),
  ):  # fmt: skip
    monkeypatch.setattr(module, name, lambda *args, **kwargs: {})


def draw(template, axis, num, rng, noise):
  """Returns the variables over ``axis``, ``'seed'`` or ``'tuning_seed'``, for new seeds.

  Args:
    template: results of a study.
    axis: the dimension along which to draw.
    num: number of seeds.
    rng: a NumPy generator.
    noise: draws standardised noise of a given shape.
  """
  shared = noise(rng, (num,))
  found = {}
  for name, values in template.data_vars.items():
    if axis not in values.dims:
      continue
    rows = values.transpose(axis, ...)
    # A loss of tuning seeds is distributed as that of tested ones.
    alike = template.get(name.removeprefix('tuning_'), values)
    if {*alike.dims} - {'seed'} != {*values.dims} - {axis}:
      alike = values  # Tested at other settings.
    alike = alike.transpose('seed' if 'seed' in alike.dims else axis, ...)
    base, low, high = (
      getattr(np, f)(alike.values, axis=0) for f in ('mean', 'min', 'max')
    )
    own = noise(rng, (num, *base.shape))
    common = shared.reshape(num, *(1 for _ in base.shape))
    if np.nanmin(alike.values) > 0:  # Losses, and what else is positive.
      drawn = base * np.exp(0.03 * common + 0.02 * own)
    else:
      spread = np.nanmean(np.abs(high - low)) or 0.0
      drawn = base + spread * own / 3
    if name == 'additivity' or any(
      word in name for word in ('correlation', 'share', 'near')
    ):
      drawn = np.clip(drawn, np.nanmin(low), np.nanmax(high))
    found[name] = (rows.dims, drawn.astype(values.dtype))
  return found


def results(template, rng, noise, tested, tuning=None):
  """Returns results of new tested seeds, and of given or new tuning seeds."""
  new = draw(template, 'seed', tested, rng, noise)
  if tuning is None and 'tuning_seed' in template.dims:
    size = template.sizes['tuning_seed']
    tuning = draw(template, 'tuning_seed', max(4, size), rng, noise)
  rest = template.drop_dims(['seed', 'tuning_seed'], errors='ignore')
  made = rest.assign(new | (tuning or {})).assign_coords(seed=range(tested))
  return made.assign_attrs(template.attrs), tuning


def normal(rng, shape):
  return rng.standard_normal(shape)


def skewed(rng, shape):
  """Gamma noise of skewness 1.4, centred, of variance 1."""
  return (rng.gamma(2.0, size=shape) - 2) / math.sqrt(2)


def simulated(study, template, noise, tunings, trials):
  """Returns the tally of a study's whole protocol."""
  rng = np.random.default_rng(0)
  counts = tally.Tally(SEEDS)
  for _ in range(tunings):
    large, tuning = results(template, rng, noise, MANY)
    truth = claims.judged(study.verdicts, large)
    for _ in range(trials):
      small, _ = results(template, rng, noise, SEEDS, tuning)
      counts.add(truth, claims.judged(study.verdicts, small))
  return counts


@pytest.mark.parametrize('noise', [normal, skewed])
@pytest.mark.parametrize('name', NAMES)
def test_intervals_cover(name, noise, templates, quick):
  """Each interval alone, families at once, and one-sided tests at the margin."""
  study, template = studies.load(name), templates(name)
  counts = simulated(study, template, noise, TUNINGS, TRIALS)
  names = name, noise.__name__
  print(tally.SUMMARY, counts.summary(*names), sep='\n')
  print(tally.HEAD, *counts.rows(*names), sep='\n')
  for key, rate in counts.lowest(12):
    print(f'{rate:.3f}', *key)
  counts.check(alike=noise is normal)
