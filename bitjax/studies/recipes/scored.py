"""The loss and accuracy of trained networks on a data set of any size, by one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bitjax import data
from bitjax.studies.recipes import config as config_lib

__all__ = ['Scores', 'reached', 'scored']

_EVALUATED = 500  # Examples of a batch.


class Scores(NamedTuple):
  """What networks reach.

  Attributes:
    loss: mean loss, [seeds].
    accuracy: share of examples guessed correctly, [seeds].
    right: which are, eight to a byte, [seeds, bytes], as `training.outcome` has it.
  """

  loss: np.ndarray
  accuracy: np.ndarray
  right: np.ndarray


def scored(
  evaluate: Callable[..., Any], variables: Any, dataset: data.Dataset
) -> Scores:
  """Evaluates networks batch by batch, so that one program serves all data sets.

  Args:
    evaluate: what `training.evaluator` returned.
    variables: the variables of the networks, with a leading axis of seeds.
    dataset: the examples.
  """
  batches = data.padded_batches(dataset, _EVALUATED)
  rows = [
    evaluate(variables, [part[i : i + 1] for part in batches])
    for i in range(len(batches[0]))
  ]
  shares = batches[2].sum(axis=1) / batches[2].sum()
  loss, accuracy = (
    np.asarray(
      sum(
        share * np.asarray(getattr(row, name))
        for share, row in zip(shares, rows, strict=True)
      )
    )
    for name in ('loss', 'accuracy')
  )
  right = [np.asarray(row.right) for row in rows]
  guessed = np.concatenate([row.reshape(len(row), -1) for row in right], axis=1)
  guessed = guessed[:, : len(dataset.labels)]
  return Scores(loss, accuracy, np.packbits(guessed, axis=1))


def reached(
  evaluate: Callable[..., Any], variables: Any, parts: config_lib.Parts
) -> dict[str, np.ndarray]:
  """Returns what the last weights of networks reach, name -> [seeds, ...].

  Args:
    evaluate: what `training.evaluator` returned.
    variables: the variables of the networks, with a leading axis of seeds.
    parts: the data.

  Returns:
    ``test_accuracy``, ``train_loss``, ``train_accuracy`` (without augmentation),
    ``validation_loss``, and ``test_right``, as `training.outcome` has it.
  """
  test, train, validation = (
    scored(evaluate, variables, part)
    for part in (parts.test, parts.train, parts.validation)
  )
  found = {
    'test_accuracy': test.accuracy,
    'train_loss': train.loss,
    'train_accuracy': train.accuracy,
    'validation_loss': validation.loss,
  }
  kept = {name: np.asarray(v, np.float32) for name, v in found.items()}
  return kept | {'test_right': test.right}
