"""Mixup and cutmix: images must be blended by the shares in the targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import types

N, H, W, C, KEYS = 7, 9, 12, 2, 400
ALPHAS = (0.2, 1.0, 4.0)
# Every example is a class of its own: targets name the partner and its share.
TARGETS = np.eye(N, dtype=np.float32)


def over_keys(blend, images):
  """Returns images and targets [alphas, KEYS, N, ...], in one program."""
  keys = jax.random.split(jax.random.key(0), KEYS)
  many = jax.vmap(blend, in_axes=(0, None, None, None))
  many = jax.jit(jax.vmap(many, in_axes=(None, None, None, 0)))
  found = many(keys, images, TARGETS, jnp.asarray(ALPHAS))
  return jax.tree.map(np.asarray, found)


def shares_of(targets):
  """Returns [KEYS] the images' own share in each batch, NaN if none is blended.

  Also checks that partners are a permutation, and that a batch has one share.
  """
  for axis in (1, 2):
    np.testing.assert_allclose(targets.sum(axis=axis), 1, rtol=1e-6)
  has_partner = (targets > 0).sum(axis=2) == 2
  assert np.all(has_partner | (targets == 1).any(axis=2))
  own = np.diagonal(targets, axis1=1, axis2=2)
  low = np.where(has_partner, own, np.inf).min(axis=1)
  high = np.where(has_partner, own, -np.inf).max(axis=1)
  blended = has_partner.any(axis=1)
  np.testing.assert_array_equal(low[blended], high[blended])
  return np.where(blended, low, np.nan)


@pytest.fixture(scope='module')
def mixed():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (N, H, W, C), dtype=np.uint8)
  return images, *over_keys(data.mixup, images)


@pytest.fixture(scope='module')
def cut():
  values = np.arange(1, N + 1, dtype=np.uint8)[:, None, None, None]
  images = np.broadcast_to(values, (N, H, W, C))
  return images, *over_keys(data.cutmix, images)


def test_mixup_blends_images_as_it_blends_targets(mixed):
  images, blended, targets = mixed
  assert blended.dtype == targets.dtype == np.float32
  wanted = np.einsum('aknm,mhwc->aknhwc', targets.astype(float), images)
  np.testing.assert_allclose(blended, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('i', range(len(ALPHAS)))
def test_the_share_of_mixup_is_beta_distributed(i, mixed):
  shares = shares_of(mixed[2][i])
  shares = shares[np.isfinite(shares)]
  variance = 1 / (4 * (2 * ALPHAS[i] + 1))
  size = len(shares)
  assert size > 0.8 * KEYS
  assert abs(shares.mean() - 0.5) < 5 * np.sqrt(variance / size)
  # The fourth central moment is at most a quarter of the variance.
  spread = np.sqrt((variance / 4 - variance**2) / size)
  assert abs(shares.var() - variance) < 5 * spread


def test_partners_are_drawn_uniformly(mixed):
  partner = (mixed[2][1] > 0).astype(float)
  off_diagonal = partner.mean(axis=0)[~np.eye(N, dtype=bool)]
  # Binomial(400, 1/7): relative standard deviation of 0.12.
  np.testing.assert_allclose(off_diagonal, 1 / N, atol=5 * 0.0175)


def box_of(image, own):
  """Returns the rows and columns of pasted pixels; checks that they are a box."""
  foreign = (image != own).all(axis=-1)
  np.testing.assert_array_equal(foreign, (image != own).any(axis=-1))
  rows = np.flatnonzero(foreign.any(axis=1))
  columns = np.flatnonzero(foreign.any(axis=0))
  np.testing.assert_array_equal(
    foreign, np.isin(np.arange(H), rows)[:, None] & np.isin(range(W), columns)
  )
  for indices in (rows, columns):
    np.testing.assert_array_equal(np.diff(indices), 1)
  return rows, columns


def test_cutmix_pastes_a_box_of_the_partner_and_counts_its_area(cut):
  images, pasted, targets = cut
  assert pasted.dtype == np.uint8 and targets.dtype == np.float32
  shares_of(targets[1])
  interior = 0
  for batch, batch_targets in zip(pasted[1, :200], targets[1], strict=False):
    boxes = set()
    for i, (image, target) in enumerate(zip(batch, batch_targets, strict=True)):
      # A pixel's value names its class: the shares must be those of the target.
      shares = np.bincount(image[..., 0].ravel(), minlength=N + 1)[1:]
      np.testing.assert_allclose(target, shares / (H * W), atol=1e-6)
      rows, columns = box_of(image, images[i])
      if rows.size:
        boxes.add((rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    assert len(boxes) <= 1
    for top, bottom, left, right in boxes:
      if min(top, left, H - bottom, W - right) > 0:
        interior += 1
        high, wide = bottom - top, right - left
        # Both sides are the same share of the image's sides, rounded down.
        assert max(high / H, wide / W) < min((high + 1) / H, (wide + 1) / W)
  assert interior > 20


@pytest.mark.parametrize('i', range(len(ALPHAS)))
def test_the_area_of_cutmix_is_distributed_as_in_numpy(i, cut):
  rng = np.random.default_rng(1)
  size = 20_000
  side = np.sqrt(1 - rng.beta(ALPHAS[i], ALPHAS[i], size))
  area = np.ones(size)
  for length in (H, W):
    extent = (side * length).astype(int)
    start = rng.integers(0, length, size) - extent // 2
    stop = np.minimum(start + extent, length)
    area *= (stop - np.maximum(start, 0)) / length
  kept = np.diagonal(cut[2][i], axis1=1, axis2=2).min(axis=1)
  # One permutation in 5040 moves no image, and all of its area is kept.
  error = 5 * (1 - area).std() / np.sqrt(KEYS)
  assert abs(kept.mean() - (1 - area).mean()) < error + 1 / 5040
  assert abs(kept.std() - area.std()) < error


def test_smoothing_moves_targets_to_uniform():
  targets = np.array([[0.0, 1, 0, 0], [0.25, 0.25, 0.5, 0]], np.float32)
  wanted = [[0.025, 0.925, 0.025, 0.025], [0.25, 0.25, 0.475, 0.025]]
  np.testing.assert_allclose(data.smooth(targets, 0.1), wanted, rtol=1e-6)
  np.testing.assert_array_equal(data.smooth(targets, 0.0), targets)


IMAGES = np.zeros((N, H, W, C), np.uint8)


@pytest.mark.parametrize('blend', [data.mixup, data.cutmix])
@pytest.mark.parametrize(
  'images,targets,alpha,pattern',
  [
    (IMAGES, TARGETS, 0.0, 'alpha must be > 0 and finite .*; got 0.0'),
    (IMAGES, TARGETS, -1, 'alpha must be > 0'),
    (IMAGES, TARGETS, np.nan, 'alpha must be > 0'),
    (IMAGES[0], TARGETS, 1.0, r'images must be \[N, H, W, C\]'),
    (IMAGES, TARGETS[:3], 1.0, r'targets must be probabilities.*\(3, 7\)'),
    (IMAGES, TARGETS[0], 1.0, 'targets must be probabilities'),
    (IMAGES, np.eye(N, dtype=np.int32), 1.0, 'floating .* got int32'),
  ],
)
def test_bad_arguments_are_one_line(blend, images, targets, alpha, pattern):
  with pytest.raises(types.BadInput, match=pattern) as error:
    blend(jax.random.key(0), images, targets, alpha)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('epsilon', [-0.1, 1.0, np.nan])
def test_epsilon_is_a_fraction(epsilon):
  with pytest.raises(types.BadInput, match=r'epsilon must be in \[0, 1\); got'):
    data.smooth(TARGETS, epsilon)
