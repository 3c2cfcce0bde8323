r"""Gradient estimators: what the backward pass puts in place of the derivative.

An estimator is a callable pytree ``(g, x, x_q, progress) -> x_bar``; ``g`` is the
cotangent of ``x_q``. Most are ``g`` times a *pseudo-derivative* of ``x``. Its
integral, the total gradient mass, is part of an estimator's character: a narrower
window also passes less, unless its gain makes up for it.
"""

from __future__ import annotations

import jax.numpy as jnp

from bitjax import tree
from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _written

__all__ = ['clip', 'clip_quantile', 'identity', 'window']


def identity() -> _attach.Estimator:
  r"""Passes the gradient unchanged: the plain straight-through estimator.

  .. math:: \bar x = g

  Returns:
    An estimator that ignores ``x``, even where it is infinite or NaN.

  References:
    Bengio et al., 2013, the straight-through estimator
    (https://arxiv.org/abs/1308.3432).
  """
  return _written.rule(identity, _identity)


def _identity(g, x, x_q, progress):
  del x, x_q, progress
  return g


def window(
  half_width: types.Scalar = 1.0,
  gain: types.Scalar = 1.0,
  *,
  inclusive: bool = True,
) -> _attach.Estimator:
  r"""Passes the gradient where ``|x| <= half_width``.

  .. math:: \bar x = a \, g \, 1[|x| \le c]

  Its gradient mass is ``2 a c``; ``gain = 1 / half_width`` keeps that of the
  window of half-width 1.

  Args:
    half_width: c > 0, in the units of ``x``.
    gain: a, the factor on gradients that pass.
    inclusive: whether gradients pass at the edges, as in larq and brevitas; some
      code of XNOR-Net has ``|x| < half_width``.

  Returns:
    An estimator. An infinite or NaN ``x`` gets a gradient of 0.

  Raises:
    BadInput: if a concrete ``half_width`` is not positive, or ``gain`` not finite.

  References:
    Courbariaux et al., Binarized neural networks, 2016, eq. 4
    (https://arxiv.org/abs/1602.02830).
  """
  types.check_positive('half_width', half_width)
  types.check_finite('gain', gain)
  rule = _window if inclusive else _open_window
  return _written.rule(
    window, rule, half_width, gain, inclusive=bool(inclusive)
  )


def _window(half_width, gain, g, x, x_q, progress):
  del x_q, progress
  return jnp.where(jnp.abs(x) <= half_width, gain * g, jnp.zeros_like(g))


def _open_window(half_width, gain, g, x, x_q, progress):
  del x_q, progress
  return jnp.where(jnp.abs(x) < half_width, gain * g, jnp.zeros_like(g))


def clip(
  limit: types.Scalar, num_examples: types.Scalar = 1
) -> _attach.Estimator:
  r"""Clips the *value* of the gradient to ``[-limit, limit]``.

  .. math:: \bar x = \frac1B \, \mathrm{clip}(B g, -l, l)
    = \mathrm{clip}(g, -l / B, l / B)

  With the default ``B = 1`` it clips the gradient as it arrives, which is that of
  the *mean* loss. With ``num_examples = B``, the batch size, it clips each example's
  gradient of its *own* loss. This requires that each example has an ``x`` of its
  own, which then receives 1/B times the gradient of that example's loss: activations
  [B, ...], or weights that are copied first,
  ``quantize(jnp.broadcast_to(w, (B, *w.shape)))``. Weights that the examples share
  under a ``vmap`` are quantized once, outside of it, and receive a single sum: for
  these use ``B = 1``, and take the mean of ``vmap(grad(...))`` of the examples' own
  losses.

  Args:
    limit: l > 0, in units of loss per unit of ``x``.
    num_examples: B, the number of examples that the loss is a mean over.

  Returns:
    An estimator. Infinite gradients become ``+-limit / num_examples``; NaN
    stays NaN.

  Raises:
    BadInput: if a concrete ``limit`` or ``num_examples`` is not positive.
  """
  types.check_positive('limit', limit)
  types.check_positive('num_examples', num_examples, finite=True)
  return _written.rule(clip, _clip, limit, num_examples)


def _clip(limit, num_examples, g, x, x_q, progress):
  del x, x_q, progress
  bound = limit / num_examples  # Not clip(B * g) / B: B * g may overflow.
  return jnp.clip(g, -bound, bound)


def clip_quantile(quantile: types.Scalar = 0.99) -> _attach.Estimator:
  r"""Clips the value of the gradient to a quantile of its own magnitudes.

  .. math:: \bar x = \mathrm{clip}(g, -l, l), \qquad
    l = \text{the } q \text{-quantile of } |g| \text{ over the whole tensor}

  The limit is one of the magnitudes: the smallest with at least a share q of the
  others at or below it. Under ``vmap`` the tensor is that of one lane. The magnitudes
  are sorted, so a tensor that is sharded over an explicit mesh axis must be
  replicated first.

  Args:
    quantile: q in [0, 1]; 1 clips nothing, whatever the size. In a tensor of more than
      2^24 entries, q is met to float32's resolution.

  Returns:
    An estimator. NaN gradients stay NaN and are left out of the quantile. Infinite
    ones become the limit, which is itself infinite only if more than a share 1 - q
    of the gradients is infinite.

  Raises:
    BadInput: if a concrete ``quantile`` is outside [0, 1].
  """
  types.check_range('quantile', quantile, 0, 1)
  return _written.rule(clip_quantile, _clip_quantile, quantile)


def _clip_quantile(quantile, g, x, x_q, progress):
  del x, x_q, progress
  if not g.size:
    return g
  ordered = jnp.sort(jnp.abs(types.widened(g)).reshape(-1))  # NaN comes last.
  last = jnp.maximum(tree.count(~jnp.isnan(ordered)) - 1, 0)
  limit = ordered[_rank(quantile, last, g.size)].astype(g.dtype)
  return jnp.clip(g, -limit, limit)


def _rank(quantile, last, size):
  """Returns the smallest rank in 0, ..., last with a share of them at or below it."""
  number = last.astype(jnp.float32)
  low = jnp.ceil(quantile * number).astype(jnp.int32)
  if size <= 2**24:
    return low
  # Beyond the integers of float32, count from the nearer end.
  high = last - jnp.floor((1 - quantile) * number).astype(jnp.int32)
  return jnp.where(quantile < 0.5, low, high)
