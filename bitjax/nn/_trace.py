"""Traces a model to find what each of its layers computes.

Nothing is computed: the model is traced for shapes. Every method of every module
is intercepted and given a name scope of its own, so that each matrix product,
convolution and shortcut of the traced program names the layer that it belongs to.
"""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import itertools
import math
import re
from typing import Any

from flax import linen as nn
import jax
from jax.extend import core
import jax.numpy as jnp

from bitjax import scans
from bitjax import types
from bitjax.nn import _bits
from bitjax.nn import _calls

__all__ = ['Call', 'trace']

_Path = tuple[str, ...]
_SCOPE = re.compile(r'layer<(.*?)>')
_SEPARATOR = '::'
_Origins = frozenset[int]
_NONE: _Origins = frozenset()
_SUMS = ('add', 'add_any')


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
    features: values that its products read, but for weights, of all examples.
    shortcuts: values of shortcuts that it adds, by the bits of their dtype, of all
      examples.
  """

  kind: str
  kernel_quantizer: Any
  output_shape: tuple[int, ...] | None = None
  input_bits: int | None = None
  float_bits: int = 32
  macs: int = 0
  features: int = 0
  shortcuts: Mapping[int, int] = dataclasses.field(default_factory=dict)


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
  sizes = [len(jax.tree.leaves(tree)) for tree in (variables, key, inputs)]
  walk = _Walk(itertools.count(1))
  origins = [_NONE] * sum(sizes[:2]) + [frozenset({0})] * sizes[2]
  walk.run(jaxpr.jaxpr, origins, None, 1)
  for scope in (*walk.macs, *walk.shortcuts):
    call = recorder.calls[tuple(scope.split(_SEPARATOR)) if scope else ()]
    call.macs = walk.macs[scope]
    call.features = walk.features[scope]
    call.shortcuts = dict(walk.shortcuts[scope])
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


class _Walk:
  """Counts products and shortcuts of a traced program, by scope.

  Each value has *origins*: the products, shortcut sums and inputs that it is computed from
  without another of them in between. Weights, and what is computed from them alone, have
  none. A sum of two values of different origins is where a shortcut ends.

  A loop of unknown length counts as one iteration.

  Args:
    sources: numbers for new origins.

  Attributes:
    macs: multiply-accumulate operations.
    features: values that products read, but for weights.
    shortcuts: values of shortcuts that are added, by the bits of their dtype.
  """

  def __init__(self, sources: Iterator[int]):
    self.macs: Counter = Counter()
    self.features: Counter = Counter()
    self.shortcuts: dict[str, Counter] = defaultdict(Counter)
    self._sources = sources

  def run(
    self,
    jaxpr: Any,
    origins: Sequence[_Origins],
    scope: str | None,
    times: int,
  ) -> list[_Origins]:
    """Counts a program, and returns the origins of its outputs."""
    known = dict(zip(jaxpr.invars, origins, strict=True))

    def of(atom: Any) -> _Origins:
      return known.get(atom, _NONE) if isinstance(atom, core.Var) else _NONE

    for eqn in jaxpr.eqns:
      # The name stack of a nested program starts at that program, not at the model.
      found = _SCOPE.findall(str(eqn.source_info.name_stack))
      here = found[-1] if found else scope
      given = [of(atom) for atom in eqn.invars]
      made = self._equation(eqn, given, here, times)
      known.update(zip(eqn.outvars, made, strict=True))
    return [of(atom) for atom in jaxpr.outvars]

  def _equation(self, eqn, given, scope, times):
    name, here = eqn.primitive.name, scope or ''
    every = frozenset().union(*given)
    if name in _COSTS:
      self.macs[here] += times * _COSTS[name](eqn)
      for atom, origins in zip(eqn.invars, given, strict=True):
        if origins:
          self.features[here] += times * math.prod(atom.aval.shape)
      return [self._new(every)] * len(eqn.outvars)
    if name in _SUMS and all(given) and given[0] != given[1]:
      sums = eqn.outvars[0].aval
      older = min((0, 1), key=lambda i: max(given[i]))
      bits = 8 * jnp.dtype(eqn.invars[older].aval.dtype).itemsize
      self.shortcuts[here][bits] += times * math.prod(sums.shape)
      return [self._new(every)]
    if not (programs := list(_nested(eqn.params))):
      return [every] * len(eqn.outvars)
    if name == 'scan':
      return self._scan(eqn, programs[0], given, scope, times)
    if name == 'cond':  # Only one branch runs: count the most expensive.
      branches = [_Walk(self._sources) for _ in programs]
      ends = [
        branch.run(program, given[1:], scope, times)
        for branch, program in zip(branches, programs, strict=True)
      ]
      self._add(max(branches, key=lambda branch: branch.macs.total()))
      return [frozenset().union(*some) for some in zip(*ends, strict=True)]
    made: list[_Origins] = []
    for program in programs:
      aligned = len(program.invars) == len(given)
      inside = given if aligned else [every] * len(program.invars)
      made = self.run(program, inside, scope, times)
    same = len(made) == len(eqn.outvars)
    return made if same else [every] * len(eqn.outvars)

  def _scan(self, eqn, program, given, scope, times):
    """Counts every iteration; what is carried depends on all that went in before."""
    first, count = eqn.params['num_consts'], eqn.params['num_carry']
    made = _Walk(self._sources).run(program, given, scope, 1)
    for index in range(count):
      given[first + index] = given[first + index] or made[index]
    return self.run(program, given, scope, times * eqn.params['length'])

  def _new(self, origins):
    """Returns a new origin, or none for a product of weights alone."""
    return frozenset({next(self._sources)}) if origins else _NONE

  def _add(self, other):
    self.macs.update(other.macs)
    self.features.update(other.features)
    for scope, counts in other.shortcuts.items():
      self.shortcuts[scope].update(counts)


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
