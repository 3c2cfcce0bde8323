r"""Mixup and cutmix, which blend the examples of a batch, and label smoothing.

Labels are given as *targets* ``t_i``, probabilities of the classes, because a
blended image belongs to two classes. For a whole batch, mixup and cutmix each draw
one share ``lambda ~ Beta(alpha, alpha)`` and one permutation ``pi`` of the
examples, as the papers' own code does.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import types
from bitjax.data import indexing

__all__ = ['cutmix', 'mixup', 'smooth']


def mixup(
  key: types.Array,
  images: types.Array,
  targets: types.Array,
  alpha: types.Scalar,
) -> tuple[types.Array, types.Array]:
  r"""Blends every example with a partner, images and targets alike.

  .. math::
    x_i' = \lambda x_i + (1 - \lambda) x_{\pi(i)}, \quad
    t_i' = \lambda t_i + (1 - \lambda) t_{\pi(i)}, \quad
    \lambda \sim \mathrm{Beta}(\alpha, \alpha)

  Args:
    key: typed key.
    images: [N, H, W, C], floating or uint8.
    targets: floating [N, classes], probabilities.
    alpha: > 0, may be traced. Small values leave most batches nearly as they
      are; with 1 the share is uniform on [0, 1]. The paper takes 1 for CIFAR and
      0.2 for ImageNet.

  Returns:
    Images (float32 if they were uint8) and targets.

  Raises:
    BadInput: for ``alpha <= 0``, or shapes that do not match.

  References:
    Zhang et al., "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412,
    equation 1.
  """
  _check(images, targets)
  types.check_positive('alpha', alpha, finite=True)
  share_key, partner_key = jax.random.split(key)
  share = _share(share_key, alpha)
  partners = jax.random.permutation(partner_key, images.shape[0])
  if not jnp.issubdtype(images.dtype, jnp.floating):
    images = images.astype(jnp.float32)
  return _blend(images, partners, share), _blend(targets, partners, share)


def cutmix(
  key: types.Array,
  images: types.Array,
  targets: types.Array,
  alpha: types.Scalar,
) -> tuple[types.Array, types.Array]:
  r"""Pastes a box of a partner into every image and blends targets by its area.

  All images of the batch have the same box. Its sides are ``sqrt(1 - lambda)``
  times those of the image (rounded down), its centre is uniform on the image's
  pixels, and it is clipped at the image's edges. With :math:`\lambda'` the share
  of pixels that are kept,

  .. math::
    \lambda' = 1 - \mathrm{area} / (H W), \quad
    t_i' = \lambda' t_i + (1 - \lambda') t_{\pi(i)}.

  Args:
    key: typed key.
    images: [N, H, W, C], of any type.
    targets: floating [N, classes], probabilities.
    alpha: > 0, may be traced. The paper takes 1, with which the area of the
      unclipped box is uniform.

  Returns:
    Images of the same type, and targets.

  Raises:
    BadInput: for ``alpha <= 0``, or shapes that do not match.

  References:
    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers
    with Localizable Features", arXiv:1905.04899, equations 1 and 2.
  """
  _check(images, targets)
  types.check_positive('alpha', alpha, finite=True)
  size, height, width, _ = images.shape
  share_key, partner_key, row_key, column_key = jax.random.split(key, 4)
  side = jnp.sqrt(1 - _share(share_key, alpha))
  rows = _interval(row_key, side, height)
  columns = _interval(column_key, side, width)
  inside = rows[:, np.newaxis] & columns[np.newaxis, :]
  partners = jax.random.permutation(partner_key, size)
  pasted = jnp.where(
    inside[np.newaxis, :, :, np.newaxis],
    indexing.take(images, partners),
    images,
  )
  kept = 1 - jnp.count_nonzero(inside).astype(jnp.float32) / (height * width)
  return pasted, _blend(targets, partners, kept)


def smooth(targets: types.Array, epsilon: types.Scalar) -> types.Array:
  """Smooths labels: blends every target with the uniform distribution.

  Returns ``(1 - epsilon) t + epsilon / classes`` (Szegedy et al.,
  arXiv:1512.00567, section 7).

  Args:
    targets: floating [N, classes], probabilities.
    epsilon: in [0, 1); may be traced.

  Returns:
    [N, classes].

  Raises:
    BadInput: for ``epsilon`` outside [0, 1).
  """
  types.check_fraction('epsilon', epsilon)
  return (1 - epsilon) * targets + epsilon / targets.shape[-1]


def _share(key: types.Array, alpha: types.Scalar) -> types.Array:
  """Draws the share lambda from Beta(alpha, alpha)."""
  # The share is G / (G + G') for two gamma variables, drawn by one sampler.
  # jax.random.beta has two samplers, and they are what takes long to compile.
  logs = jax.random.loggamma(key, alpha, (2,), jnp.float32)
  return jax.nn.sigmoid(logs[0] - logs[1])


def _interval(key: types.Array, share: types.Array, length: int) -> types.Array:
  """Returns the mask, bool [length], of a clipped interval at a random centre."""
  extent = jnp.floor(share * length).astype(jnp.int32)
  start = jax.random.randint(key, (), 0, length, jnp.int32) - extent // 2
  positions = jnp.arange(length)
  return (positions >= start) & (positions < start + extent)


def _blend(
  values: types.Array, partners: types.Array, share: types.Array
) -> types.Array:
  """Returns ``share`` times each value plus ``1 - share`` times its partner."""
  share = share.astype(values.dtype)
  return share * values + (1 - share) * indexing.take(values, partners)


def _check(images: types.Array, targets: types.Array) -> None:
  """Raises unless images are [N, H, W, C] and targets fit them."""
  indexing.check_images(images)
  if (
    targets.ndim != 2
    or targets.shape[0] != images.shape[0]
    or not jnp.issubdtype(targets.dtype, jnp.floating)
  ):
    raise types.BadInput(
      'targets must be probabilities, floating [N, classes]; got '
      f'{targets.dtype} of shape {targets.shape} for images of shape '
      f'{images.shape}.'
    )
