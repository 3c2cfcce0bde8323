r"""Quantizers and staircases whose input or output has a scale of its own.

A scale that is computed from the weights couples them. Held constant, it leaves a
staircase that acts elementwise, and whose levels exact scans can ask for.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.quantizers import _attach
from bitjax.quantizers import _callables
from bitjax.quantizers import _channels
from bitjax.quantizers import _keywords
from bitjax.quantizers import _maths
from bitjax.quantizers import _scaling

__all__ = ['freeze_scale', 'rescaled']


def rescaled(
  quantize: _attach.Quantize, scaling: _scaling.Scaling, *, relative: bool
) -> _attach.Quantize:
  """Returns ``scale * q(x)``, or ``scale * q(x / scale)`` if ``relative``.

  Raises:
    BadInput: for a ``quantize`` or a ``scaling`` that cannot be called with an array,
      or a ``quantize`` that has memory.
  """
  quantize = _keywords.as_quantize('quantize', quantize)
  if _keywords.is_stateful(quantize):
    why, instead = (
      ('would be in units of another scale', 'Give it a step of its own.')
      if relative
      else (
        'would be scaled as well',
        'Let the layer scale its product: scaling= of bitjax.nn.',
      )
    )
    raise types.BadInput(
      f'quantize must not remember, as what is remembered {why}; got '
      f'{quantize!r}. {instead}'
    )
  scaling = _callables.as_pytree('scaling', scaling, ('kernel',))
  return _Rescaled(quantize, scaling, relative)


def freeze_scale(
  quantize: _attach.Quantize | None, x: types.Array
) -> _attach.Quantize | None:
  """Returns a quantizer whose scales are constants, those that it computes from ``x``.

  Args:
    quantize: a quantizer such as those from `calibrated` and `scaled`, within each
      other too, or None; one without such a scale is returned as it is. Mean and
      deviation of a `standardized` quantizer are never constants: only the scales of
      the quantizer inside are.
    x: the array whose scales to keep.

  Returns:
    A quantizer that equals ``quantize`` at ``x``. Its `staircase` acts elementwise
    and offers its levels if the one inside does, so that exact scans can move each
    weight by itself.
  """
  return quantize.frozen(x) if hasattr(quantize, 'frozen') else quantize


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Rescaled:
  quantize: _attach.Quantize
  scaling: _scaling.Scaling
  relative: bool = dataclasses.field(metadata={'static': True})

  def __call__(self, x, *, progress=1.0, key=None):
    inner = lambda x: _keywords.call(self.quantize, x, progress, key=key)
    return _rescale(inner, self.scaling, self.relative, x)

  def frozen(self, x):
    """Returns this quantizer with its scales as constants; see `freeze_scale`."""
    x = _channels.check_floating(x)
    scale = self.scaling(types.widened(x))
    inner = _maths.divide(x, _factor(self.scaling, x)) if self.relative else x
    return dataclasses.replace(
      self,
      quantize=freeze_scale(self.quantize, inner),
      scaling=_scaling.Constant(scale),
    )

  @property
  def staircase(self):
    found = _attach.staircase(self.quantize)
    scaling = self.scaling
    if not isinstance(scaling, _scaling.Constant):
      return None
    if not hasattr(found, 'neighbours'):
      return None
    return _Staircase(found, scaling, self.relative)

  def __repr__(self):
    name = 'calibrated' if self.relative else 'scaled'
    return f'{name}({types.shown(self.quantize)}, {types.shown(self.scaling)})'


def _rescale(inner, scaling, relative, x):
  x = _channels.check_floating(x)
  scale = _factor(scaling, x)
  if relative:
    x_q, scale = inner(_maths.divide(x, scale)), _maths.usable(scale)
  else:
    x_q = inner(x)
  dtype = types.promoted(x_q, scale)
  return (x_q.astype(dtype) * scale.astype(dtype)).astype(x.dtype)


def _factor(scaling, x):
  """Returns the scale of ``x``, at least float32, so that it broadcasts against it."""
  wide = types.widened(x)  # The scale's gradient is a sum over many weights.
  scale = types.widened(scaling(wide))
  return _channels.align('scale', scale, x, -1 if x.ndim else None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Staircase:
  """The staircase of a quantizer whose scale is a constant."""

  inner: Any
  scaling: _scaling.Constant
  relative: bool = dataclasses.field(metadata={'static': True})

  @property
  def num_levels(self) -> int:
    """How many levels there are."""
    return self.inner.num_levels

  @property
  def uniform(self) -> bool:
    """Whether neighbouring levels are equally far apart for all weights."""
    return self.inner.uniform and jnp.ndim(self.scaling.scale) == 0

  def __call__(self, x: types.Array) -> types.Array:
    """Returns the levels of ``x``."""
    return _rescale(self.inner, self.scaling, self.relative, x)

  def neighbours(self, x: types.Array) -> tuple[types.Array, types.Array]:
    """Returns latent values of the next levels up and down; ``x`` if there is none."""
    if not self.relative:
      return self.inner.neighbours(x)
    scale = _factor(self.scaling, x)
    inner = _maths.divide(x, scale)
    up, down = (
      jnp.where(
        there == inner, x, (there * _maths.usable(scale)).astype(x.dtype)
      )
      for there in self.inner.neighbours(inner)
    )
    return up, down
