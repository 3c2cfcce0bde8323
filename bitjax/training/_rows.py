"""Rows of a training's history: what was measured of each network since the last one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax.training import _state
from bitjax.training import _task

__all__ = ['label', 'train_row', 'without_diverged']


def train_row(task: _task.Task, state: _state.TrainState) -> dict[str, Any]:
  """Returns what was measured while training, name -> [seeds]."""
  totals = state.totals
  steps = jnp.maximum(totals.steps, 1)
  mean = totals.accuracy / steps.astype(jnp.float32)
  row: dict[str, Any] = {
    'train_loss': totals.loss / steps.astype(jnp.float32),
    f'train_{task.kind.score}': task.kind.summary(mean),
    'progress': jnp.full(steps.shape, task.progress_at(state.step[0] - 1)),
  }
  for layer, ratio in totals.flip_ratio.items():
    row[f'flip_ratio/{layer}'] = ratio / steps.astype(jnp.float32)
  return row


def without_diverged(
  row: dict[str, Any], state: _state.TrainState
) -> dict[str, Any]:
  """Returns the row with NaN for what was measured of networks that diverged."""
  known = np.asarray(_finite(_state.variables_of(state), state.average))
  known = known & np.isfinite(row['train_loss'])
  return {
    name: np.where(known | (name == 'progress'), np.asarray(value), np.nan)
    for name, value in row.items()
  }


@jax.jit
def _finite(variables, average):
  return _state.finite((variables, average))


def label(
  task: _task.Task, step: int, steps_per_epoch: int, row: dict[str, Any]
) -> str:
  """Returns epoch, mean loss and mean score in words, of what did not diverge."""
  parts = [f'epoch {step / steps_per_epoch:.3g}']
  known = np.isfinite(row['train_loss'])
  if not known.all():
    parts.append(f'{known.size - known.sum()} of {known.size} diverged')
  if known.any():
    parts.append(f'loss {row["train_loss"][known].mean():.3f}')
    score = row.get(f'validation_{task.kind.score}')
    if score is not None:
      parts.append(f'validation {task.kind.shown(score[known].mean())}')
  return ', '.join(parts)
