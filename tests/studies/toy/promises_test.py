"""What moves promise, how flips spend a ball by it, and how it replicates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.toy import promises

pytestmark = pytest.mark.study


@pytest.fixture(scope='module')
def posed():
  config = toy.BallConfig(
    dataset='digits', batch_size=(40,), hidden=(8, 6), seeds=(5, 2)
  )
  problems = config.open(sweeps.Sweep())
  trial = problems.trial(jnp.asarray(2), problems.arrays)
  return toy.pose_problem(problems.model('binary'), trial, 40, layer='Dense_0')


def corner(view, name):
  if name == 'exact':
    return scans.flip_gains(view).gains
  return -jax.grad(view.loss)(view.kernel) * scans.moves(view).changes[0]


@pytest.mark.parametrize(
  ('ball', 'power'),
  [
    (types.Budget(0.3), 2),
    pytest.param(types.Budget(0.01, 'linf'), 0, marks=pytest.mark.slow),
  ],
)
def test_corners_of_the_factorial_are_the_discrete_gradients(
  posed, ball, power
):
  view = posed.search
  found = promises.factorial(
    lambda: posed, ball, prefixes=[0, view.kernel.size]
  )
  for row, name in enumerate(('exact', 'linear')):
    step = scans.discrete_gradient(
      view, ball, rank_by=power, signal=corner(view, name)
    )
    assert found['moves'][row, row] == step.num_moves > 3
    end = posed.losses(view.kernel + step.displacement)
    for batch in ('search', 'holdout'):
      assert found[batch].shape == (2, 2, 2)
      np.testing.assert_allclose(found[batch][row, row, 1], end[batch], 1e-5)


def test_reliability_compares_both_batches(posed):
  found = promises.reliability(lambda: posed)
  views = {'A': posed.search, 'B': posed.holdout}
  # Crossings of few examples, against effects of all: no two signals are the same.
  assert len(set(np.asarray(found['correlation']).tolist())) == len(
    promises.PAIRS
  )
  for a, b in (('exact', 'exact'), ('linear', 'linear'), ('linear', 'exact')):
    row = promises.PAIRS.index(promises.pair(a, b))
    sides = [
      np.ravel(corner(views[batch], name))
      for name, batch in ((a, 'A'), (b, 'B'))
    ]
    np.testing.assert_allclose(
      found['correlation'][row], np.corrcoef(*sides)[0, 1], rtol=1e-4
    )
