"""Resampling against sums written out one by one, and against published images."""

import functools
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import types

RNG = np.random.default_rng(7)
# A folder with Set5/image_SRF_{2,3,4}, as published with SelfExSR; see
# docs/super_resolution.md.
FILES = os.environ.get('BITJAX_SR_DIR')


jitted = jax.jit(data.bicubic, static_argnames=('scale', 'shape', 'edges'))


def kernel(x):
  x = abs(x)
  if x <= 1:
    return 1.5 * x**3 - 2.5 * x**2 + 1
  return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def mirrored(j, size):
  """Walks from j back into the image, turning round at each edge."""
  while not 0 <= j < size:
    j = -1 - j if j < 0 else 2 * size - 1 - j
  return j


def row(values, scale, length, edges):
  """One line of pixels, [size, C], each output a sum over all that reaches it."""
  size, found = len(values), []
  squeeze = min(scale, 1)
  for i in range(length):
    u = (i + 0.5) / scale - 0.5
    reach = math.ceil(2 / squeeze) + 2
    total, weight = 0.0, 0.0
    for j in range(math.floor(u) - reach, math.floor(u) + reach + 1):
      w = kernel(squeeze * (u - j))
      inside = (
        mirrored(j, size) if edges == 'mirror' else min(max(j, 0), size - 1)
      )
      total, weight = total + w * values[inside], weight + w
    found.append(total / weight)
  return np.stack(found)


def slowly(image, scales, shape, edges):
  x = image.astype(np.float64)
  for axis in sorted((0, 1), key=lambda a: scales[a]):
    lines = np.moveaxis(x, axis, 0)
    lines = row(lines, scales[axis], shape[axis], edges)
    x = np.moveaxis(lines, 0, axis)
    if image.dtype == np.uint8:
      x = np.floor(np.clip(x, 0, 255) + 0.5)
  return x


@pytest.mark.parametrize('edges', data.EDGES)
@pytest.mark.parametrize('scale', [1 / 2, 1 / 3, 0.4, 1, 1.7, 2, 3, 0.05])
def test_sums_one_by_one(scale, edges):
  image = RNG.uniform(0, 255, (9, 12, 3)).astype(np.float32)
  shape = math.ceil(round(9 * scale, 6)), math.ceil(round(12 * scale, 6))
  expected = slowly(image, (scale, scale), shape, edges)
  found = data.bicubic_on_host(image, scale, edges=edges)
  assert found.dtype == np.float32 and found.shape == (*shape, 3)
  np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)
  if scale in (1 / 3, 1.7):
    found = jitted(image, scale, edges=edges)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize('shape', [(4, 30), (20, 5), (9, 12), (1, 1)])
def test_shapes_give_each_axis_its_scale_and_the_smaller_one_comes_first(shape):
  image = RNG.integers(0, 256, (9, 12, 1), dtype=np.uint8)
  scales = shape[0] / 9, shape[1] / 12
  found = data.bicubic_on_host(image, shape=shape)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, slowly(image, scales, shape, 'mirror'))


def test_bytes_are_rounded_after_each_axis_and_halves_go_up():
  # Scaled by one half, -3 -9 29 111 111 29 -9 -3 (in 256ths) is what a pixel counts.
  image = np.zeros((8, 8, 1), np.uint8)
  image[3:5, 3:5] = 255
  image[4, 4] = 3
  found = np.asarray(jitted(image, 0.5))
  np.testing.assert_array_equal(
    found, slowly(image, (0.5, 0.5), (4, 4), 'mirror')
  )
  line = np.full((1, 2, 1), 1, np.uint8)
  line[0, 1] = 2
  # The mean is 1.5.
  assert data.bicubic_on_host(line, shape=(1, 1)).item() == 2


@pytest.mark.parametrize('scale', [1 / 2, 2.5])
def test_the_two_programs_give_the_same_bytes(scale):
  image = RNG.integers(0, 256, (31, 22, 3), dtype=np.uint8)
  found = np.asarray(jitted(image, scale)).astype(int)
  host = data.bicubic_on_host(image, scale)
  if scale == 1 / 2:  # Every sum is exact.
    np.testing.assert_array_equal(found, host)
  assert np.abs(found - host).max() <= 1
  assert np.mean(found != host) < 0.002


def test_leading_axes_jit_vmap_grad_and_dtypes():
  images = RNG.uniform(0, 1, (2, 3, 6, 4, 2)).astype(np.float32)
  halved = functools.partial(data.bicubic, scale=0.5)
  found = jax.jit(halved)(images)
  assert found.shape == (2, 3, 3, 2, 2)
  mapped = jax.jit(jax.vmap(jax.vmap(halved)))(images)
  np.testing.assert_allclose(mapped, found, atol=1e-6)
  # The map is linear: its gradient is its transpose.
  weights = RNG.normal(size=found.shape).astype(np.float32)
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(weights * halved(x))))(images)
  np.testing.assert_allclose(
    np.sum(gradient * images), np.sum(weights * found), rtol=1e-4
  )
  narrow = jnp.asarray(images, jnp.bfloat16)
  rounded = jax.jit(halved)(narrow)
  assert rounded.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    np.asarray(rounded, np.float32), found, rtol=0.02, atol=0.02
  )


def test_the_host_takes_whatever_holds_an_image(recwarn):
  image = RNG.integers(0, 256, (4, 6, 1), dtype=np.uint8)
  expected = data.bicubic_on_host(image / 255, 0.5)
  for given in (jnp.asarray(image), jnp.asarray(image / np.float32(255))):
    found = data.bicubic_on_host(given, 0.5)  # type: ignore[arg-type]
    assert isinstance(found, np.ndarray) and found.dtype == given.dtype
    unit = found / 255 if found.dtype == np.uint8 else found
    np.testing.assert_allclose(unit, expected, atol=1.01 / 255)
  found = data.bicubic_on_host((image / 255).tolist(), 0.5)  # type: ignore[arg-type]
  np.testing.assert_array_equal(found, expected)
  assert not recwarn.list  # Nothing was truncated to float32.


def test_long_lines_of_floats_are_gathered():
  image = RNG.uniform(0, 255, (3, 700, 1)).astype(np.float32)
  found = jitted(image, 0.6)
  expected = data.bicubic_on_host(image, 0.6)
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def test_constants_stay_and_the_whole_image_at_scale_one():
  flat = np.full((5, 7, 3), 93, np.uint8)
  for scale in (0.3, 1.4):
    assert np.all(data.bicubic_on_host(flat, scale) == 93)
  image = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
  np.testing.assert_array_equal(data.bicubic_on_host(image, 1), image)


def test_jax_differs_at_the_edges_alone_before_rounding():
  image = RNG.uniform(0, 255, (40, 36, 3)).astype(np.float32)
  ours = data.bicubic_on_host(image, 0.5)
  theirs = np.asarray(jax.image.resize(image, ours.shape, 'cubic'))
  np.testing.assert_allclose(ours[2:-2, 2:-2], theirs[2:-2, 2:-2], atol=1e-3)
  assert np.abs(ours - theirs)[0].max() > 1


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'scale': 0}, 'scale must be'),
    ({'scale': 'x'}, 'scale must be'),
    ({'scale': None}, 'scale or shape must be given'),
    ({'shape': (2, 2)}, 'scale or shape must be given'),
    ({'scale': None, 'shape': (2,)}, 'shape must be two integers'),
    ({'scale': None, 'shape': (2, 0)}, 'shape must be'),
    ({'edges': 'zero'}, 'edges must be one of mirror, replicate'),
    ({'images': np.zeros((4, 4), np.uint8)}, r'\[\.\.\., H, W, C\]'),
    ({'images': np.zeros((4, 0, 3), np.uint8)}, r'\[\.\.\., H, W, C\]'),
    ({'images': np.zeros((4, 4, 3), np.int32)}, 'uint8 or floating; got int32'),
  ],
)
def test_bad_input(change, message):
  given = {'images': np.zeros((4, 4, 3), np.uint8), 'scale': 0.5} | change
  with pytest.raises(types.BadInput, match=message):
    data.bicubic(given.pop('images'), **given)


@pytest.mark.skipif(FILES is None, reason='needs BITJAX_SR_DIR')
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_set5_is_what_its_authors_made(scale):
  from PIL import Image

  folder = pathlib.Path(FILES) / 'Set5' / f'image_SRF_{scale}'
  high = sorted(folder.glob('*_HR.png'))
  assert len(high) == 5
  for path in high:
    low = Image.open(str(path).replace('_HR', '_LR'))
    image = np.asarray(Image.open(path).convert('RGB'))
    found = jitted(image, 1 / scale, edges='replicate')
    np.testing.assert_array_equal(found, np.asarray(low.convert('RGB')))
    # MATLAB's edges of today differ, at the edges.
    found = data.bicubic_on_host(image, 1 / scale)
    inner = np.asarray(low.convert('RGB'))[2:-2, 2:-2]
    np.testing.assert_array_equal(found[2:-2, 2:-2], inner)
