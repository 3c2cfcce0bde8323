"""The arms of multi-step STE: what they report, and at which points."""

import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import descent
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.multistep_ste import arms
from bitjax.studies.multistep_ste import choices
from bitjax.studies.multistep_ste import study

SIZES = {
  'dataset': 'digits',
  'batch_size': (16, 40),
  'hidden': (8,),
  'seeds': (5, 2),
  'tuning_seeds': (7,),
}


@pytest.mark.slow
def test_losses_choose_by_protocol():
  problems = study.Config(**SIZES).open(sweeps.Sweep())
  results = arms.collect(
    problems, sweeps.Sweep(), [arms.single(problems, (0.01, 0.1, 1.0))]
  )
  assert results.attrs == {'examples': 1797, 'independent': 1}
  assert results.seed.values.tolist() == [5, 2]
  found = choices.losses(
    results, 'single', protocol='oracle', batch='search', batch_size=40
  )
  expected = results['single_search'].sel(batch_size=40).min('learning_rate')
  np.testing.assert_array_equal(found, expected.transpose(*found.dims))
  # Tuning looks at its own seed only, whose choice all tested seeds share.
  tuned = choices.losses(results, 'single', network='binary', batch_size=40)
  one = {'network': 'binary', 'batch_size': 40}
  losses = results['tuning_single_holdout'].sel(tuning_seed=7, **one)
  at = int(losses.argmin('learning_rate'))
  expected = results['single_holdout'].sel(one).isel(learning_rate=at)
  np.testing.assert_array_equal(tuned, expected)
  posed = problems.pose('binary', jnp.asarray(2), problems.arrays)
  reached = descent.reachable_flips(posed.kernel, types.Budget(0.1))
  reported = results['single_reachable'].sel(
    network='binary', batch_size=40, seed=2
  )
  np.testing.assert_allclose(reported, reached / (64 * 8), rtol=1e-6)


@pytest.mark.parametrize(
  ('num_steps', 'later'),
  [(3, ()), (10, ()), (16, (12, 14, 16)), (20, (12, 14, 17, 20))],
)
def test_reports_thin_out_after_ten_steps(num_steps, later):
  first = range(min(num_steps, 10) + 1)
  assert arms.schedule(num_steps) == (*first, *later)


def test_the_last_of_many_steps_is_reported():
  steps = arms.schedule(10**6)
  assert steps[-1] == 10**6 and len(steps) < 100
  assert np.all(np.diff(steps) > 0)
  ratios = np.divide(steps[11:], steps[10:-1])
  assert np.all(ratios <= 1.26)


@pytest.mark.slow
def test_paths_are_reported_by_noise_and_draw():
  config = study.Config(**SIZES, networks=('binary',), step_sizes=(3.0, 100.0))
  problems = config.open(sweeps.Sweep())
  starts = arms.starts((0.0, 0.5, 1.0), 2)
  assert starts == [(0, 0), (0.5, 0), (0.5, 1), (1, 0), (1, 1)]
  arm = arms.multi(
    problems, 14, 'multi', {'optimizer': ('sgd',)}, starts=starts
  )
  found = arms.collect(problems, sweeps.Sweep(), [arm])
  assert found.step.values.tolist() == [*range(11), 12, 14]
  losses = found['multi_holdout'].sel(network='binary', optimizer='sgd')
  assert set(losses.dims) == {'seed', 'step_size', 'noise', 'draw', 'step'}
  assert (found['multi_used'] <= 1 + 1e-5).all()
  wanted = toy.multi_step(
    problems.pose('binary', jnp.asarray(2), problems.arrays),
    problems.budget, 14, 100.0, noise=0.5, draw=1,
  )  # fmt: skip
  one = losses.sel(seed=2, step_size=100.0, noise=0.5, draw=1)
  np.testing.assert_allclose(one, wanted['holdout'][one.step.values], rtol=1e-5)
  draws = losses.sel(noise=0.0)
  np.testing.assert_array_equal(draws.sel(draw=0), draws.sel(draw=1))


def test_controls_evaluate_as_many_losses_as_several_steps():
  config = study.Config(**SIZES, step_sizes=(1.0, 10.0, 100.0), num_steps=4)
  losses = 3 * (4 + 1)  # After each update, and at the start.
  gradients = 3 * 4
  assert config.matched == losses + gradients
