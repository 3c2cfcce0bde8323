r"""Computes central differences: the exact slope of the loss over a finite step.

.. math:: d_i = \frac{L(w + \epsilon e_i) - L(w - \epsilon e_i)}{2 \epsilon}

For a full-precision kernel this smooths the gradient. For a latent kernel behind a
staircase, whose derivative is zero, it is a gradient all the same: the exact
counterpart of what a straight-through estimator estimates.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.scans import _flips
from bitjax.scans import _flips_moves
from bitjax.scans import _report
from bitjax.scans import _view

__all__ = ['central_difference']


@_report.reports
def central_difference(
  view: _view.LayerView,
  step: types.Scalar,
  *,
  path: str = 'auto',
  chunk: int | None = None,
  report: _report.Report | None = None,
) -> types.Array:
  r"""Returns the central difference of the loss in every weight.

  Both losses are exact. For full-precision kernels they come from `flip_gains`, and
  so they do for binary kernels whose scale does not depend on the weights, where a
  step either crosses the threshold, and is a flip, or changes nothing. All other
  kernels are evaluated by brute force, with two losses for each weight.

  `descend` can use it as a gradient, with ``lambda kernel: (view.loss(kernel),
  central_difference(replace(view, kernel=kernel), step))`` as ``value_and_grad``.

  Args:
    view: the layer.
    step: :math:`\epsilon`, in units of the latent weights.
    path: passed to `flip_gains`; ``'brute_force'`` evaluates both losses of each
      weight.
    chunk: passed to `flip_gains`.
    report: as for `flip_gains`.

  Returns:
    Differences in nats per unit of latent weight, of the kernel's shape.

  Raises:
    BadInput: for a step that is not positive, a path that is unknown or does not
      apply, an empty batch or kernel, or a loss that is concrete and not finite.

  References:
    Li et al., Differentiable spike, NeurIPS 2021 (a finite difference as the
    reference for surrogate gradients).
  """
  types.check_positive('step', step, finite=True)
  _flips.check_options(chunk=chunk)
  _view.check_filled(view)
  types.check_choice('path', path, _flips.PATHS)
  binary = _flips_moves.is_binary(view) and view.coupling == 'none'
  if view.quantizer is None:
    up, down = _flips.flip_gains(
      view, step=step, path=path, chunk=chunk, report=report
    ).gains
  elif binary and path != 'brute_force':
    gains = _flips.flip_gains(view, path=path, chunk=chunk, report=report).gains
    up, down = (
      jnp.where(
        _flips_moves.levels_differ(view, there, view.kernel), gains, 0.0
      )
      for there in (view.kernel + step, view.kernel - step)
    )
  elif path in ('auto', 'brute_force'):
    destinations = jnp.stack([view.kernel + step, view.kernel - step])
    up, down = _flips.brute_force_gains(
      jax.tree_util.Partial(_losses, view),
      {'kernel': view.kernel},
      'kernel',
      destinations,
      chunk=chunk,
      report=report,
    ).gains
  else:
    raise types.BadInput(
      f'path {path!r} does not apply to this view: a step of its weights is not '
      "a move to the neighbouring level; use 'brute_force'."
    )
  return (down - up) / (2 * step)


def _losses(view, params):
  return view.losses(params['kernel'])
