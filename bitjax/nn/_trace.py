"""Traces a model to find what each of its layers computes.

Nothing is computed: the model is traced for shapes. Every method of every module
is intercepted and given a name scope of its own, so that each matrix product and
convolution of the traced program names the layer that it belongs to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
import dataclasses
import functools
import math
import re
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from bitjax import scans
from bitjax import types
from bitjax.nn import _bits
from bitjax.nn import _calls

__all__ = ['Call', 'trace']

_Path = tuple[str, ...]
_SCOPE = re.compile(r'layer<(.*?)>')
_SEPARATOR = '::'


@dataclasses.dataclass
class Call:
  """What the trace found out about a module, or about a stage of an `MLP`.

  Attributes:
    kind: the name of its class.
    kernel_quantizer: the module's field of this name; None without.
    output_shape: shape of its first output, with the axis of examples.
    input_bits: bits of its first input; None if that is floating and was not
      quantized.
    float_bits: bits of its first input's dtype, if that is floating; else 32.
    macs: multiply-accumulate operations for all examples together.
  """

  kind: str
  kernel_quantizer: Any
  output_shape: tuple[int, ...] | None = None
  input_bits: int | None = None
  float_bits: int = 32
  macs: int = 0


def trace(
  model: nn.Module, variables: types.PyTree, inputs: tuple, kwargs: dict
) -> dict[_Path, Call]:
  """Returns a `Call` for the path of each module, in the order of the first calls.

  Args:
    model: any linen model.
    variables: its variables; shapes are enough.
    inputs: the arguments of its call; shapes are enough.
    kwargs: passed to ``model.apply`` as they are.
  """
  recorder = _Recorder()
  key = jax.eval_shape(lambda: jax.random.key(0))

  def apply(variables, key, inputs):
    with nn.intercept_methods(recorder):
      output = model.apply(
        variables,
        *inputs,
        rngs={'params': key},
        mutable=_calls.mutable_but(),
        **kwargs,
      )
    recorder.forget()  # No tracer may outlive the trace.
    return output

  jaxpr = jax.make_jaxpr(apply)(variables, key, inputs)
  for scope, macs in _count(jaxpr.jaxpr, None, 1).items():
    path = tuple(scope.split(_SEPARATOR)) if scope else ()
    recorder.calls[path].macs += macs
  return recorder.calls


class _Recorder:
  """An interceptor that records modules, shapes, and the bits of quantized values."""

  def __init__(self):
    self.calls: dict[_Path, Call] = {}
    # Quantized values and their bits, by id. The entry keeps the value alive, so
    # that no other value can get its id.
    self._quantized: dict[int, tuple[Any, int]] = {}

  def __call__(self, next_fun, args, kwargs, context):
    module, method = context.module, context.method_name
    quantizer = getattr(module, 'kernel_quantizer', None)
    call = self._call(module.path, type(module).__name__, quantizer)
    run = functools.partial(next_fun, *args, **kwargs)
    if method == 'stages':
      with jax.named_scope(_scope(module.path)):
        stages = run()
      return {
        name: functools.partial(self._stage, (*module.path, name), stage)
        for name, stage in stages.items()
      }
    if method != '__call__':
      with jax.named_scope(_scope(module.path)):
        return run()
    quantizer = getattr(module, 'input_quantizer', None)
    output = self._watch(call, module.path, args, run, quantizer)
    activation = getattr(module, 'quantizer', None)
    if activation is not None:
      self._record_bits(output, _bits.quantizer_bits(activation))
    return output

  def _stage(self, path, stage, x):
    """Calls a stage of a network that applies named stages, such as an `MLP`."""
    call = self._call(path, type(stage).__name__, None)
    run = functools.partial(stage, x)
    output = self._watch(call, path, (x,), run, None)
    if isinstance(stage, scans.Activation) and stage.quantizer is not None:
      self._record_bits(output, _bits.quantizer_bits(stage.quantizer))
    return output

  def _call(self, path, kind, kernel_quantizer):
    return self.calls.setdefault(path, Call(kind, kernel_quantizer))

  def _watch(self, call, path, args, run, quantizer):
    arrays = [x for x in jax.tree.leaves(args) if hasattr(x, 'dtype')]
    if quantizer is not None:
      call.input_bits = _bits.quantizer_bits(quantizer)
    elif arrays:
      call.input_bits = self._bits(arrays[0])
    if arrays and jnp.issubdtype(arrays[0].dtype, jnp.floating):
      call.float_bits = jnp.finfo(arrays[0].dtype).bits
    with jax.named_scope(_scope(path)):
      output = run()
    shapes = [x.shape for x in jax.tree.leaves(output) if hasattr(x, 'shape')]
    if shapes and call.output_shape is None:
      call.output_shape = shapes[0]
    return output

  def forget(self) -> None:
    """Drops the quantized values."""
    self._quantized.clear()

  def _record_bits(self, value, bits):
    self._quantized[id(value)] = (value, bits)

  def _bits(self, x):
    if id(x) in self._quantized:
      return self._quantized[id(x)][1]
    return integer_bits(x.dtype)


def integer_bits(dtype: Any) -> int | None:
  """Returns how many bits an integer or bool dtype has; None for other dtypes."""
  if jnp.issubdtype(dtype, jnp.bool_):
    return 1
  if jnp.issubdtype(dtype, jnp.integer):
    return jnp.iinfo(dtype).bits
  return None


def _scope(path: _Path) -> str:
  return f'layer<{_SEPARATOR.join(path)}>'


def _count(jaxpr: Any, scope: str | None, times: int) -> Counter:
  """Counts MACs by scope; a loop of unknown length counts as one iteration."""
  totals: Counter = Counter()
  for eqn in jaxpr.eqns:
    # The name stack of a nested program starts at that program, not at the model.
    found = _SCOPE.findall(str(eqn.source_info.name_stack))
    here = found[-1] if found else scope
    name = eqn.primitive.name
    if name in _COSTS:
      totals[here or ''] += times * _COSTS[name](eqn)
      continue
    repeats = times * (eqn.params['length'] if name == 'scan' else 1)
    counts = [_count(inner, here, repeats) for inner in _nested(eqn.params)]
    if name == 'cond':  # Only one branch runs: count the most expensive.
      counts = [max(counts, key=lambda count: count.total())]
    for count in counts:
      totals.update(count)
  return totals


def _nested(params: dict) -> Iterator[Any]:
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      item = getattr(item, 'jaxpr', item)
      if hasattr(item, 'eqns'):
        yield item


def _product_macs(eqn: Any) -> int:
  (contracting, _), _ = eqn.params['dimension_numbers']
  left = eqn.invars[0].aval.shape
  return math.prod(eqn.outvars[0].aval.shape) * math.prod(
    left[axis] for axis in contracting
  )


def _convolution_macs(eqn: Any) -> int:
  """Counts MACs; padding counts as inputs, zeros of a transposed convolution do not."""
  kernel = eqn.invars[1].aval.shape
  features = kernel[eqn.params['dimension_numbers'].rhs_spec[0]]
  macs = math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // features
  return macs // math.prod(eqn.params['lhs_dilation'])


_COSTS: dict[str, Callable[[Any], int]] = {
  'dot_general': _product_macs,
  'conv_general_dilated': _convolution_macs,
}
