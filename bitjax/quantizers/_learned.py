r"""Quantizers with parameters of their own, which are learned with the weights.

A `Quantizer` is two pure functions, ``init(key, x) -> qparams`` and ``apply(qparams,
x, *, progress=1.0, key=None) -> x_q``, and a number of bits. Only its roundings and
signs have an estimator attached; all other gradients come from automatic
differentiation, so that they are right for the parameters as well. Parameters are
float32 or wider, whatever the dtype of ``x``. Those that must be positive or in a range
stay so by reflection (`_domains`), whatever an optimiser stores.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables
from bitjax.quantizers import _channels
from bitjax.quantizers import _staircases
from bitjax.quantizers import _written

__all__ = ['Quantizer', 'bind', 'from_rule', 'static']


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantizer:
  """A quantizer with learned parameters.

  Attributes:
    init: ``(key, x) -> qparams``, a dict of arrays; the key may be None if the
      initialisation is not random.
    apply: ``(qparams, x, *, progress=1.0, key=None) -> x_q``; differentiable in
      ``qparams`` and ``x``.
    bits: the number of bits of its output; None for full precision.
    levels: ``(qparams) -> staircase``, its forward pass as an elementwise
      staircase, which exact scans can ask for its levels; None if it offers none.
    effective: ``(qparams) -> qparams``, the parameters that ``apply`` computes with.
      They are the stored ones, and where an optimiser has left a parameter's
      domain, the stored one reflected at its boundary: a step of -0.1 acts as 0.1.
      None stands for the stored ones.
  """

  init: Callable[[types.Array | None, types.Array], dict[str, types.Array]]
  apply: Callable[..., types.Array]
  bits: int | None = dataclasses.field(metadata={'static': True})
  levels: Callable[[dict[str, types.Array]], Any] | None = None
  effective: (
    Callable[[dict[str, types.Array]], dict[str, types.Array]] | None
  ) = None

  def __repr__(self) -> str:
    apply: Any = self.apply
    if getattr(apply, 'func', None) is _apply:
      return repr(apply.args[0])
    return _written.call(Quantizer, **vars(self))


_T = TypeVar('_T')


@dataclass_transform(frozen_default=True)
def static(cls: type[_T]) -> type[_T]:
  """Turns a class into a frozen dataclass that is a pytree without leaves."""
  return jax.tree_util.register_static(dataclasses.dataclass(frozen=True)(cls))


def from_rule(rule: Any, bits: int | None) -> Quantizer:
  """Returns a `Quantizer` from a pytree with methods ``init`` and ``apply``.

  Two methods are optional: ``levels``, and ``effective``, which returns the parameters
  that have a domain, inside it. The others then get parameters inside their domains.
  Quantizers of equal rules have equal tree structures, so that they share compiled
  code.
  """
  partial = jax.tree_util.Partial
  levels = partial(_levels, rule) if hasattr(rule, 'levels') else None
  return Quantizer(
    partial(_init, rule),
    partial(_apply, rule),
    bits if bits is None else int(bits),
    levels,
    partial(_effective, rule),
  )


def _init(rule, key, x):
  del key  # No rule of this package has a random initialisation.
  x = _channels.check_floating(x)
  types.check_finite(
    'x, from which parameters are initialised,', x, arrays=True
  )
  return rule.init(x)


def _apply(rule, qparams, x, *, progress=1.0, key=None):
  del key
  types.check_range('progress', progress, 0.0, 1.0)
  x = _channels.check_floating(x)
  qparams = _effective(rule, qparams)
  return rule.apply(qparams, x, progress).astype(x.dtype)


def _levels(rule, qparams):
  return rule.levels(_effective(rule, qparams))


def _effective(rule, qparams):
  inside = getattr(rule, 'effective', None)
  return dict(qparams) if inside is None else dict(qparams) | inside(qparams)


def bind(
  quantizer: Quantizer, qparams: dict[str, types.Array]
) -> _attach.Quantize:
  """Returns a learned quantizer with its parameters filled in.

  Args:
    quantizer: the quantizer.
    qparams: its parameters; gradients flow to them.

  Returns:
    ``quantize(x, *, progress=1.0, key=None) -> x_q``, a callable pytree.

  Raises:
    BadInput: if ``quantizer`` is not a `Quantizer`.
  """
  if not isinstance(quantizer, Quantizer):
    raise types.BadInput(
      f'quantizer must be a Quantizer(init, apply, bits); got {quantizer!r}.'
    )
  init = _callables.as_pytree('init', quantizer.init, ('key', 'x'))
  apply = _callables.as_pytree('apply', quantizer.apply, ('qparams', 'x'))
  return _Bound(dataclasses.replace(quantizer, init=init, apply=apply), qparams)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Bound:
  quantizer: Quantizer
  qparams: dict[str, types.Array]

  def __call__(self, x, *, progress=1.0, key=None):
    def apply(x):
      return self.quantizer.apply(self.qparams, x, progress=progress, key=key)

    observer = _attach.observer()
    if observer is None or not _staircases.is_sign(self):
      return apply(x)
    return observer(self, progress, x, apply)

  @property
  def staircase(self):
    levels = self.quantizer.levels
    return None if levels is None else levels(self.qparams)

  @property
  def momentum(self):
    # Of a running spread; see `relative`.
    return getattr(self.quantizer.apply, 'momentum', None)

  @property
  def spread(self):
    return getattr(self.quantizer.apply, 'spread', None)

  def with_spread(self, spread):
    """Returns this quantizer with a running spread filled in."""
    apply: Any = self.quantizer.apply
    quantizer = dataclasses.replace(
      self.quantizer, apply=apply.with_spread(spread)
    )
    return dataclasses.replace(self, quantizer=quantizer)

  def __repr__(self):
    return _written.call(bind, **vars(self))
