"""Marks the layers and quantizers of a model that is traced.

Inputs and outputs of those that are known are given names
(`jax.ad_checkpoint.checkpoint_name`), and so are the variables that a layer sees. A
quantized layer is marked behind its input quantizer, which is a quantizer like others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import itertools
import operator
from typing import Any

from flax import linen as nn
import jax
from jax import ad_checkpoint

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _calls
from bitjax.nn import _conv
from bitjax.nn import _graph
from bitjax.nn import _known
from bitjax.nn import _layers

__all__ = ['Call', 'Marks', 'trace']

_PREFIX = 'bitjax.nn '  # Of the names of marks, of which no two are equal.
_NUMBERS = itertools.count()


@dataclasses.dataclass(frozen=True)
class Call:
  """A marked call of a layer or a quantizer.

  Attributes:
    path: names of the layer and of the modules around it; None for a quantizer.
    entry: name of the mark at its input.
    own: names of the marks at the variables that the layer sees.
    aval: shape and dtype of its input.
    stage: returns its stage, given the variables; None if it is not known.
    ours: whether it is a layer that brings its quantizers.
    quantizer: the quantizer, if it is an elementwise staircase.
  """

  path: tuple[str, ...] | None
  entry: str
  own: tuple[str, ...]
  aval: Any
  stage: Callable[[Any], scans.Stage | None]
  ours: bool = False
  quantizer: quantizers.Quantize | None = None

  def obstacle(self, graph: _graph.Graph) -> str | None:
    """Returns why it cannot be looked at, or None if it can."""
    entry = graph.named.get(self.entry)
    if entry is None or entry.aval.shape != self.aval.shape:
      return 'is called inside nn.scan, nn.vmap or the like'
    held, _ = graph.args
    wanted = [] if self.path is None else _calls.below(held, self.path)
    found = [graph.named.get(name) for name in self.own]
    leaves = jax.tree.leaves(wanted)
    if len(found) != len(leaves) or not all(map(operator.is_, found, leaves)):
      return 'computes with weights that are not those of the variables'
    return None


class Marks:
  """Marks the calls of what is known while the model is traced.

  Attributes:
    calls: each call, by the name of the mark at its output.
  """

  def __init__(self, kwargs: Mapping[str, Any]):
    self.calls: dict[str, Call] = {}
    # Of what is traced, layers may be called with these: they outlive the tracing.
    self._given = {id(leaf) for leaf in jax.tree.leaves(kwargs)}
    self._layer: Any = None  # The layer whose inputs are being quantized.
    self._inside = False  # Layers and quantizers inside a layer are its own.

  def layer(self, next_fun, args, kwargs, context):
    """Marks the call of a layer; an interceptor of flax."""
    module = context.module
    known = _known.LAYERS.get(type(module))
    if context.method_name != '__call__' or len(args) != 1 or known is None:
      return next_fun(*args, **kwargs)
    if not self._outlives(kwargs):
      return next_fun(*args, **kwargs)
    path, alone = module.path, module.clone(parent=None, name=None)
    (x,) = args

    def function(x):
      return next_fun(x, **kwargs)

    ours = isinstance(module, (_layers.QuantDense, _conv.QuantConv))
    if ours:
      self._layer = module
      x, layer, product = module.parts(x, **kwargs)
      self._layer = None

      def function(x):
        stage = layer if product is None else scans.Conv(layer, product)
        return _binding.as_dtype(stage(x), module.dtype)

    aval = jax.typeof(x)

    def stage(variables):
      return known(alone, _calls.below(variables, path), aval, **kwargs)

    own = jax.tree.leaves(module.variables)
    return self._mark(function, x, own, path=path, stage=stage, ours=ours)

  def quantizer(self, quantize, progress, x, apply):
    """Marks the call of a quantizer; an observer of `quantizers.observed`."""
    if not self._outlives((quantize, progress)):
      learned = self._learned(quantize, progress)
      if learned is None:
        return apply(x)
      return self._mark(apply, x, (), path=None, stage=learned)
    bound = quantizers.at_progress(quantize, progress)
    stage = _known.quantizer_stage(bound)
    known = None if stage is None else bound
    return self._mark(
      apply, x, (), path=None, stage=lambda _: stage, quantizer=known
    )

  def _learned(self, quantize, progress):
    """Returns the stage of a layer's input quantizer, given the variables.

    It is None unless the quantizer has parameters or a running spread of the layer.
    """
    layer, own = self._layer, getattr(quantize, 'qparams', None)
    spread = quantizers.spread_of(quantize)
    if (
      layer is None
      or (own is None and spread is None)
      or not self._outlives(progress)
    ):
      return None
    name = 'input_quantizer'
    held = [
      layer.variables.get(collection, {}).get(name)
      for collection in ('params', _binding.SPREADS)
    ]
    leaves, others = map(jax.tree.leaves, ([own, spread], held))
    if len(leaves) != len(others) or not all(map(operator.is_, leaves, others)):
      return None
    field, path = getattr(layer, name), layer.path

    def stage(variables):
      variables, quantizer = _calls.below(variables, path), field
      if own is not None:
        quantizer = quantizers.bind(field, variables['params'][name])
      if spread is not None:
        kept = variables[_binding.SPREADS][name]
        quantizer = quantizers.with_spread(quantizer, kept)
      return _known.quantizer_stage(quantizers.at_progress(quantizer, progress))

    return stage

  def _outlives(self, tree):
    return all(
      id(leaf) in self._given or not isinstance(leaf, jax.core.Tracer)
      for leaf in jax.tree.leaves(tree)
    )

  def _mark(self, function, x, own, **facts):
    if self._inside:
      return function(x)
    entry, output, *names = (
      f'{_PREFIX}{next(_NUMBERS)}' for _ in range(2 + len(own))
    )
    for leaf, name in zip(own, names, strict=True):
      ad_checkpoint.checkpoint_name(leaf, name)
    self._inside = True
    try:
      y = function(ad_checkpoint.checkpoint_name(x, entry))
    finally:
      self._inside = False
    self.calls[output] = Call(
      entry=entry, own=tuple(names), aval=jax.typeof(x), **facts
    )
    return ad_checkpoint.checkpoint_name(y, output)


def trace(
  model: nn.Module,
  variables: types.PyTree,
  inputs: types.Array,
  kwargs: Mapping[str, Any],
) -> tuple[_graph.Graph, Marks]:
  """Returns the graph of a model and its marks.

  Args:
    model: a linen model, which draws no random numbers.
    variables: its variables.
    inputs: a batch.
    kwargs: keywords of the model's call.

  Returns:
    The graph, whose arguments are the variables and the batch, and the marks in it.
  """
  marks = Marks(kwargs)
  fixed = 'params', 'intermediates', _binding.QUANTIZED, _binding.SPREADS
  mutable = _calls.mutable_but(*fixed)

  def outputs(variables, inputs):
    output, _ = model.apply(variables, inputs, mutable=mutable, **kwargs)
    return output

  # Functions under jit would else be traced, and marked, only the first time.
  with (
    jax.disable_jit(),
    nn.intercept_methods(marks.layer),
    quantizers.observed(marks.quantizer),
  ):
    graph = _graph.trace(outputs, variables, inputs)
  return graph, marks
