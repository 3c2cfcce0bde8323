r"""The optimal signs of a tiny layer, by a mixed-integer linear program.

One binary layer is a classifier, :math:`z = s\, x W` with :math:`W_{ic} = \pm 1`. Two
losses are linear in W but for whole numbers:

.. math:: \text{hinge: } \frac1B \sum_b \max_{c \ne y_b}
    \max(0,\ m + z_{bc} - z_{b y_b}), \qquad
  \text{errors: } \frac1B \sum_b 1[\exists\, c \ne y_b:\ z_{b y_b} - z_{bc} < m].

HiGHS, which scipy brings, solves them by branch and bound, and says how far from the
optimum it may have stopped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bitjax import extras
from bitjax import types

__all__ = ['LOSSES', 'MAX_SIGNS', 'LayerOptimum', 'layer_optimum']

LOSSES = ('hinge', 'errors')
MAX_SIGNS = 40


class LayerOptimum(NamedTuple):
  """The best signs that were found.

  Attributes:
    kernel: signs, float64 [features, classes].
    loss: their mean loss.
    bound: no signs have a lower mean loss than this.
    gap: ``loss - bound``, 0 (to rounding) where the optimum is proved.
    proved: whether the solver ended by itself, and not by the time limit.
  """

  kernel: np.ndarray
  loss: float
  bound: float
  gap: float
  proved: bool


def layer_optimum(
  inputs: Any,
  labels: Any,
  num_classes: int,
  *,
  loss: str = 'hinge',
  scale: float = 1.0,
  margin: float = 1.0,
  most_seconds: float = 60.0,
) -> LayerOptimum:
  """Finds the signs of a binary layer that have the lowest loss of all.

  Args:
    inputs: x, [examples, features], concrete numbers.
    labels: y, the class of each example, [examples], integers in [0, num_classes).
    num_classes: number of classes, >= 2. There are ``features * num_classes`` signs,
      at most 40: branch and bound takes exponentially long.
    loss: ``'hinge'``, or ``'errors'`` for the share of examples whose class does not
      exceed all others by the margin.
    scale: s > 0, of the products.
    margin: m > 0, in the units of the scaled products.
    most_seconds: how long the solver may take; then the best signs so far are
      returned, with the gap.

  Returns:
    A `LayerOptimum`.

  Raises:
    BadInput: without scipy, for too many signs, inputs that are no finite matrix, labels
      out of range, an unknown loss, a number that is not positive, or if no signs were
      found in time.

  Examples:
    >>> from bitjax import searches
    >>> x = [[1.0, 2.0], [-1.0, 1.0], [2.0, -1.0]]
    >>> found = searches.layer_optimum(x, [0, 1, 0], 2, loss='errors')
    >>> print(found.loss, found.proved)
    0.0 True

  References:
    Toro Icarte et al., Training binarized neural networks using MIP and CP, 2019 (the
    approach); Huangfu and Hall, Parallelizing the dual revised simplex method, 2018
    (HiGHS).
  """
  extras.check('searches.layer_optimum', 'scipy')
  types.check_choice('loss', loss, LOSSES)
  num_classes = types.check_integer('num_classes', num_classes, 2)
  for name, number in (
    ('scale', scale),
    ('margin', margin),
    ('most_seconds', most_seconds),
  ):
    types.check_positive(name, number, finite=True)
  x = np.asarray(inputs, np.float64)
  if x.ndim != 2 or not x.size or not np.isfinite(x).all():
    raise types.BadInput(
      'inputs must be finite numbers of shape [examples, features]; got '
      f'{types.shown(x)}.'
    )
  num_signs = x.shape[1] * num_classes
  if num_signs > MAX_SIGNS:
    raise types.BadInput(
      f'A mixed-integer program is given at most {MAX_SIGNS} signs; {x.shape[1]} '
      f'features and {num_classes} classes have {num_signs}.'
    )
  types.check_labels('labels', labels, x.shape[0])
  y = np.asarray(labels)
  if y.min() < 0 or y.max() >= num_classes:
    raise types.BadInput(
      f'labels must be in [0, {num_classes}); got {y.min()} to {y.max()}.'
    )
  return _solve(scale * x, y, num_classes, loss, margin, most_seconds)


def _solve(x, y, num_classes, loss, margin, most_seconds):
  from scipy import optimize
  from scipy import sparse

  examples, features = x.shape
  num_signs = features * num_classes
  # A row for each example b and class c: z_y - z_c, as a function of 2 v - 1 = W.
  pairs = [
    (b, c) for b in range(examples) for c in range(num_classes) if c != y[b]
  ]
  rows = np.zeros((len(pairs), features, num_classes))
  slack = np.zeros((len(pairs), examples))
  for row, (b, c) in enumerate(pairs):
    rows[row, :, y[b]] += x[b]
    rows[row, :, c] -= x[b]
    # With its error counted, or its hinge paid, a row asks for nothing more.
    most = margin + 2 * np.abs(x[b]).sum()
    slack[row, b] = most if loss == 'errors' else 1.0
  rows = rows.reshape(len(pairs), num_signs)
  matrix = sparse.csr_array(np.hstack([2 * rows, slack]))
  whole = np.concatenate(
    [np.ones(num_signs), np.full(examples, float(loss == 'errors'))]
  )
  upper = np.concatenate(
    [
      np.ones(num_signs),
      np.full(examples, 1.0 if loss == 'errors' else np.inf),
    ]
  )
  cost = np.concatenate([np.zeros(num_signs), np.full(examples, 1 / examples)])
  found = optimize.milp(
    cost,
    integrality=whole,
    bounds=optimize.Bounds(0, upper),
    constraints=optimize.LinearConstraint(
      matrix, margin + rows.sum(axis=1), np.inf
    ),
    options={'time_limit': most_seconds, 'mip_rel_gap': 0.0},
  )
  if found.x is None:
    raise types.BadInput(
      f'most_seconds = {most_seconds} were too few to find any signs: '
      f'{found.message}'
    )
  kernel = 2 * np.round(found.x[:num_signs]) - 1
  gaps = margin - rows @ kernel
  worst = np.zeros(examples)
  np.maximum.at(worst, [b for b, _ in pairs], gaps)
  # What HiGHS takes as equal, to 1e-6, is no error.
  each = worst > 1e-6 if loss == 'errors' else worst
  value = float(np.mean(each))
  bound = min(float(found.mip_dual_bound), value)
  return LayerOptimum(
    kernel.reshape(features, num_classes),
    value,
    bound,
    value - bound,
    found.status == 0,
  )
