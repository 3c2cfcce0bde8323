"""What trained networks reach, for findings: finished numbers, without what diverged.

Nothing that computes numbers imports this, so that verdicts are no part of their code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import divergence
from bitjax.studies.recipes import answers

if TYPE_CHECKING:
  import xarray

__all__ = ['tested']


def tested(results: xarray.Dataset) -> xarray.Dataset:
  """Returns what the last weights reach, NaN for networks that diverged.

  Args:
    results: of `tuned`, with what `answers.right` needs and the ``validation_loss`` by epoch.

  Returns:
    The last epoch, and ``right``, 100 for each test example that is guessed correctly
    and 0 for others, in points, with a last axis ``test_example``.
  """
  last = results.isel(epoch=-1, drop=True)
  last = last.assign(right=100 * answers.right(results)).drop_vars('test_right')
  return divergence.without(last, ['validation_loss', 'test_accuracy'])
