"""Packed convolutions that multiply equal patches once: the same sums, and gains."""

import jax
import numpy as np
import pytest

from bitjax import packed
from bitjax import scans
from bitjax.scans import _conv_behind
from bitjax.scans import _conv_masks
from bitjax.scans import _convolution
from bitjax.scans import _packed_distinct
from tests.scans import residual_networks as networks

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.


def similar(rng, size, channels, images, share=0.1):
  """Signs of images of which few positions differ."""
  x = np.repeat(rng.choice([-1.0, 1.0], (*size, channels, 1)), images, -1)
  other = rng.random((*size, 1, images)) < share
  return np.where(other, rng.choice([-1.0, 1.0], x.shape), x)


CASES = {
  'one word': ((5, 4), 16, 7, (3, 3), (1, 1), ((1, 1), (1, 1))),
  'words, strides': ((6, 7), 70, 9, (3, 2), (2, 3), ((1, 0), (0, 2))),
  'one image': ((4, 4), 40, 1, (3, 3), (1, 1), ((0, 0), (0, 0))),
  'many images': ((3, 3), 33, 90, (1, 3), (1, 2), ((0, 0), (1, 1))),
}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=[] if n == 'words, strides' else [pytest.mark.slow])
    for n in CASES
  ],
)
@pytest.mark.parametrize(
  'odd', [_packed_distinct._ODD, pytest.param(0, marks=pytest.mark.slow)]
)
def test_sums_are_those_of_each_image(monkeypatch, name, odd):
  """Also where all hashes collide."""
  monkeypatch.setattr(_packed_distinct, '_ODD', odd)
  size, channels, images, kernel, strides, padding = CASES[name]
  rng = np.random.default_rng(0)
  x = similar(rng, size, channels, images)
  w = rng.choice([-1.0, 1.0], (*kernel, channels, 5))
  words, weights = packed.pack(x, 2), packed.pack(w, 2)
  window = _convolution.Window(strides, padding, 0.0)
  found = jax.jit(
    lambda x, w: _packed_distinct.convolve(x, w, channels, window)
  )(words, weights)
  wanted = packed.conv(
    words, weights, channels, strides=strides, padding=padding, pad_value=-1
  )
  sums = np.swapaxes(np.asarray(found.table)[np.asarray(found.number)], 2, 3)
  np.testing.assert_array_equal(sums, wanted)
  if not odd:
    return
  x = np.pad(x, [*padding, (0, 0), (0, 0)], constant_values=-1)
  patches = {
    (i, j, x[i * a : i * a + kernel[0], j * b : j * b + kernel[1], :, n].tobytes())
    for a, b in [strides]
    for i, j, n in np.ndindex(found.number.shape)
  }  # fmt: skip
  assert int(found.number.max()) + 1 == len(patches)
  assert images == 1 or len(patches) < found.number.size


@pytest.mark.slow
@pytest.mark.parametrize('first', ['conv', 'add'])
def test_gains_are_the_same_to_the_bit(monkeypatch, first):
  """Masks in groups of 3, of a binary convolution behind the next one."""
  rng = np.random.default_rng(0)
  x, labels = networks.images(0, 3, 4, 5)
  value = scans.Add(networks.images(1, 3, 4, 6)[0])
  tail = (
    networks.norm(rng, 8, 6.0), networks.SIGN, networks.conv(rng, 8, 6),
    networks.norm(rng, 6, 8.0), *((value,) if first == 'add' else ()),
    networks.HARDTANH, networks.SIGN, networks.conv(rng, 6, 7, pad_values=1.0),
    scans.Examplewise(networks.Fn('max_pool')), networks.norm(rng, 7, 8.0),
    networks.HARDTANH, scans.Examplewise(networks.Fn('flatten')),
    networks.dense(rng, 28, 10),
  )  # fmt: skip
  own = (networks.SIGN, networks.conv(rng, 5, 8))
  view = networks.view_of(own, x, labels, tail)
  monkeypatch.setattr(_conv_behind, '_group', lambda network: 3)
  found, shared = {}, _conv_behind._shared
  for large in (1, 1 << 20):
    monkeypatch.setattr(_conv_behind, '_LARGE', large)
    shares = []
    monkeypatch.setattr(
      _conv_behind, '_shared', lambda *a, s=shares: s.append(1) or shared(*a)
    )
    moments = jax.jit(
      lambda view: _conv_masks.moments(view, scans.moves(view), None, 2)
    )
    found[large] = moments(view)
    assert bool(shares) == (large == 1)
  for together, apart in zip(*found.values(), strict=True):
    np.testing.assert_array_equal(together, apart)
  slow = scans.flip_gains(view, path='brute_force')
  np.testing.assert_allclose(found[1][1][0], slow.gains, rtol=0, atol=5e-6)
  assert np.abs(slow.gains).max() > 1e-3
