"""Random augmentations of a batch of images, for use inside ``jit``.

Each is a pure function of a key and a batch, has static shapes, and works under
``jit`` and ``vmap``, also over keys. Images keep their units, usually pixel values
of uint8; :func:`.normalize` is applied last, in training and in evaluation alike.
Normalisation is affine and blends are convex combinations, so the two commute. The
border around a cropped image is black unless ``fill`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import functools
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.data import blends
from bitjax.data import indexing

__all__ = [
  'AUGMENTATIONS',
  'Augmentation',
  'AugmentationName',
  'chain',
  'random_crop',
  'random_flip',
  'standard',
]

# (key, images [N, H, W, C], targets [N, classes]) -> (images, targets).
Augmentation: TypeAlias = Callable[
  [types.Array, types.Array, types.Array], tuple[types.Array, types.Array]
]

AugmentationName: TypeAlias = Literal['crop', 'flip', 'mixup', 'cutmix']

AUGMENTATIONS: tuple[str, ...] = get_args(AugmentationName)


def chain(*augmentations: Augmentation) -> Augmentation:
  """Returns one augmentation that applies several in turn.

  Each of them gets its own key. An empty chain changes nothing.
  """

  def apply(key, images, targets):
    keys = jax.random.split(key, max(len(augmentations), 1))
    for i, augmentation in enumerate(augmentations):
      images, targets = augmentation(keys[i], images, targets)
    return images, targets

  return apply


def standard(
  names: Iterable[str],
  *,
  pad: int = 4,
  fill: types.Array | float = 0,
  shared: bool = False,
  mixup_alpha: types.Scalar = 1.0,
  cutmix_alpha: types.Scalar = 1.0,
) -> Augmentation:
  """Returns the chain of the named augmentations, in the order of their names.

  Args:
    names: some of ``AUGMENTATIONS``; at most one of mixup and cutmix.
    pad: the ``pad`` of :func:`random_crop`.
    fill: the ``fill`` of :func:`random_crop`, checked once images are known.
    shared: the ``shared`` of :func:`random_crop`.
    mixup_alpha: the ``alpha`` of :func:`.mixup`.
    cutmix_alpha: the ``alpha`` of :func:`.cutmix`.

  Raises:
    BadInput: for an unknown or repeated name, for mixup together with cutmix
      (a blend of blends, which no paper means; :func:`chain` allows it), or for
      a parameter of a named augmentation that is out of range.
  """
  names = tuple(names)
  for name in names:
    types.check_choice('augmentation', name, AUGMENTATIONS)
  if len(set(names)) < len(names) or {'mixup', 'cutmix'} <= set(names):
    raise types.BadInput(
      'Name each augmentation once, and one of mixup and cutmix at most; got '
      f'{", ".join(names)}.'
    )
  crop = functools.partial(random_crop, pad=pad, fill=fill, shared=shared)
  parts: dict[str, Augmentation] = {
    'crop': lambda key, images, t: (crop(key, images), t),
    'flip': lambda key, images, t: (random_flip(key, images), t),
    'mixup': functools.partial(blends.mixup, alpha=mixup_alpha),
    'cutmix': functools.partial(blends.cutmix, alpha=cutmix_alpha),
  }
  if 'crop' in names:
    types.check_integer('pad', pad, 0)
    types.check_finite('fill', fill, arrays=True)
  for name, alpha in (('mixup', mixup_alpha), ('cutmix', cutmix_alpha)):
    if name in names:
      types.check_positive(f'{name}_alpha', alpha, finite=True)
  return chain(*(parts[name] for name in names))


def random_crop(
  key: types.Array,
  images: types.Array,
  pad: int = 4,
  *,
  fill: types.Array | float = 0,
  shared: bool = False,
) -> types.Array:
  """Pads every image with a border and crops a random window of its old size.

  Args:
    key: typed key.
    images: [N, H, W, C], of any type.
    pad: width of the border in pixels; every image draws its own offset,
      uniform on ``{0, ..., 2 pad}^2``.
    fill: value of the border's pixels, in the units of the images: a number, or
      one for each channel [C]; rounded if the images are integers.
    shared: whether all images of the batch share one offset.

  Returns:
    [N, H, W, C] of the same type.

  Raises:
    BadInput: for a negative ``pad``, images that are not [N, H, W, C], or a
      ``fill`` of another shape or outside the range of the images' integer type.
  """
  indexing.check_images(images)
  types.check_integer('pad', pad, 0)
  types.check_finite('fill', fill, arrays=True)
  if jnp.shape(fill) not in ((), images.shape[-1:]):
    raise types.BadInput(
      f'fill must be a number or have shape {images.shape[-1:]}, one number for '
      f'each channel; got {jnp.shape(fill)}.'
    )
  if jnp.issubdtype(images.dtype, jnp.integer):
    info = jnp.iinfo(images.dtype)
    types.check_range('fill', fill, info.min, info.max, arrays=True)
    fill = jnp.round(jnp.asarray(fill))
  n = images.shape[0]
  shape = (1 if shared else n, 2)
  starts = jax.random.randint(key, shape, 0, 2 * pad + 1, jnp.int32)
  starts = jnp.broadcast_to(starts, (n, 2))
  return indexing.crop(images, starts, pad, fill)


def random_flip(key: types.Array, images: types.Array) -> types.Array:
  """Mirrors every image, left to right, with probability 1/2.

  Args:
    key: typed key.
    images: [N, H, W, C], of any type.

  Returns:
    [N, H, W, C] of the same type.

  Raises:
    BadInput: for images that are not [N, H, W, C].
  """
  indexing.check_images(images)
  flipped = jax.random.bernoulli(
    key, jnp.float32(0.5), (images.shape[0], 1, 1, 1)
  )
  return jnp.where(flipped, images[:, :, ::-1], images)
