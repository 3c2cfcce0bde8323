"""Plans name the paths that scans then take, and why no faster one."""

import dataclasses
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import memory
from bitjax import scans
from bitjax import types
from bitjax.scans import _conv_costs
from bitjax.scans import _plan
from tests.scans import residual_networks as networks

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


def test_what_exceeds_a_bound_is_marked(make):
  view, _ = make()
  options = {'num_pairs': 9, 'num_rates': RATES.size, 'memory': True}
  free = scans.plan(view, **options)
  assert not any(scan.exceeds for scan in free.scans)
  assert 'TOO MUCH' not in str(free)
  least = min(scan.memory for scan in free.scans)
  most = max(scan.memory for scan in free.scans)
  inputs = sum(leaf.nbytes for leaf in jax.tree.leaves(view.inputs))
  middle = (least + most) // 2 + inputs
  bounded = scans.plan(
    view, most_seconds=1e-9, most_memory=f'{middle} B', **options
  )
  for scan in bounded.scans:
    assert 'most_seconds=1e-09' in scan.exceeds
    if scan.memory + inputs > middle:
      assert 'most_memory is' in scan.exceeds
  marked = ['most_memory' in scan.exceeds for scan in bounded.scans]
  assert any(marked) and not all(marked)
  assert str(bounded).count('TOO MUCH: about') == len(bounded.scans)
  # Without a measurement nothing is said.
  unknown = scans.plan(view, timed=False, most_seconds=1e-9, most_memory=1)
  assert not any(scan.exceeds for scan in unknown.scans)


@pytest.mark.slow
def test_what_fits_no_budget_is_marked(make, monkeypatch):
  view, _ = make(activation='relu')
  view = dataclasses.replace(
    view, tail=(*view.tail, scans.Opaque(jax.tree_util.Partial(jnp.tanh)))
  )
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  with memory.limited('1KiB'):
    plan = planned(view, num_rates=3, num_pairs=2, memory=True)
  assert 'memory.limited' in plan['flip_gains'].exceeds
  assert plan['flip_gains'].memory is None


def work(shapes):
  """Counts products and outputs of convolutions by hand."""
  return [
    (images * size**2 * 9 * fan_in * units, images * size**2 * units)
    for images, size, fan_in, units in shapes
  ]


def test_moves_on_the_tail_cost_the_work_behind():
  """All layers of a residual network, and a classifier of 16 x 10."""
  x, y = networks.images(0, 5, 8, 8)
  stages = networks.bireal(blocks=(1, 1), widths=(8, 16))
  view = networks.view_in_residual(stages, x, y, 0)
  own, *behind = work([(5, 8, 8, 8)] * 2 + [(5, 4, 8, 16), (5, 4, 16, 16)])
  dense = 5 * 160 + 24 * 50
  total = sum(n + 24 * m for n, m in (own, *behind)) + dense
  # Only one channel of eight goes into the next layer.
  moved = 10 * 24 * 5 * 64
  share = sum(0.1 * n + 24 * m for n, m in behind) + dense + moved
  found = planned(view)['flip_gains']
  assert found.path == 'tail'
  assert found.passes == pytest.approx(576 * share / total)
  floats = networks.bireal(blocks=(1, 1), widths=(8, 16), kernel_quantizer=None)
  view = networks.view_in_residual(floats, x, y, 0)
  found = planned(view)['flip_gains']
  share = sum(n + 24 * m for n, m in behind) + dense + moved
  share -= (1 - 6 / 8) * behind[0][0]  # Its products with one channel of eight.
  assert found.passes == pytest.approx(2 * 576 * share / total)


def test_masks_cost_less_than_the_tail():
  rng = np.random.default_rng(0)
  x, y = networks.images(0, 5, 4, 8)
  behind = (networks.SIGN, networks.conv(rng, 8, 8), scans.Mean())
  view = networks.view_of((networks.conv(rng, 8, 8),), x, y, behind)
  found = planned(view)['flip_gains']
  # Of 72 moves of a channel of 16 positions; erf(sqrt(2 / 72)) of these can turn.
  share = (1 + math.erf(1 / 6)) ** 16 / 72
  work = _conv_costs.passes(view)
  assert found.path == 'masks' and 0.2 < share < 0.25
  assert found.passes == pytest.approx(576 * share * work)
  shifted = dataclasses.replace(view, kernel=view.kernel[:1, :1])
  assert _conv_costs.distinct(shifted, 1) == 1


def test_bad_input(make):
  view, _ = make()
  for bad in ({'most_seconds': 0.0}, {'most_memory': '2 apples'}):
    with pytest.raises(types.BadInput, match=next(iter(bad))):
      scans.plan(view, **bad)
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
  assert len(measured) == 10
  for number in measured:
    assert f'| {number:g} ' in page, number
