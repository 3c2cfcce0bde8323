"""Findings, judged on tables whose answer is known."""

from matplotlib import pyplot
import numpy as np
import pytest
import xarray

from bitjax.evidence import contrasts
from bitjax.evidence import plots
from bitjax.studies.multistep_ste import figure
from bitjax.studies.multistep_ste import findings

SEEDS = 12


def table(*, momentum=0.0, small=0.0, examples=100_000, sizes=(64, 1024)):
  """Losses of one binary network; the best setting is the last of each axis.

  Args:
    momentum: how much lower SGDm's log loss is than SGD's.
    small: spread over seeds that only the smaller batch has.
    examples: in the data set.
    sizes: of the batches.
  """
  random = np.random.default_rng(0)
  jitter = random.normal(size=SEEDS)
  alone = random.normal(size=SEEDS)

  def arm(name, labels, gain):
    # Log loss: 0 at the start, -gain at the end of every axis of choice.
    shape = [len(values) for values in labels.values()]
    log = np.zeros([*shape, SEEDS]) + 0.01 * jitter
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
    data = xarray.DataArray(np.exp(log), {**labels, 'seed': range(SEEDS)}, dims)
    return {f'{name}_search': data, f'{name}_holdout': data}

  network = {'network': ['binary']}
  steps = {'step_size': [0.3, 1.0], 'step': range(4)}
  single = network | {'batch_size': list(sizes), 'learning_rate': [0.1, 1.0]}
  multi = {'optimizer': ['sgd', 'sgdm'], 'noise': [0.0], 'draw': [0]}
  few = {'batch_size': [min(sizes)]}
  arrays = arm('single', single, 0.0)
  arrays |= arm('multi', network | multi | steps, 1.0)
  arrays |= arm('batches', network | few | steps, 1.0)
  return xarray.Dataset(arrays, attrs={'examples': examples})


@pytest.mark.parametrize(
  ('momentum', 'verdict'),
  [(0.0, 'supported'), (0.01, 'supported'), (0.2, 'contradicted')],
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
  variance, mean = findings.batch(results, 'binary')
  assert variance.verdict == verdict
  assert variance.effect < 0
  assert mean.num_seeds == SEEDS


def test_one_batch_size_says_nothing():
  assert not list(findings.batch(table(sizes=(64,)), 'binary'))


def test_margin_is_a_twentieth_of_the_decrease():
  margin = findings.margin(table(), 'binary')
  # The start is the first step size's, which is ln 2 above the best.
  np.testing.assert_allclose(margin, 0.05 * (1 + np.log(2)), rtol=1e-6)


def test_seeds_that_diverged(as_if_not_run):
  results = table(momentum=0.2, small=0.3)

  def judge(results):
    yield from findings.momentum(results, 'binary')
    yield from findings.batch(results, 'binary')
    effect = findings.gain(results, 'binary')
    yield contrasts.difference('N8', 'claim.', effect, **findings.INFO)

  as_if_not_run(judge, results, list(results.data_vars))


def test_a_draw_or_a_rate_that_diverged_is_not_averaged_away():
  several = table().multi_holdout
  several = several.sel(draw=[0, 0]).assign_coords(draw=[0, 1])
  results = table().drop_vars(['multi_search', 'multi_holdout'])
  results = results.drop_vars('draw').assign(
    multi_search=several, multi_holdout=several.copy(deep=True)
  )
  whole = findings.gain(results, 'binary')
  for name in ('multi_search', 'multi_holdout'):
    results[name].loc[{'draw': 1, 'seed': 2}] = np.nan
  found = findings.gain(results, 'binary')
  np.testing.assert_array_equal(np.isnan(found), found.seed == 2)
  np.testing.assert_array_equal(found.drop_sel(seed=2), whole.drop_sel(seed=2))


def test_one_infinite_loss_makes_no_margin_infinite():
  results = table(momentum=0.2)
  margin = findings.margin(results, 'binary')
  results['multi_holdout'].loc[{'seed': 2}] = 0.0  # log(L1 / 0)
  np.testing.assert_allclose(
    findings.margin(results, 'binary'), margin, rtol=0.05
  )
  (found,) = findings.momentum(results, 'binary')
  assert found.verdict == 'contradicted'


@pytest.mark.parametrize('finding', [findings.momentum, findings.batch])
def test_one_seed_has_no_interval(finding):
  alone = list(finding(table().isel(seed=[0]), 'binary'))
  assert alone
  for found in alone:
    assert (found.verdict, found.num_seeds) == ('inconclusive', 1)
    assert 'One seed: no interval' in found.caveat


def test_a_network_that_does_not_move_has_no_margin():
  still = table()
  still = still.map(np.ones_like)
  (found,) = findings.momentum(still, 'binary')
  assert (found.verdict, found.effect) == ('inconclusive', 0)
  assert 'nothing decreased' in found.caveat and found.num_seeds == SEEDS


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
