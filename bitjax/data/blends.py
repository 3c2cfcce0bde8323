r"""Batches blended with themselves: mixup and cutmix, and softer targets.

Labels are *targets* here, probabilities of classes ``t_i``, for a blend gives an
image two classes. Both draw one share ``lambda ~ Beta(alpha, alpha)`` and one
permutation ``pi`` of the batch, as the papers' own code does.
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
    alpha: > 0, may be traced: small values leave most batches nearly as they
      are, 1 makes all shares alike. The paper takes 1 for CIFAR and 0.2 for
      ImageNet.

  Returns:
    Images (float32 if they were uint8) and targets.

  Raises:
    ValueError: for ``alpha <= 0``, or shapes that do not match.

  References:
    Zhang et al., "mixup: Beyond Empirical Risk Minimization", arXiv:1710.09412,
    equation 1.
  """
  _check(images, targets)
  types.check_positive('alpha', alpha)
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
  r"""Pastes one box of a partner into every image; targets go by its area.

  The box has sides ``sqrt(1 - lambda)`` of the image's (rounded down), a centre
  uniform on its pixels, and is clipped at its edges. With the share of
  pixels kept,

  .. math::
    \lambda' = 1 - \mathrm{area} / (H W), \quad
    t_i' = \lambda' t_i + (1 - \lambda') t_{\pi(i)}.

  Args:
    key: typed key.
    images: [N, H, W, C], of any type.
    targets: floating [N, classes], probabilities.
    alpha: > 0, may be traced; the paper takes 1: all areas alike.

  Returns:
    Images of the same type, and targets.

  Raises:
    ValueError: for ``alpha <= 0``, or shapes that do not match.

  References:
    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers
    with Localizable Features", arXiv:1905.04899, equations 1 and 2.
  """
  _check(images, targets)
  types.check_positive('alpha', alpha)
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
  """Moves a share of every target to the uniform distribution.

  ``(1 - epsilon) t + epsilon / classes``: label smoothing (Szegedy et al.,
  arXiv:1512.00567, section 7).

  Args:
    targets: floating [N, classes], probabilities.
    epsilon: in [0, 1); may be traced.

  Returns:
    [N, classes].

  Raises:
    ValueError: for ``epsilon`` outside [0, 1).
  """
  types.check_fraction('epsilon', epsilon)
  return (1 - epsilon) * targets + epsilon / targets.shape[-1]


def _share(key: types.Array, alpha: types.Scalar) -> types.Array:
  """Draws from Beta(alpha, alpha)."""
  # G / (G + G') of two gamma variables, drawn by one sampler: jax.random.beta
  # has two of them, and they are what takes long to compile.
  logs = jax.random.loggamma(key, alpha, (2,))
  return jax.nn.sigmoid(logs[0] - logs[1])


def _interval(key: types.Array, share: types.Array, length: int) -> types.Array:
  """Returns bool [length]: a clipped interval around a random centre."""
  extent = jnp.floor(share * length).astype(jnp.int32)
  start = jax.random.randint(key, (), 0, length) - extent // 2
  places = jnp.arange(length)
  return (places >= start) & (places < start + extent)


def _blend(
  values: types.Array, partners: types.Array, share: types.Array
) -> types.Array:
  """Returns ``share`` of every value and the rest of its partner's."""
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
