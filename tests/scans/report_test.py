"""Scans that say how far they are: the shares, the numbers, and what may go wrong."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import types
from bitjax.scans import _flips
from bitjax.scans import _report
from tests.scans import conftest

VIEW, _ = conftest.view_and_loss()
OTHER, _ = conftest.view_and_loss(seed=1)
REAL, _ = conftest.view_and_loss(activation='relu', binary=False)
BUDGET = types.Budget(1.0)
BRUTE = {'path': 'brute_force'}
DIRECTION = VIEW.kernel + 1
RATES = np.linspace(0, 0.3, 40, dtype=np.float32)
MATRIX = VIEW.tail[1].kernel
NETWORK = scans.network_view(
  VIEW.inputs,
  VIEW.labels,
  [
    scans.Dense(VIEW.kernel, conftest.BINARY),
    scans.Activation('sign', conftest.BINARY),
    scans.Dense(MATRIX / 4, conftest.BINARY),
  ],
)
# A step that has been found, as every move in the order of the weights.
STEP = scans.DiscreteStep(
  displacement=-2 * VIEW.kernel,
  rank=jnp.arange(VIEW.kernel.size).reshape(VIEW.kernel.shape),
  num_moves=jnp.int32(VIEW.kernel.size),
  used=jnp.float32(0),
  predicted=jnp.float32(0),
  loss=jnp.float32(0),
  decrease_search=jnp.float32(0),
  decrease_holdout=None,
  loss_evaluations=jnp.int32(0),
  gradient_evaluations=jnp.int32(0),
)


def of_part(inputs, labels):
  return dataclasses.replace(VIEW, inputs=inputs, labels=labels)


# Function and path -> the call, without its report.
CASES = {
  'flip_gains sign': functools.partial(scans.flip_gains, VIEW, chunk=16),
  'flip_gains rank_one': functools.partial(
    scans.flip_gains, VIEW, path='rank_one', chunk=8
  ),
  'flip_gains brute_force': functools.partial(scans.flip_gains, VIEW, **BRUTE),
  'flip_gains in groups': functools.partial(
    scans.flip_gains, VIEW, **BRUTE, chunk=5
  ),
  'flip_gains layers': functools.partial(scans.flip_gains, NETWORK, chunk=16),
  'brute_force_gains': functools.partial(
    scans.brute_force_gains,
    lambda params: VIEW.losses(params['k']),
    {'k': VIEW.kernel},
    'k',
    -VIEW.kernel[None],
  ),
  'stream_gains': functools.partial(
    scans.stream_gains, of_part, VIEW.inputs, VIEW.labels, 12, **BRUTE
  ),
  'central_difference flips': functools.partial(
    scans.central_difference, VIEW, 0.1, chunk=16
  ),
  'central_difference brute_force': functools.partial(
    scans.central_difference, VIEW, 0.1, **BRUTE
  ),
  'central_difference real': functools.partial(
    scans.central_difference, REAL, 0.1, chunk=8
  ),
  'line_scan steps': functools.partial(
    scans.line_scan, [VIEW, OTHER], DIRECTION, RATES, path='steps', width=4
  ),
  'line_scan affine': functools.partial(
    scans.line_scan, [REAL, REAL], DIRECTION, RATES, path='affine', width=8
  ),
  'line_scan brute_force': functools.partial(
    scans.line_scan, VIEW, DIRECTION, RATES, **BRUTE
  ),
  'line_profile': functools.partial(
    scans.line_profile, [VIEW, OTHER], DIRECTION, 0.0, 0.3, width=4
  ),
  'discrete_gradient': functools.partial(
    scans.discrete_gradient, VIEW, BUDGET, **BRUTE
  ),
  'multi_step_discrete_gradient': functools.partial(
    scans.multi_step_discrete_gradient, VIEW, BUDGET, 3, **BRUTE
  ),
  'multi_step_discrete_gradient cost': functools.partial(
    scans.multi_step_discrete_gradient, VIEW, BUDGET, 3, signal='cost'
  ),
  'coordinate_discrete_gradient': functools.partial(
    scans.coordinate_discrete_gradient, VIEW, BUDGET, order='cost'
  ),
  'coordinate_discrete_gradient exact': functools.partial(
    scans.coordinate_discrete_gradient,
    VIEW,
    BUDGET,
    order='exact',
    num_sweeps=2,
  ),
  'flip_descent incremental': functools.partial(scans.flip_descent, VIEW, 5),
  'flip_descent recompute': functools.partial(
    scans.flip_descent, VIEW, 5, path='recompute'
  ),
  'pair_gains': lambda report: scans.pair_gains(
    VIEW, jax.random.key(0), 30, width=1, report=report
  ),
  'set_gains': lambda report: scans.set_gains(
    VIEW, jnp.arange(24).reshape(8, 3), width=1, report=report
  ),
  'smoothed_gains': lambda report: scans.smoothed_gains(
    VIEW, jax.random.key(0), 0.1, 8, together=2, report=report
  ),
  'exhaustive': functools.partial(
    scans.exhaustive, VIEW, BUDGET, coordinates=jnp.arange(8)
  ),
  'prefix_scan steps': functools.partial(
    scans.prefix_scan, VIEW, STEP, range(9), path='steps'
  ),
  'prefix_scan incremental': functools.partial(
    scans.prefix_scan, VIEW, STEP, range(9), holdout=OTHER, path='incremental'
  ),
  'prefix_scan brute_force': functools.partial(
    scans.prefix_scan, VIEW, STEP, range(9), **BRUTE
  ),
}
# These take long to trace, and are made of others or share their loop with one.
LONG = (
  'flip_gains in groups',
  'flip_gains layers',
  'central_difference flips',
  'central_difference real',
  'discrete_gradient',
  'multi_step_discrete_gradient',
  'coordinate_discrete_gradient exact',
  'flip_descent incremental',
  'flip_descent recompute',
  'prefix_scan incremental',
  'prefix_scan steps',
)
# What is told, where a loop's steps are known.
SHARES = {
  'flip_gains brute_force': np.arange(1, 25) / 24,
  'flip_gains in groups': np.append(np.arange(5, 24, 5) / 24, 1),
  'stream_gains': np.arange(1, 97) / 96,
  'line_scan brute_force': np.arange(1, 41) / 40,
  'multi_step_discrete_gradient cost': np.arange(1, 4) / 3,
  'exhaustive': np.arange(1, 5) / 4,
  'smoothed_gains': np.arange(1, 5) / 4,
  'prefix_scan brute_force': np.arange(1, 10) / 9,
}


def per_cents(shares):
  """Returns shares as they are told: whole per cents that have been done."""
  return np.floor(100 * np.asarray(shares) + 1e-3) / 100


def heard(call):
  """Returns the result of a call, and the shares that its report was told."""
  shares = []
  result = call(report=shares.append)
  return result, shares


def check(name):
  """The numbers are those without a report; shares grow, and end with 1."""
  result, told = heard(CASES[name])
  assert all(isinstance(share, float) for share in told)
  assert told[-1] == 1.0 and told[0] > 0 and len(told) <= 100
  assert (np.diff(told) > 0).all()
  if name in SHARES:
    np.testing.assert_allclose(told, per_cents(SHARES[name]))
  plain = CASES[name](report=None)
  jax.tree.map(np.testing.assert_array_equal, result, plain)


def test_every_scan_that_can_take_long_is_a_case():
  reporting = [
    name
    for name in scans.__all__
    if inspect.isfunction(getattr(scans, name))
    and 'report' in inspect.signature(getattr(scans, name)).parameters
  ]
  assert set(reporting) == {name.split()[0] for name in CASES}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow if name in LONG else ())
    for name in CASES
  ],
)
def test_programs_call_the_host_if_there_is_a_report(name):
  silent = jax.make_jaxpr(lambda: CASES[name](report=None))()
  telling = jax.make_jaxpr(lambda: CASES[name](report=print))()
  assert not silent.effects and 'callback' not in str(silent)
  # At least one call is in a loop, and the last one is at the end.
  assert str(telling).count('debug_callback[') >= 2
  assert [str(out) for out in silent.out_avals] == [
    str(out) for out in telling.out_avals
  ]


@pytest.mark.parametrize(
  'name', ['flip_gains brute_force', 'prefix_scan brute_force']
)
def test_a_report_changes_no_number(name):
  check(name)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize('name', CASES)
def test_no_report_changes_a_number(name):
  check(name)


@_report.reports
@jax.jit
def two_passes(x, *, report):
  """Three times four steps, then eight more, two at a time."""

  def visit(x, number):
    inner = _report.part(_report.part(report, 0, 2), number, 3)
    return _report.scan(inner, lambda x, _: (x + 1, None), x, None, 4)[0], None

  x, _ = jax.lax.scan(visit, x, jnp.arange(3))
  outer = _report.part(report, 1, 2)

  def step(carry):
    number, x = carry
    _report.tick(outer, number, 8, 2)
    return number + 2, x + 1

  return jax.lax.while_loop(lambda carry: carry[0] < 8, step, (0, x))[1]


def test_parts_of_parts():
  result, shares = heard(functools.partial(two_passes, jnp.zeros(())))
  assert result == 16
  halves = np.arange(1, 13) / 24, 0.5 + np.arange(1, 5) / 8
  np.testing.assert_allclose(shares, per_cents(np.concatenate(halves)))


def gains(report):
  return scans.flip_gains(VIEW, **BRUTE, report=report)


def test_one_program_serves_every_report():
  gains(lambda share: None)
  size = _flips._flip_gains._cache_size()
  assert len(heard(gains)[1]) == 24
  assert _flips._flip_gains._cache_size() == size


def test_in_a_program_of_the_caller():
  """Both runs of it are told from the beginning; the slowest lane counts."""
  shares = []

  @jax.jit
  @jax.vmap
  def run(steps):
    @_report.reports
    def count(*, report):
      def step(number):
        _report.tick(report, number, steps)
        return number + 1

      return jax.lax.while_loop(lambda n: n < steps, step, 0)

    return count(report=shares.append)

  for _ in range(2):
    np.testing.assert_array_equal(run(jnp.array([2, 8, 5])), [2, 8, 5])
    jax.effects_barrier()
    np.testing.assert_allclose(shares, per_cents(np.arange(1, 9) / 8))
    shares.clear()


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_report_raises_is_raised_when_the_scan_is_done(error, caplog):
  shares = []

  def report(share):
    shares.append(share)
    if len(shares) == 3:
      raise error('Enough.')

  with pytest.raises(error, match='Enough'):
    gains(report)
  assert len(shares) == 3
  assert 'Enough.' in caplog.text
  assert heard(gains)[1][-1] == 1.0  # Nothing is left of it.


def test_in_a_program_of_the_caller_an_exception_is_logged(caplog):
  def report(share):
    raise ValueError(f'Not {share}.')

  found = jax.jit(lambda x: two_passes(x, report=report))(jnp.zeros(()))
  jax.effects_barrier()
  assert found == 16
  assert caplog.text.count('Not 0.04.') == 1


def test_the_last_report_may_raise():
  def report(share):
    if share == 1:
      raise KeyError(share)

  with pytest.raises(KeyError):
    gains(report)


def test_a_report_that_is_no_function():
  with pytest.raises(types.BadInput, match='report must be a function'):
    gains(3)
