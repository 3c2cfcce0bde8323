"""Plans name the paths that scans then take, and why no faster one."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import types
from bitjax.scans import _plan

RATES = np.linspace(0, 0.1, 20).astype(np.float32)
DOCS = pathlib.Path(__file__).parents[2] / 'docs'


def planned(view, **options):
  found = scans.plan(view, timed=False, **options)
  return {scan.question: scan for scan in found.scans}


@pytest.mark.parametrize(
  ('activation', 'binary', 'opaque', 'paths'),
  [
    ('sign', True, False, ('steps', 'sign', 'incremental')),
    pytest.param(
      *('relu', True, False, ('steps', 'rank_one', 'incremental')),
      marks=pytest.mark.slow,
    ),
    pytest.param(
      *('relu', False, False, ('affine', 'rank_one', 'incremental')),
      marks=pytest.mark.slow,
    ),
    ('sign', True, True, ('distinct', 'brute_force', 'forward_passes')),
  ],
)
def test_scans_take_the_planned_paths(make, activation, binary, opaque, paths):
  view, _ = make(activation=activation, binary=binary)
  if opaque:
    tail = (*view.tail, scans.Opaque(jax.tree_util.Partial(jnp.tanh)))
    view = dataclasses.replace(view, tail=tail)
  plan = planned(view, num_rates=RATES.size)
  questions = 'line_scan', 'flip_gains', 'coordinate_discrete_gradient'
  assert tuple(plan[name].path for name in questions) == paths
  for name in 'line_scan', 'flip_gains':
    if measured := _plan.COSTS[name, plan[name].path].measured:
      moves = view.kernel.size * (1 if binary else 2)
      most = measured[-1] if name == 'line_scan' else min(moves, measured[0])
      assert plan[name].passes == most
  line = scans.line_scan(view, jnp.ones_like(view.kernel), RATES)
  gains = scans.flip_gains(view, step=None if binary else 0.1)
  assert (line.path, gains.path) == paths[:2]
  if opaque:
    assert 'its tail holds an opaque stage' in plan['flip_gains'].reason
    assert plan['flip_gains'].passes == view.kernel.size
  if activation == 'sign' and binary and not opaque:
    assert not plan['flip_gains'].reason


def test_few_rates_and_kernels_without_flips(make):
  view, _ = make(activation='relu', binary=False)
  plan = planned(view, num_rates=3)
  assert plan['line_scan'].path == 'brute_force'
  assert plan['line_scan'].passes == 3
  assert 'fewer than 16 rates' in plan['line_scan'].reason
  assert 'quantised kernel' in plan['flip_descent'].reason


def test_seconds_are_passes_times_a_forward_pass(make):
  view, _ = make()
  plan = scans.plan(view)
  for scan in plan.scans:
    assert scan.seconds == pytest.approx(scan.passes * plan.forward_seconds)
    assert scan.question in str(plan)


def test_memory_is_what_the_compiler_reserves(make):
  view, _ = make()
  assert all(scan.memory is None for scan in planned(view).values())
  plan = scans.plan(
    view, num_pairs=9, num_rates=RATES.size, timed=False, memory=True
  )
  found = {scan.question: scan.memory for scan in plan.scans}
  assert found['flip_gains'] >= 2 * view.kernel.nbytes  # Two numbers for each.
  assert min(found.values()) > 0
  assert f'{found["flip_gains"] / 1e6:.3g}' in str(plan)


def test_bad_input(make):
  view, _ = make()
  with pytest.raises(types.BadInput, match='num_rates'):
    scans.plan(view, num_rates=0)


def test_the_page_has_the_table_of_costs():
  page = (DOCS / 'scans.md').read_text()
  lines = [line for line in page.splitlines() if line.startswith('| `')]
  assert len(lines) == len(_plan.COSTS)
  for line, ((question, path), cost) in zip(
    lines, _plan.COSTS.items(), strict=True
  ):
    assert f'`{question}`' in line and line.endswith(f'| {cost} |')
    assert path == '*' or f'`{path}`' in line


def test_numbers_are_those_of_the_benchmark():
  page = (DOCS / 'benchmark.md').read_text()
  measured = [x for cost in _plan.COSTS.values() for x in cost.measured]
  assert len(measured) == 9
  for number in measured:
    assert f'| {number:g} ' in page, number
