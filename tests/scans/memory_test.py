"""Scans that vectorise candidates take what the memory budget has room for.

Those of convolutions are bounded by the sizes of their blocks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import lanes
from bitjax import memory
from bitjax import scans
from bitjax import types
from bitjax.scans import _flips
from tests.scans import residual_networks as networks

RATES = np.linspace(0, 0.1, 64).astype(np.float32)
EXAMPLES = (
  2000  # Each candidate takes 32 kB for each of the two products, or more.
)


def line(view, **options):
  direction = jnp.ones_like(view.kernel)
  return scans.line_scan(
    view, direction, RATES, path='brute_force', **options
  ).losses


def flips(view, chunk=None):
  return scans.flip_gains(view, path='brute_force', chunk=chunk).gains


def pairs(view, **options):
  return scans.pair_gains(view, jax.random.key(0), 40, **options).together


def exhaustive(view):
  return scans.exhaustive(
    view, types.Budget(1.0), coordinates=jnp.arange(7)
  ).decrease


SCANS = {
  'line_scan': (line, {'width': 2}, 64),
  'flip_gains': (flips, {'chunk': 2}, 24),
  'pair_gains': (pairs, {'width': 2}, 40),
  'exhaustive': (exhaustive, None, 128),
}


def temporaries(scan, view):
  return memory.of(jax.jit(scan).lower(view).compile()).temporaries


@pytest.mark.parametrize(
  'name',
  [
    'line_scan',
    pytest.param('pair_gains', marks=pytest.mark.slow),
    pytest.param('flip_gains', marks=pytest.mark.slow),
    pytest.param('exhaustive', marks=pytest.mark.slow),
  ],
)
def test_candidates_are_vectorised_within_the_budget(name, make, monkeypatch):
  view, _ = make(examples=EXAMPLES)
  scan, narrow, candidates = SCANS[name]
  want = scan(view)  # One at a time, as on a CPU (the exhaustive search 64).
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  chosen = []
  fitting = lanes._Lane.fitting
  monkeypatch.setattr(
    lanes._Lane,
    'fitting',
    lambda *args: chosen.append(fitting(*args)) or chosen[-1],
  )
  with memory.limited('2MB'):
    found, bounded = scan(view), temporaries(scan, view)
  with memory.limited('1GiB'):
    whole = temporaries(scan, view)
  np.testing.assert_allclose(found, want, atol=1e-6)
  assert min(chosen) < candidates // 2 and max(chosen) == candidates
  assert bounded <= lanes.SHARE * 2e6 + 2e5 < whole
  if narrow is not None:
    chosen.clear()
    jax.eval_shape(lambda v: scan(v, **narrow), view)
    assert not chosen  # A width that the caller gives is obeyed.


@pytest.mark.slow
@pytest.mark.parametrize('path', ['pooled', 'masks', 'tail'])
def test_two_gibibytes_are_enough_for_large_layers(path):
  """512 channels; 64 x 64 positions; 10 000 images."""
  for channels, size, images in ((512, 4, 256), (64, 64, 64), (32, 8, 10_000)):

    def make(x, y, channels=channels):
      rng = np.random.default_rng(0)
      own, other = (networks.conv(rng, channels, channels) for _ in range(2))
      ends = (scans.Mean(), networks.dense(rng, channels, 10))
      middle = (
        (networks.SIGN, other, networks.HARDTANH)
        if path != 'pooled'
        else (scans.Activation('relu'),)
      )
      return networks.view_of((networks.SIGN, own), x, y, (*middle, *ends))

    shape = (images, size, size, channels)
    view = jax.eval_shape(
      make,
      jax.ShapeDtypeStruct(shape, 'f4'),
      jax.ShapeDtypeStruct(shape[:1], 'i4'),
    )
    lowered = _flips._flip_gains.lower(
      view, None, None, path, None, False, None
    )
    taken = memory.of(lowered.compile())
    assert taken.temporaries + taken.outputs < 2**31
    # Much less, and not many times the inputs.
    assert taken.temporaries < 2**28
