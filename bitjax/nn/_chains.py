"""Finds the chain of known stages with which a linen model ends.

The model is traced, and the inputs and outputs of the layers and quantizers that are
known are marked by names (`jax.ad_checkpoint.checkpoint_name`), and so are the variables
that each layer sees. Then the chain is followed back from the logits. Between the output
of a layer and the input of the next one there may be ReLU, and what changes nothing, such
as a dropout that is off. The chain begins behind whatever is not known: a convolution, a
sum of two branches, a tanh, a layer whose weights are not those of the variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import itertools
import operator
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import ad_checkpoint
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax import scans
from bitjax import sums
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _calls
from bitjax.nn import _layers

__all__ = ['Link', 'find', 'knows']

# Primitives that only call the functions that they hold.
_CALLS = ('jit', 'pjit', 'closed_call', 'remat', 'remat2', 'checkpoint')
# Primitives that change neither values nor, here, shapes and dtypes.
_MOVES = ('reshape', 'convert_element_type', 'copy', 'name')
_PREFIX = 'bitjax.nn '  # Of the names of marks, of which no two are equal.
_NUMBERS = itertools.count()


class Link(NamedTuple):
  """A link of the chain: a layer, or a quantizer or ReLU between layers.

  Attributes:
    path: names of the layer and of the modules around it; None for what is no layer.
    stages: what it computes.
  """

  path: tuple[str, ...] | None
  stages: tuple[scans.Stage, ...]


def find(
  model: nn.Module,
  variables: types.PyTree,
  inputs: types.Array,
  kwargs: Mapping[str, Any],
) -> list[Link]:
  """Returns the links of the longest chain that ends with the logits, in order.

  Args:
    model: a linen model, which draws no random numbers.
    variables: its variables.
    inputs: a batch; only its shape and dtype matter.
    kwargs: keywords of the model's call.

  Returns:
    The links; none if the logits do not come from a known layer. Their stages compute
    what the layers do, up to rounding.
  """
  marks = _Marks(kwargs)
  mutable = _calls.mutable_but('params', 'intermediates', _binding.QUANTIZED)

  def logits(variables, inputs):
    output, _ = model.apply(variables, inputs, mutable=mutable, **kwargs)
    return output

  try:
    # Functions under jit would else be traced, and marked, only the first time.
    with (
      jax.disable_jit(),
      nn.intercept_methods(marks.layer),
      quantizers.observed(marks.quantizer),
    ):
      traced = jax.make_jaxpr(logits)(variables, inputs)
  except jax.errors.JAXTypeError:  # It looks at the values of its inputs.
    return []
  given = [_Value('input', {}, (), v.aval) for v in traced.jaxpr.invars]
  held, _ = jax.tree.unflatten(jax.tree.structure((variables, inputs)), given)
  named: dict[str, Any] = {}
  value, *others = _values(traced.jaxpr, given, named)
  if others:  # The model returns more than logits.
    return []
  found: list[Link] = []
  while True:
    name, steps = _back(value)
    if name not in marks.calls:
      return found
    call = marks.calls[name]
    if not call.sees(named, held) or not (stages := call.stages(variables)):
      return found
    found = [Link(call.path, stages), *steps, *found]
    value = named[call.entry]


@dataclasses.dataclass(frozen=True)
class _Value:
  """A value of the traced model: the primitive that computes it, and from what.

  Attributes:
    primitive: name of the primitive.
    params: parameters of the primitive.
    args: values and literals that it takes.
    aval: shape and dtype.
  """

  primitive: str
  params: Mapping[str, Any]
  args: tuple[Any, ...]
  aval: Any


def _values(
  jaxpr: core.Jaxpr, args: Sequence[Any], named: dict[str, Any]
) -> list[Any]:
  """Returns the values of a jaxpr's outputs; fills in what each name was given to."""
  known = dict(zip(jaxpr.invars, args, strict=True))
  known |= {v: _Value('constant', {}, (), v.aval) for v in jaxpr.constvars}

  def read(atom):
    return atom if isinstance(atom, core.Literal) else known[atom]

  for equation in jaxpr.eqns:
    taken = [read(atom) for atom in equation.invars]
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
      body = params['jaxpr' if 'jaxpr' in params else 'call_jaxpr']
      made = _values(getattr(body, 'jaxpr', body), taken, named)
    else:
      made = [
        _Value(name, params, tuple(taken), v.aval) for v in equation.outvars
      ]
    if name == 'name':
      named[params['name']] = taken[0]
    known.update(zip(equation.outvars, made, strict=True))
  return [read(atom) for atom in jaxpr.outvars]


def _back(value: Any) -> tuple[str, list[Link]]:
  """Follows a value back to the mark of a layer; returns its name, and ReLUs passed.

  The name is '' if the value comes from elsewhere.
  """
  steps: list[Link] = []
  while isinstance(value, _Value):
    if value.primitive == 'name' and value.params['name'].startswith(_PREFIX):
      return value.params['name'], steps
    if _is_relu(value):
      steps.insert(0, Link(None, (scans.Activation('relu'),)))
    elif value.primitive not in _MOVES:
      break
    (before,) = value.args
    avals = [(x.aval.shape, x.aval.dtype) for x in (before, value)]
    if avals[0] != avals[1]:
      break
    value = before
  return '', steps


def _is_relu(value):
  """Whether `jax.nn.relu` computes a value: functions that look alike may not in reverse."""
  return (
    value.primitive == 'custom_jvp_call' and _source(value.params) == _relu()
  )


@functools.cache
def _relu():
  x = jax.ShapeDtypeStruct((1,), np.float32)
  (equation,) = jax.make_jaxpr(jax.nn.relu)(x).eqns
  return _source(equation.params)


def _source(params):
  """Returns where the function of a ``custom_jvp`` was written."""
  return params['call_jaxpr'].jaxpr.debug_info.func_src_info


@dataclasses.dataclass(frozen=True)
class _Call:
  """A marked call of a layer or a quantizer.

  Attributes:
    path: names of the layer and of the modules around it; None for a quantizer.
    entry: name of the mark at its input.
    own: names of the marks at the variables that the layer sees.
    stages: returns its stages, given the variables; none if they are not known.
  """

  path: tuple[str, ...] | None
  entry: str
  own: tuple[str, ...]
  stages: Callable[[Any], tuple[scans.Stage, ...]]

  def sees(self, named: Mapping[str, Any], held: Any) -> bool:
    """Whether the variables that it sees are those at its path, and not made of them."""
    wanted = [] if self.path is None else _calls.below(held, self.path)
    found = [named.get(name) for name in self.own]
    leaves = jax.tree.leaves(wanted)
    return len(found) == len(leaves) and all(map(operator.is_, found, leaves))


class _Marks:
  """Marks the calls of what is known while the model is traced.

  Attributes:
    calls: each call, by the name of the mark at its output.
  """

  def __init__(self, kwargs: Mapping[str, Any]):
    self.calls: dict[str, _Call] = {}
    # Of what is traced, layers may be called with these: they outlive the tracing.
    self._given = {id(leaf) for leaf in jax.tree.leaves(kwargs)}
    self._inside = False  # Layers and quantizers inside a layer are its own.

  def layer(self, next_fun, args, kwargs, context):
    """Marks the call of a layer; an interceptor of flax."""
    module = context.module
    known = _LAYERS.get(type(module))
    if context.method_name != '__call__' or len(args) != 1 or known is None:
      return next_fun(*args, **kwargs)
    path, alone = module.path, module.clone(parent=None, name=None)
    aval = jax.typeof(args[0])

    def stages(variables):
      return known(alone, _calls.below(variables, path), aval, **kwargs)

    own = jax.tree.leaves(module.variables)
    return self._mark(next_fun, path, own, stages, *args, **kwargs)

  def quantizer(self, quantize, progress, x, apply):
    """Marks the call of a quantizer; an observer of `quantizers.observed`."""
    if not self._outlives((quantize, progress)):
      return apply(x)
    bound = quantizers.at_progress(quantize, progress)
    return self._mark(apply, None, (), lambda _: _sign(bound), x)

  def _outlives(self, tree):
    return all(
      id(leaf) in self._given or not isinstance(leaf, jax.core.Tracer)
      for leaf in jax.tree.leaves(tree)
    )

  def _mark(self, function, path, own, stages, x, **kwargs):
    if self._inside or jnp.ndim(x) != 2 or not self._outlives(kwargs):
      return function(x, **kwargs)
    entry, output, *names = (
      f'{_PREFIX}{next(_NUMBERS)}' for _ in range(2 + len(own))
    )
    for leaf, name in zip(own, names, strict=True):
      ad_checkpoint.checkpoint_name(leaf, name)
    self._inside = True
    try:
      y = function(ad_checkpoint.checkpoint_name(x, entry), **kwargs)
    finally:
      self._inside = False
    self.calls[output] = _Call(path, entry, tuple(names), stages)
    return ad_checkpoint.checkpoint_name(y, output)


def _sign(quantize):
  """Returns a quantizer as a stage, if its staircase is the sign."""
  if not quantizers.is_sign(quantize):
    return ()
  return (scans.Activation('sign', quantize),)


def _dense(layer, variables, aval):
  del aval
  if not _plain(
    layer, 'dtype', 'dot_general', 'dot_general_cls', 'promote_dtype'
  ):
    return ()
  params = variables['params']
  affine = scans.Affine(1.0, params.get('bias', 0.0))
  arithmetic = sums.Arithmetic(layer.precision)
  return (scans.Dense(params['kernel'], affine=affine, arithmetic=arithmetic),)


def _quant_dense(layer, variables, aval, progress=1.0):
  quantize, front = layer.input_quantizer, ()
  if quantize is not None:
    if isinstance(quantize, quantizers.Quantizer):  # It is learned.
      return ()
    front = _sign(quantizers.at_progress(quantize, progress))
  if layer.dtype is not None or (quantize is not None and not front):
    return ()
  rest = layer.clone(input_quantizer=None)
  dense = rest.apply(
    variables, aval.shape[-1], progress=progress, method='stage'
  )
  return (*front, dense)


def _batch_norm(layer, variables, aval, use_running_average=None, **others):
  running = nn.merge_param(
    'use_running_average', layer.use_running_average, use_running_average
  )
  plain = _plain(layer, 'dtype', 'axis', 'axis_index_groups')
  if others or not plain or not isinstance(running, bool):
    return ()
  size = aval.shape[-1:]
  params = variables.get('params', {})
  scale = params.get('scale', jnp.ones(size, aval.dtype))
  bias = params.get('bias', jnp.zeros(size, aval.dtype))
  if not running:
    norm = scans.BatchNorm(scale, bias, layer.epsilon, layer.axis_name)
    return (norm,)
  mean, var = (variables['batch_stats'][name] for name in ('mean', 'var'))
  return (_layers.normalization(scale, bias, mean, var, layer.epsilon),)


def _own_batch_norm(layer, variables, aval, **kwargs):
  stage = layer.apply(variables, aval.shape[-1], method='stage', **kwargs)
  return (stage,)


def _plain(layer, *fields):
  """Returns whether fields of a layer have their defaults."""
  defaults = type(layer).__dataclass_fields__
  return all(getattr(layer, name) == defaults[name].default for name in fields)


# By exact type, since a subclass may compute anything. Each returns the stages, given
# the layer, its variables, the shape and dtype of its inputs, and its keywords.
_LAYERS: dict[type, Callable[..., tuple[scans.Stage, ...]]] = {
  nn.Dense: _dense,
  nn.BatchNorm: _batch_norm,
  _layers.QuantDense: _quant_dense,
  _layers.BatchNorm: _own_batch_norm,
}


def knows(layer: nn.Module) -> bool:
  """Returns whether layers of this type may be in a chain."""
  return type(layer) in _LAYERS
