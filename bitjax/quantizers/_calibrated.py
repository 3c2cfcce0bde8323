r"""Quantizers whose unit is a scale of the data: grids with a step from max |w|."""

from __future__ import annotations

from bitjax.quantizers import _attach
from bitjax.quantizers import _rescaled
from bitjax.quantizers import _scaling

__all__ = ['calibrated']


def calibrated(
  quantize: _attach.Quantize, scaling: _scaling.Scaling
) -> _attach.Quantize:
  r"""Quantizes weights in units of a scale that is computed from them.

  .. math:: y = \alpha(w) \, q(u), \quad u = \frac{w}{\alpha(w)}, \qquad
    \bar w = q'(\bar y) + \frac{\partial \alpha}{\partial w}
    \sum \left( q(u) \, \bar y - u \, q'(\bar y) \right),

  where :math:`q'(\bar y)` is what the estimator passes at u, and the second term is
  absent if the scaling is detached. With a grid on [-1, 1] and `max_abs`, the step
  comes from the weights, per unit or per tensor, and no kernel is rounded to 0::

    four_bits = attach(uniform(4, narrow=True, step='unit'), identity())
    per_channel = calibrated(four_bits, max_abs())
    per_tensor = calibrated(four_bits, max_abs('tensor'))

  Estimators see u, so `window` of half-width 1 passes every gradient. A scale couples
  the weights that share it; `freeze_scale` holds it constant for exact scans.

  Args:
    quantize: q, a quantizer in units of the scale.
    scaling: alpha, from a kernel [..., units] to a scale, [units] or []. Where the
      scale is 0 or subnormal, it is 1.

  Returns:
    A quantizer. It needs a key if ``quantize`` does. An infinite or NaN weight makes
    all weights that share its scale NaN. Of activations, `max_abs` is the maximum
    over the batch, whose examples it couples.

  Raises:
    BadInput: for a ``quantize`` or a ``scaling`` that cannot be called with an array,
      or a ``quantize`` that has memory: its state would be in other units.

  References:
    Jacob et al., Quantization and training of neural networks for efficient
    integer-arithmetic-only inference, 2018, section 3, weights
    (https://arxiv.org/abs/1712.05877).
  """
  return _rescaled.rescaled(quantize, scaling, relative=True)
