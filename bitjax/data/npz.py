"""Reads a data set of one's own from an ``.npz`` file, as Keras or NumPy writes it.

``np.savez('my.npz', x_train=..., y_train=..., x_test=..., y_test=...)`` writes one.
:mod:`.arrays` says which images and labels can be read. Objects in it would be
pickles, which can run code, and are refused.
"""

from __future__ import annotations

import pathlib

import numpy as np

from bitjax import types
from bitjax.data import arrays
from bitjax.data import reading

__all__ = ['KEYS', 'read', 'read_part']

KEYS = (
  ('x_train', 'y_train', 'x_test', 'y_test'),
  ('train_images', 'train_labels', 'test_images', 'test_labels'),
)


def read(path: pathlib.Path) -> arrays.Parts:
  """Reads both parts; the number of classes is that of the training labels.

  Args:
    path: the file, whose arrays are named as one of `KEYS`; others are not read.

  Raises:
    BadInput: for a file that is missing or damaged, lacks an array, or holds other
      images or labels than can be converted.
  """
  return arrays.convert(_named(path, slice(None)))


def read_part(
  path: pathlib.Path, part: str, num_classes: int
) -> reading.Arrays:
  """Reads one part, and nothing of the other.

  Args:
    path: as for `read`.
    part: ``'train'`` or ``'test'``.
    num_classes: number of classes.

  Raises:
    BadInput: as `read` does.
  """
  chosen = slice(0, 2) if part == 'train' else slice(2, 4)
  return arrays.convert_part(_named(path, chosen), num_classes)


def _named(path: pathlib.Path, chosen: slice) -> list[tuple[str, np.ndarray]]:
  """Returns the chosen arrays of a file in the order of `KEYS`, each with a name."""
  try:
    with path.open('rb') as file:
      archive = np.load(file, allow_pickle=False)
      if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError('a single array')
      names = archive.files
      keys = next((k for k in KEYS if set(k) <= set(names)), None)
      found = [(key, archive[key]) for key in (keys or ())[chosen]]
  except Exception as error:  # A damaged archive can raise nearly anything.
    raise types.BadInput(
      f'{path}: expected an .npz file of plain arrays, none of them objects, that '
      f'can be read; found: {reading.one_line(error)}.'
    ) from error
  if keys is None:
    wanted = ' or '.join(', '.join(k) for k in KEYS)
    raise types.BadInput(
      f'{path}: expected the arrays {wanted}; found '
      f'{", ".join(names) or "none"}.'
    )
  return [(f'{path}, {key}', array) for key, array in found]
