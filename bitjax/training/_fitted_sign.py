"""A sign whose estimator is a parameter: its width, and of several families which one.

No gradient moves either; `_refit` fits them at intervals of a training.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import quantizers
from bitjax import types
from bitjax.training import _windows

__all__ = ['FAMILY', 'WIDTH', 'fitted_sign']

WIDTH, FAMILY = 'width', 'family'  # Names of the parameters.


def fitted_sign(
  estimator: _windows.Family | Sequence[_windows.Family], width: float = 1.0
) -> quantizers.Quantizer:
  r"""Returns a sign whose estimator's width is a parameter that no gradient moves.

  .. math:: y = \mathrm{sign}(x), \qquad \bar x = E_\sigma(\bar y, x), \qquad
    \bar \sigma = 0

  It is an ``input_quantizer`` of `nn.QuantDense`, `nn.QuantConv`, `nn.ResNet` and `nn.VGG`.
  `fit` chooses the width again and again if it is given a `Refit`; a weight decay that
  decays the parameters of quantizers would shrink it in between.

  Args:
    estimator: makes the estimator E of a width, such as `quantizers.gaussian`; a function
      that returns ``relative(gaussian(c))`` makes one number mean the same in all layers.
      Static: a function at the top of a module, not made anew for each network. Or
      several such families, such as ``[*training.FAMILIES.values()]``, of which one is
      fitted too; the first until then.
    width: the width before it is fitted, > 0, in the units of the estimator.

  Returns:
    A `bitjax.quantizers.Quantizer` with the parameter ``'width'``, [], positive, and of
    several families ``'family'``, [families], 1 for that which is used and else 0. The
    sign of 0 is +1.

  Raises:
    BadInput: for an ``estimator`` that is not callable, or a width that is not positive.
  """
  families = _windows.check_families(estimator)
  types.check_positive('width', width, finite=True)
  return quantizers.Quantizer(
    _Init(float(width), len(families)),
    _Apply(families),
    1,
    _Levels(families),
    None,
  )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Init:
  width: float
  families: int

  def __call__(self, key, x):
    del key
    dtype = types.promoted(jnp.float32, x)
    params = {WIDTH: jnp.asarray(self.width, dtype)}
    if self.families > 1:
      params[FAMILY] = jax.nn.one_hot(0, self.families, dtype=dtype)
    return params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Apply:
  families: tuple[_windows.Family, ...] = dataclasses.field(
    metadata={'static': True}
  )
  spread: dict[str, types.Array] | None = None  # See `quantizers.with_spread`.

  @property
  def momentum(self):
    known = (quantizers.spread_momentum(make(1.0)) for make in self.families)
    return next((momentum for momentum in known if momentum is not None), None)

  def with_spread(self, spread):
    return dataclasses.replace(self, spread=spread)

  def __call__(self, qparams, x, *, progress=1.0, key=None):
    del key
    params = jax.lax.stop_gradient(qparams)
    made: list[Any] = [make(params[WIDTH]) for make in self.families]
    if self.spread is not None:
      made = [quantizers.with_spread(one, self.spread) for one in made]
    estimator = _Chosen(made, params[FAMILY]) if made[1:] else made[0]
    return quantizers.attach(quantizers.sign(), estimator)(x, progress=progress)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Chosen:
  """The estimator of the family whose entry is the largest."""

  estimators: list[quantizers.Estimator]
  family: types.Array

  def __call__(self, g, x, x_q, progress):
    rules = [
      lambda g, *rest, rule=rule: rule(g, *rest).astype(g.dtype)
      for rule in self.estimators
    ]
    return jax.lax.switch(jnp.argmax(self.family), rules, g, x, x_q, progress)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Levels:
  """The forward pass; it also says which estimators the sign may have."""

  families: tuple[_windows.Family, ...]

  def __call__(self, qparams):
    del qparams
    return quantizers.sign()
