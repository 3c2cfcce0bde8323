"""The arms of multi-step STE: what they report, and how settings are chosen."""

import jax.numpy as jnp
import numpy as np

from bitjax import descent
from bitjax import sweeps
from bitjax import types
from bitjax.studies.multistep_ste import arms
from bitjax.studies.multistep_ste import study


def test_losses_choose_by_protocol():
  config = study.Config(
    dataset='digits', batch_size=(16, 40), hidden=(8,), seeds=(5, 2)
  )
  problems = config.open(sweeps.Sweep())
  results = arms.collect(
    problems, sweeps.Sweep(), [arms.single(problems, (0.01, 0.1, 1.0))]
  )
  assert results.attrs == {'examples': 1797, 'independent': 1}
  found = arms.losses(
    results, 'single', protocol='oracle', batch='search', batch_size=40
  )
  expected = results['single_search'].sel(batch_size=40).min('learning_rate')
  np.testing.assert_array_equal(found, expected.transpose(*found.dims))
  posed = problems.pose('binary', jnp.asarray(2), problems.arrays)
  reached = descent.reachable_flips(posed.kernel, types.Budget(0.1))
  reported = results['single_reachable'].sel(
    network='binary', batch_size=40, seed=2
  )
  np.testing.assert_allclose(reported, reached / (64 * 8), rtol=1e-6)
