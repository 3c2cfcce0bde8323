"""Scans in blocks of other sizes are the same questions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import sizes

# Small blocks, none of which divides what it cuts.
ODD = dataclasses.replace(
  sizes.of('gpu'),
  sign_examples=14,
  sign_group=7,
  sign_pairs=11,
  sums_examples=5,
  rank_one_examples=10,
  rank_one_group=5,
  rank_one_rows=4,
  rank_one_numbers=600,
  kinks=3,
  coordinate_examples=6,
  prefix_share=9,
  line_breakpoints=5,
  line_pairs=7,
  line_sorted=3,
  affine_rates=9,
  affine_examples=8,
)


def flips(view, loss):
  del loss
  step = None if view.quantizer is not None else 0.125
  fast = scans.flip_gains(view, step=step).gains
  slow = scans.flip_gains(view, step=step, path='brute_force').gains
  return fast, slow


def descent(view, loss):
  found = scans.flip_descent(view, 6)
  return found.losses[-1], loss(view.kernel + found.displacement)


def line(view, loss):
  rng = np.random.default_rng(3)
  direction = rng.integers(-8, 9, view.kernel.shape) / 64
  rates = np.arange(40) / 16 + 1 / 64
  found = scans.line_scan(
    view, jnp.asarray(direction, jnp.float32), jnp.asarray(rates, jnp.float32)
  )
  assert found.path != 'brute_force'
  kernel = np.asarray(view.kernel)
  return found.losses, [loss(kernel - rate * direction) for rate in rates]


CASES = {
  'flips before a sign': (flips, {}),
  'flips before a ReLU': (flips, {'activation': 'relu'}),
  'moves up and down': (flips, {'activation': 'relu', 'binary': False}),
  'a descent': (descent, {}),
  'a quantized line': (line, {}),
  'a line of a real kernel': (line, {'activation': 'relu', 'binary': False}),
}
FAST = ('flips before a sign', 'a quantized line')


@pytest.mark.parametrize(
  'kind', ['gpu', pytest.param('odd', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
  'case',
  [
    case if case in FAST else pytest.param(case, marks=pytest.mark.slow)
    for case in CASES
  ],
)
def test_blocks_do_not_change_the_answer(make, monkeypatch, case, kind):
  measure, options = CASES[case]
  chosen = {'gpu': sizes.of('gpu'), 'odd': ODD}[kind]
  monkeypatch.setattr(sizes, 'here', lambda: chosen)
  # A batch of a size that no other test has, so that this one traces anew.
  view, loss = make(seed=5, examples={'gpu': 43, 'odd': 47}[kind], **options)
  found, wanted = measure(view, loss)
  np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)
  assert np.ptp(np.asarray(wanted)) > 0 or case == 'a descent'


@pytest.mark.slow
def test_a_loop_over_breakpoints_is_not_in_the_program_of_a_gpu(
  make, monkeypatch
):
  """Each step of such a loop would be launches of its own."""
  view, _ = make(examples=41)
  direction, rates = jnp.ones_like(view.kernel), jnp.linspace(0.0, 1.0, 50)
  scan = functools.partial(scans.line_scan, path='steps')
  counts = {}
  for kind in ('cpu', 'gpu'):
    chosen = sizes.of(kind)
    monkeypatch.setattr(sizes, 'here', lambda chosen=chosen: chosen)
    jax.clear_caches()
    text = str(jax.make_jaxpr(lambda v, d, r: scan(v, d, r).losses)(
      view, direction, rates
    ))  # fmt: skip
    counts[kind] = text.count(' scan['), text.count('cummax')
  assert counts['cpu'][0] > counts['gpu'][0] and counts['cpu'][1] == 0
  assert counts['gpu'][1] > 0
