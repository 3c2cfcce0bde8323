"""The arms, against the scans that they are made of and correlations in NumPy."""

import functools

import jax
import numpy as np
import pytest

from bitjax import scans
from bitjax import sweeps
from bitjax import types
from bitjax.studies import toy
from bitjax.studies.smoothed_gradient import arms
from bitjax.studies.smoothed_gradient import study
from bitjax.studies.toy import arms as toy_arms
from bitjax.studies.toy import searches

BALL = types.Budget(0.5)
OPTIONS = {'flip_rate': 0.1, 'draws': (2, 4), 'prefixes': (0, 4, 512)}


@pytest.fixture(scope='module')
def pose():
  config = study.Config(
    dataset='digits', batch_size=(32,), hidden=(8, 6), seeds=(0, 1),
    tuning_seeds=(9,),
  )  # fmt: skip
  problems = config.open(sweeps.Sweep())
  trial = problems.trial(1, problems.arrays)
  return functools.partial(searches.pose_layers, problems, trial, 'first')


@pytest.fixture(scope='module')
def once(pose):
  return jax.jit(lambda: arms.once(pose, BALL, **OPTIONS))()


def gains_of(posed):
  return np.asarray(scans.flip_gains(posed.search).gains).ravel()


def linear(view):
  changes = np.asarray(scans.moves(view).changes[0])
  return (-np.asarray(jax.grad(view.loss)(view.kernel)) * changes).ravel()


def test_signals_are_as_near_as_their_correlations(pose, once):
  names = arms.names(OPTIONS['draws'])
  posed = pose()
  signals = {'exact': gains_of(posed), 'linear': linear(posed.search)}
  for name, estimator in arms.WINDOWS.items():
    signals[name] = linear(pose(activation_estimator=estimator).search)
  on_b = np.asarray(scans.flip_gains(posed.holdout).gains).ravel()
  for other, wanted in (('exact', on_b), ('linear', signals['linear'])):
    for name, values in signals.items():
      np.testing.assert_allclose(
        once[f'near_{other}'][names.index(name)],
        np.corrcoef(values, wanted)[0, 1],
        atol=1e-5,
      )
  assert names[2:4] == ['co-flip 2', 'co-flip 4']
  np.testing.assert_allclose(once['near_smoothed'][3], 1, atol=1e-6)
  assert once['near_smoothed'][2] < 1


@pytest.mark.slow
def test_the_budget_is_spent_as_by_the_scans(pose, once):
  posed = pose()
  for row, signal in enumerate(('exact', 'linear')):
    step = scans.discrete_gradient(
      posed.search, BALL, rank_by=2, signal=signal, holdout=posed.holdout
    )
    moved = posed.kernel + step.displacement
    for batch, loss in posed.losses(moved).items():
      np.testing.assert_allclose(once[batch][row, -1], loss, rtol=1e-6)
      np.testing.assert_allclose(
        once[batch][row, 0], posed.losses(posed.kernel)[batch], rtol=1e-6
      )
    assert once['moves'][row] == step.num_moves > 4


@pytest.mark.slow
def test_one_round_and_the_factorial_agree_with_making_flips_once(pose, once):
  crossed = jax.jit(
    lambda: arms.factorial(pose, BALL, **(OPTIONS | {'draws': 4}))
  )()
  names = arms.names(OPTIONS['draws'])
  for place, name in (((0, 0), 'exact'), ((1, 1), 'linear')):
    for batch in ('search', 'holdout'):
      np.testing.assert_allclose(
        crossed[batch][place], once[batch][names.index(name)], rtol=1e-5
      )
    found = jax.jit(
      lambda name=name: arms.rounds(pose, BALL, name, 1, draws=2, flip_rate=0.1)
    )()
    np.testing.assert_allclose(
      found['holdout'][-1], once['holdout'][names.index(name), -1], rtol=1e-6
    )
  assert len({float(x) for x in crossed['near_exact'].ravel()}) == 6


@pytest.mark.slow
def test_rounds_of_co_flips_draw_anew(pose):
  found = [
    jax.jit(
      lambda rate=rate: arms.rounds(
        pose, BALL, 'co-flip', 2, draws=2, flip_rate=rate
      )
    )()
    for rate in (0.0, 0.3)
  ]
  exact = jax.jit(
    lambda: arms.rounds(pose, BALL, 'exact', 2, draws=2, flip_rate=0.3)
  )()
  np.testing.assert_allclose(found[0]['search'], exact['search'], rtol=1e-5)
  assert found[1]['search'][-1] != exact['search'][-1]


def test_the_cost_counts_the_lanes_of_all_arms(monkeypatch):
  monkeypatch.setattr(toy_arms, 'prefixes', lambda *args, **options: [0, 1])
  config = study.Config(layers=('first', 'all'), num_rounds=(2, 4))
  declared = arms.declared(toy.Problems(config, None))
  networks = 2 * len(config.all_seeds)
  lanes = sum(
    networks * int(np.prod([len(v) for v in arm.static.values()]))
    for arm in declared
  )
  assert config.cost().lanes == lanes


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--draws=8,2', 'draws must be at least two numbers, growing'),
    ('--draws=8', 'draws must be at least two numbers, growing'),
    ('--num_rounds=4,2', 'num_rounds must grow'),
    ('--layers=all', "layers must begin with 'first'"),
    ('--flip_rate=1.5', 'flip_rate must be <= 1'),
    ('--augment=shift', 'unknown flag --augment'),
  ],
)
def test_bad_input(refused, flag, words):
  refused(study.STUDY, ['--preset=smoke', flag], words)
