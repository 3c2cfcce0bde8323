r"""Finds quantized layers that begin silent: whose output no longer depends on anything.

A grid whose step is large for the weights rounds all of them to 0, and the sign of a
ReLU's output is +1 everywhere. Nothing fails: gradients are zero, and accuracy stays at
chance. So every quantized layer is looked at once, when it is initialised or its
checkpoint is completed:

=========  ==========================================================
what       is one value throughout, while
=========  ==========================================================
kernel     the latent weights differ
inputs     the inputs differ before they are quantized
output     the quantized weights and inputs differ
=========  ==========================================================

Constant inputs, such as zeros or ones for shapes, are nobody's fault. Where few values
could agree by chance, such as the signs of a small kernel, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import contextvars
import inspect
from typing import Any
import warnings

from flax import linen as nn
from flax import traverse_util
from flax.core import axes_scan
import jax
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.nn import _calls

__all__ = [
  'SilentLayerWarning',
  'check',
  'init_quietly',
  'looking',
  'warn_silent',
]

_COLLECTION, _NAME = 'silent', 'found'
_mode = contextvars.ContextVar('mode', default='init')
_MANY = 16  # As many signs do not agree by chance: once in 2^15.

_MESSAGES = (
  'every weight is quantized to the same value, so that no gradient passes; the '
  'step or threshold is large for the weights: take it from them with '
  'quantizers.calibrated(..., max_abs()), learn it with lsq, or make it smaller.',
  'every input is quantized to the same value, though the inputs differ; the sign of '
  'what a ReLU returns is +1 throughout: put hardtanh or nothing before a sign, or '
  'shift it (rsign). Elsewhere the step is large for the inputs.',
  'the output is the same for all examples and units; look at the scaling, the '
  'quantizers and the dtype.',
)


class SilentLayerWarning(UserWarning):
  """A quantized layer computes the same whatever its inputs or its weights are."""


def check(
  module: Any,
  layer: scans.Dense,
  x: types.Array | None = None,
  x_q: types.Array | None = None,
  z: types.Array | None = None,
) -> None:
  """Warns of a silent layer, once, if the model is being initialised.

  Of the layers of an `MLP`, which applies stages, only the kernels are looked at.
  ``apply`` is not looked at, and nothing is computed for shapes alone
  (``jax.eval_shape``).

  In a jitted or vmapped initialisation the host is called back at each run, and warns
  the first time for each layer and program; `init_quietly` does without.

  Args:
    module: a layer with the attributes of `QuantDense`.
    layer: its bound kernel and quantizer.
    x: its inputs; None if only its stage is made.
    x_q: the same, quantized.
    z: its output.
  """
  quantized = layer.quantizer is not None or module.input_quantizer is not None
  mode = _mode.get()
  if not quantized or not (mode == 'look' or module.is_initializing()):
    return
  found = jnp.stack(_flags(module, layer, x, x_q, z))
  if mode == 'quiet':
    module.sow(
      _COLLECTION,
      _NAME,
      found,
      init_fn=lambda: jnp.zeros_like(found),
      reduce_fn=jnp.logical_or,
    )
    return
  name = '/'.join(module.path)
  if isinstance(found, jax.core.Tracer):
    if mode == 'init' and not _in_trial_of_scan():
      jax.debug.callback(_Once(name), found)
  elif found.is_fully_addressable:
    _warn(name, jax.device_get(found))


def init_quietly(
  model: nn.Module, rngs: Any, *args: Any, **kwargs: Any
) -> tuple[types.PyTree, dict[str, types.Array]]:
  """Initialises a model and returns which layers are silent, without a warning.

  It is for jitted initialisations whose program is to be kept or exported, which a
  callback prevents: return both, and give the second to `warn_silent`.

  Args:
    model: any linen model.
    rngs: as for ``model.init``.
    *args: inputs of the model.
    **kwargs: keyword arguments of ``model.init``.

  Returns:
    The variables, and for each quantized layer what of it is constant: bools, [3],
    for its kernel, inputs and output.
  """
  with _in_mode('quiet'):
    # Programs that ``nn.jit`` kept would warn, and return nothing.
    given: dict[str, Any] = {'mutable': _calls.mutable_but('intermediates')}
    given |= _calls.call_options(model, **kwargs)
    variables: Any = dict(model.init(rngs, *args, **given))
  flat: dict[Any, Any] = traverse_util.flatten_dict(
    variables.pop(_COLLECTION, {})
  )
  return variables, {'/'.join(path[:-1]): leaf for path, leaf in flat.items()}


def warn_silent(found: Mapping[str, types.Array]) -> None:
  """Warns of the layers that `init_quietly` found silent, if any.

  Args:
    found: bools by layer, [..., 3]; leading axes are those of a ``vmap``. While a
      function is traced they have no values, and nothing is said.
  """
  for name, flags in found.items():
    if not isinstance(flags, jax.core.Tracer):
      _warn(name, jax.device_get(flags))


def looking() -> contextlib.AbstractContextManager[None]:
  """Looks at the layers that are applied inside the context, but not in a trace."""
  return _in_mode('look')


@contextlib.contextmanager
def _in_mode(mode: str) -> Iterator[None]:
  token = _mode.set(mode)
  try:
    yield
  finally:
    _mode.reset(token)


def _in_trial_of_scan() -> bool:
  """Whether ``linen.scan`` traces its body for the first of two times.

  That trace only looks for values that do not depend on the loop. Newer flax refuses a
  callback there, which JAX cannot drop; what is computed comes from the second.
  """
  frame = inspect.currentframe()
  while frame is not None:
    if frame.f_globals.get('__name__') == axes_scan.__name__ and (
      frame.f_locals.get('init_mode')
    ):
      return True
    frame = frame.f_back
  return False


class _Once:
  """Called back by a compiled program: warns of its layer the first time."""

  def __init__(self, name):
    self._name, self._said = name, False

  def __call__(self, flags):
    if not self._said and np.any(flags):
      self._said = True
      _warn(self._name, flags)


def _warn(name, flags):
  flags = np.reshape(flags, (-1, len(_MESSAGES)))
  # The first says it: what follows from it needs no line of its own.
  for index in np.flatnonzero(np.any(flags, axis=0))[:1]:
    text = f'{name or "the model"}: {_MESSAGES[index]}'
    warnings.warn(text, SilentLayerWarning, stacklevel=2)


def _flags(module, layer, x, x_q, z):
  never = jnp.zeros((), bool)
  kernel = inputs = output = never
  # Random levels are not silent, and their key is for a single draw.
  random = quantizers.is_random(module.kernel_quantizer)
  weights = layer.kernel if random else layer.quantized
  if layer.quantizer is not None:
    kernel = _constant(weights) & ~_constant(layer.kernel)
    if weights.size < _MANY:
      kernel &= _zero(weights)
  if x is not None and module.input_quantizer is not None and x.size >= _MANY:
    inputs = _constant(x_q) & ~_constant(x)
    if (
      x.shape[-1] < _MANY
    ):  # Few units, whose signs do not depend on the example.
      least = jnp.min(x)
      inputs &= (least == 0) | ((least > 0) & _zero(x_q))
  if z is not None and z.size >= _MANY and z.shape[-1] > 1:
    output = _constant(z) & ~_constant(x_q) & ~_constant(weights)
  return kernel, inputs, output


def _constant(x):
  if x.size < 2:
    return jnp.zeros((), bool)
  return jnp.min(x) == jnp.max(x)


def _zero(x):
  return jnp.all(x == 0)
