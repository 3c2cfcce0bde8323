"""Predicts the classes of images by a packed network, from a file of each."""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib

import jax.numpy as jnp
import numpy as np

from bitjax import cli
from bitjax import data
from bitjax import deploy
from bitjax import files
from bitjax import process
from bitjax import types
from bitjax.commands import options as options_lib

__all__ = ['images_for', 'main', 'write']

_USAGE = """bitjax predict FILE IMAGES... [--to=OUT]

Predicts classes, from 0, by the packed network in FILE (see bitjax pack), and prints one in
each line; or writes classes and logits to OUT, NAME.csv or NAME.npz. IMAGES are files of
images: .npy, .npz (one array, or images, x_test or test_images), IDX, gzipped or not, CIFAR's
.bin, PNG or JPEG. A packed training takes bytes, in the units of its data set; floats from 0
to 1 are rounded to multiples of 1/255."""


def images_for(
  network: deploy.Network, paths: Sequence[str | os.PathLike[str]]
) -> np.ndarray:
  """Reads the images of files, in order, as a network takes them.

  Args:
    network: the packed network.
    paths: the files, as `data.read_images` reads them.

  Raises:
    BadInput: for images of another shape, or of numbers that are no pixels.
  """
  parts = [
    _fitted(network, str(path), data.read_images(path)) for path in paths
  ]
  return np.concatenate(parts)


def write(path: str | os.PathLike[str], logits: np.ndarray) -> pathlib.Path:
  """Writes classes and logits, [images, classes], to NAME.csv or NAME.npz.

  Numbers in a CSV file have as many digits as tell float32 numbers apart.
  """
  path = _checked(path)
  classes = logits.argmax(1)
  with files.atomic(path) as aside:
    if path.suffix == '.npz':
      with aside.open('wb') as file:
        np.savez(file, classes=classes, logits=logits)
    else:
      names = [f'logit_{number}' for number in range(logits.shape[1])]
      rows = [
        [str(i), str(c), *map(str, row)]
        for i, (c, row) in enumerate(zip(classes, logits, strict=True))
      ]
      lines = [['image', 'class', *names], *rows]
      aside.write_text('\n'.join(map(','.join, lines)) + '\n')
  return path


def main(argv: Sequence[str]) -> int:
  """Predicts; returns the exit status."""
  if list(argv) in ([], ['--help'], ['-h']):
    return cli.status.usage(_USAGE, argv)
  places, options = options_lib.parse(argv)
  options_lib.check(options, ('to',))
  if len(places) < 2:
    return cli.status.usage(_USAGE, argv)
  to = options.get('to')
  if to is not None:
    _checked(to)
  network = deploy.load(places[0])
  images = images_for(network, places[1:])
  logits = np.asarray(network(jnp.asarray(images)))
  if to is None:
    process.write(''.join(f'{each}\n' for each in logits.argmax(1)))
  else:
    process.write(f'{write(to, logits)}: {len(logits)} images\n')
  return 0


def _checked(path):
  path = files.expand(path)
  if path.suffix not in ('.csv', '.npz'):
    raise types.BadInput(f'--to must be NAME.csv or NAME.npz; got {path}.')
  return path


def _fitted(network, name, images):
  """Returns images of the shape and dtype that a network takes."""
  wanted = network.shape
  if images.shape[1:] != wanted and images.dtype.kind in 'buif':
    for shape in (images.shape[:-1], (*images.shape, 1)):
      # An axis of one channel may be there or not.
      if (
        len(shape) > 1 and shape[1:] == wanted and images.size == np.prod(shape)
      ):
        images = images.reshape(shape)
  if images.shape[1:] != wanted or not len(images):
    expected = ', '.join(map(str, ('images', *wanted)))
    raise types.BadInput(
      f'{name}: the network takes images of shape [{expected}]; found '
      f'{list(images.shape)}.'
    )
  if network.dtype == 'uint8':
    return data.as_bytes(name, images)
  if images.dtype.kind != 'f' or not np.isfinite(images).all():
    raise types.BadInput(
      f'{name}: the network takes finite float32 numbers; found {images.dtype}'
      + ('.' if images.dtype.kind != 'f' else ' that are not.')
    )
  return images.astype(np.float32)
