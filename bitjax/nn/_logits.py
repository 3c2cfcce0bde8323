"""Checks that what a model returns are logits, and that labels are among their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bitjax import types

__all__ = ['check', 'check_classes']


def check(outputs: Sequence[Any], examples: int) -> int:
  """Returns the number of classes.

  Args:
    outputs: all arrays that the model returns, or their shapes and dtypes.
    examples: the number of inputs.

  Raises:
    BadInput: unless it is one array, [examples, classes].
  """
  shapes = [tuple(output.shape) for output in outputs]
  if len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] == examples:
    return shapes[0][1]
  raise types.BadInput(
    'A view needs a model that returns logits, one array [examples, classes]; of '
    f'{examples} examples this one returns {", ".join(map(str, shapes)) or "none"}.'
  )


def check_classes(labels: types.Array, classes: int) -> None:
  """Raises `BadInput` for concrete labels that are not in [0, classes)."""
  if isinstance(labels, jax.core.Tracer):
    return
  array = np.asarray(labels)
  wrong = array[(array < 0) | (array >= classes)]
  if wrong.size:
    raise types.BadInput(
      f'labels must be classes of the {classes} logits, 0 to {classes - 1}; got '
      f'{wrong[0]} among {array.size}.'
    )
