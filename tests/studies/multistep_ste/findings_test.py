"""Findings, judged on tables whose answer is known."""

from matplotlib import pyplot
import numpy as np
import pytest
import xarray

from bitjax.evidence import contrasts
from bitjax.evidence import plots
from bitjax.evidence import protocols
from bitjax.studies.multistep_ste import batches
from bitjax.studies.multistep_ste import figure
from bitjax.studies.multistep_ste import findings

SEEDS = 12
TUNING = (1000, 1001, 1002, 1003)


def table(*, momentum=0.0, small=0.0, examples=100_000, sizes=(64, 1024)):
  """Losses of one binary network; the best setting is the last of each axis.

  Args:
    momentum: how much lower SGDm's log loss is than SGD's.
    small: spread over seeds that only the smaller batch has.
    examples: in the data set.
    sizes: of the batches.
  """
  random = np.random.default_rng(0)
  seeds = [*range(SEEDS), *TUNING]
  jitter = random.normal(size=len(seeds))
  alone = random.normal(size=len(seeds))

  def arm(name, labels, gain):
    # Log loss: 0 at the start, -gain at the end of every axis of choice.
    shape = [len(values) for values in labels.values()]
    log = np.zeros([*shape, len(seeds)]) + 0.01 * jitter
    for axis, (dim, values) in enumerate(labels.items()):
      if dim in ('step', 'learning_rate', 'step_size'):
        reached = np.linspace(0, 1, len(values)) if len(values) > 1 else 1.0
        where = np.reshape(reached, [-1] + [1] * (len(shape) - axis))
        log = log + np.log(2.0) * (1 - where) * (dim != 'step')
        log = log - gain * where * (dim == 'step')
      if dim == 'optimizer':
        where = np.array([value == 'sgdm' for value in values])
        where = np.reshape(where, [-1] + [1] * (len(shape) - axis))
        log = log - momentum * where
      if dim == 'batch_size':
        where = np.array([value == min(sizes) for value in values])
        where = np.reshape(where, [-1] + [1] * (len(shape) - axis))
        log = log + small * where * alone * (name == 'single')
    dims = [*labels, 'seed']
    data = xarray.DataArray(np.exp(log), {**labels, 'seed': seeds}, dims)
    return {f'{name}_search': data, f'{name}_holdout': data}

  network = {'network': ['binary']}
  steps = {'step_size': [0.3, 1.0], 'step': range(4)}
  single = network | {'batch_size': list(sizes), 'learning_rate': [0.1, 1.0]}
  multi = {'optimizer': ['sgd', 'sgdm'], 'noise': [0.0], 'draw': [0]}
  few = {'batch_size': [min(sizes)]}
  arrays = arm('single', single, 0.0)
  arrays |= arm('multi', network | multi | steps, 1.0)
  arrays |= arm('batches', network | few | steps, 1.0)
  results = xarray.Dataset(arrays, attrs={'examples': examples})
  holdouts = [name for name in arrays if name.endswith('holdout')]
  return protocols.apart(results, TUNING, holdouts)


@pytest.mark.parametrize(
  ('momentum', 'verdict'),
  [(0.0, 'supported'), (0.004, 'supported'), (0.01, 'contradicted')],
)
def test_momentum_is_equal_within_the_margin(momentum, verdict):
  (found,) = findings.momentum(table(momentum=momentum), 'binary')
  assert found.verdict == verdict
  np.testing.assert_allclose(found.effect, momentum, atol=1e-9)
  assert found.num_seeds == SEEDS


@pytest.mark.parametrize(
  ('examples', 'verdict'), [(100_000, 'supported'), (2_000, 'inconclusive')]
)
def test_larger_batches_vary_less_if_they_are_independent(examples, verdict):
  results = table(small=0.3, examples=examples)
  variance, mean = batches.batch(results, 'binary')
  assert variance.verdict == verdict
  assert variance.details['smallest that counts'] == pytest.approx(np.log(1.1))
  assert variance.effect < 0
  assert mean.num_seeds == SEEDS


def test_one_batch_size_says_nothing():
  assert not list(batches.batch(table(sizes=(64,)), 'binary'))


def test_adam_and_sgd_are_compared_over_the_same_rates():
  results = table().assign_coords(optimizer=['sgd', 'adam'])
  worse = {'optimizer': 'adam', 'step_size': 1.0, 'step': 3}
  results['multi_holdout'].loc[worse] *= np.exp(0.4)
  (found,) = findings.adam(results, 'binary')
  assert found.verdict == 'supported'
  np.testing.assert_allclose(found.effect, np.std([0, 0.4]))
  assert found.details['rates'] == 2
  assert found.details['spread sgd'] == pytest.approx(0, abs=1e-9)
  # A rate that diverged for one of them would leave another grid.
  results['multi_holdout'].loc[worse | {'seed': 3}] = np.nan
  (found,) = findings.adam(results, 'binary')
  assert found.num_seeds == SEEDS - 1


def test_seeds_that_diverged(as_if_not_run):
  results = table(momentum=0.2, small=0.3)

  def judge(results):
    yield from findings.momentum(results, 'binary')
    yield from batches.batch(results, 'binary')
    effect = findings.gain(results, 'binary')
    yield contrasts.difference('N8', 'claim.', effect, **findings.INFO)

  tested = [name for name in results if 'seed' in results[name].dims]
  as_if_not_run(judge, results, tested)


def test_a_draw_or_a_rate_that_diverged_is_not_averaged_away():
  results = table().isel(draw=[0, 0]).assign_coords(draw=[0, 1])
  results = results.copy(deep=True)
  whole = findings.gain(results, 'binary')
  for name in ('multi_search', 'multi_holdout'):
    results[name].loc[{'draw': 1, 'seed': 2}] = np.nan
  found = findings.gain(results, 'binary')
  np.testing.assert_array_equal(np.isnan(found), found.seed == 2)
  np.testing.assert_array_equal(found.drop_sel(seed=2), whole.drop_sel(seed=2))


@pytest.mark.parametrize('finding', [findings.momentum, batches.batch])
def test_one_seed_has_no_interval(finding):
  alone = list(finding(table().isel(seed=[0]), 'binary'))
  assert alone
  for found in alone:
    assert (found.verdict, found.num_seeds) == ('inconclusive', 1)
    assert 'One seed: no interval' in found.caveat


def test_the_primary_contrast_is_marked_and_adam_is_in_the_supplement(
  complaints,
):
  results = table()
  both = results.reindex(optimizer=['sgd', 'sgdm', 'adam'])
  both = both.fillna(3 * results.sel(optimizer='sgd'))
  with plots.style():
    assert list(figure.page(results)) == ['figure']
    drawn = figure.page(both)
    for fig in drawn.values():
      assert complaints(fig) == []
    pyplot.close('all')
  gains, *curves = drawn['figure'].axes
  first, *rest = gains.get_yticklabels()
  assert first.get_fontweight() == 'bold' and 'binary, loss on B' in (
    first.get_text()
  )
  assert all(text.get_fontweight() != 'bold' for text in rest)
  marker = next(line for line in gains.lines if line.get_marker() == 'o')
  np.testing.assert_allclose(marker.get_xdata(), [1.0], atol=1e-6)
  named = lambda axes: {line.get_label() for ax in axes for line in ax.lines}
  assert 'binary, Adam' not in named(curves)
  assert 'binary, Adam' in named(drawn['figure_supplement'].axes)
