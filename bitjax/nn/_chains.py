"""Finds the stages that a linen model computes behind one of its layers.

The model is traced with its layers and quantizers marked (`_marks`), and followed back from
the logits to the layer. A value that depends on the layer by one other value is one
step: a marked layer or quantizer, a part of the model that treats each entry or each
example by itself (`_replay`), a mean, a constant that is added. A sum of two values
that depend on it is a `scans.Residual`, from the last value that both come from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
import functools
from typing import Any, NamedTuple, TypeAlias

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from bitjax.nn import _apart
from bitjax.nn import _calls
from bitjax.nn import _graph
from bitjax.nn import _known
from bitjax.nn import _logits
from bitjax.nn import _marks
from bitjax.nn import _means
from bitjax.nn import _replay

__all__ = ['Behind', 'Unknown', 'find']

Unknown = _known.Unknown
_Path: TypeAlias = tuple[str, ...]


class Behind(NamedTuple):
  """A layer and what is behind it.

  Attributes:
    ours: whether the layer brings its quantizers.
    inputs: what its product takes, [examples, ...].
    layer: the layer, without its product.
    product: its convolution; None for a matrix product.
    stages: the stages behind it, up to the logits.
    paths: paths of the layer and of those behind it, in order.
    input_quantizer: the quantizer whose levels the inputs are; None if there is none.
    classes: number of the logits.
  """

  ours: bool
  inputs: types.Array
  layer: scans.Dense
  product: scans.Convolution | None
  stages: tuple[scans.Stage, ...]
  paths: tuple[_Path, ...]
  input_quantizer: quantizers.Quantize | None
  classes: int


def find(
  model: nn.Module,
  variables: types.PyTree,
  inputs: types.Array,
  kwargs: Mapping[str, Any],
  paths: Collection[_Path],
) -> Behind:
  """Returns the first layer that is called, of those with these paths, and what follows.

  Args:
    model: a linen model, which draws no random numbers.
    variables: its variables.
    inputs: a batch, [examples, ...].
    kwargs: keywords of the model's call.
    paths: paths of layers.

  Raises:
    Unknown: if stages cannot say what is computed; its text says why.
    BadInput: if the model returns no logits, or uses the layer's kernel elsewhere too.
  """
  try:
    graph, marks = _marks.trace(model, variables, inputs, kwargs)
  except jax.errors.JAXTypeError:
    raise Unknown('the model looks at the values of its inputs') from None
  _logits.check([output.aval for output in graph.outputs], inputs.shape[0])
  (end,) = graph.outputs
  if not isinstance(end, _graph.Value):
    raise Unknown('the logits are constants')
  calls = [(n, call) for n, call in marks.calls.items() if call.path in paths]
  _check_alone(graph, calls)
  if not calls:
    raise Unknown('the layer is of no known kind')
  (output, call), *others = calls
  path = call.path or ()
  name = '/'.join(path)
  if any(other.path == path for _, other in others):
    raise Unknown(f'{name} is called more than once')
  if (obstacle := call.obstacle(graph)) is not None:
    raise Unknown(f'{name} {obstacle}')
  source = next(
    v
    for v in graph.values
    if v.primitive == 'name' and v.params['name'] == output
  )
  try:
    layer = call.stage(variables)
  except Unknown as why:
    raise Unknown(f'{name} {why}') from None
  if not isinstance(layer, scans.Dense | scans.Conv):
    raise Unknown(f'{name} has no kernel')
  walk = _Walk(graph, marks, variables, source)
  links = walk.links(source, end)
  entry = graph.named[call.entry]
  atoms = [entry, *(atom for link in links for atom in link.atoms)]
  layer_inputs, *arrays = graph.evaluate(atoms)
  conv = isinstance(layer, scans.Conv)
  return Behind(
    call.ours,
    layer_inputs,
    layer.layer if conv else layer,
    layer.product if conv else None,
    _made(links, arrays),
    (path, *(path for link in links for path in link.paths)),
    walk.quantizer_of(entry),
    end.aval.shape[1],
  )


def _check_alone(graph, calls):
  """Raises `BadInput` if logits depend on a kernel other than by its layer's output."""
  held, _ = graph.args
  marks = {v.params['name']: v for v in graph.values if v.primitive == 'name'}
  for path in {call.path for _, call in calls}:
    own = [(name, call) for name, call in calls if call.path == path]
    if any(call.obstacle(graph) is not None for _, call in own):
      continue
    kernel = _calls.below(held, path)['params']['kernel']
    outputs = {marks[name] for name, _ in own}
    if graph.outputs[0] in graph.behind(kernel, without=outputs):
      raise types.BadInput(
        f'The model uses the kernel of layer {"/".join(path)!r} elsewhere too, where '
        'a view would hold it constant; a view needs a layer with a kernel of its own.'
      )


class _Link(NamedTuple):
  """A step from one value to another.

  Attributes:
    make: returns its stage, given the arrays of ``atoms``.
    atoms: the values that the stage holds as constants.
    paths: paths of the layers in it.
  """

  make: Callable[[Sequence[types.Array]], scans.Stage]
  atoms: Sequence[_graph.Atom] = ()
  paths: tuple[_Path, ...] = ()


def _made(links, arrays):
  """Returns the stages of links, whose constants are ``arrays`` in order."""
  stages, used = [], 0
  for link in links:
    stop = used + len(link.atoms)
    stages.append(link.make(arrays[used:stop]))
    used = stop
  return tuple(stages)


class _Walk:
  """Follows values back to others."""

  def __init__(self, graph, marks, variables, source):
    _, inputs = graph.args
    self._graph, self._marks, self._variables = graph, marks, variables
    self._stages: dict[str, scans.Stage | None] = {}
    self._reasons: dict[str, str] = {}  # Why a layer is not known, by its path.
    examples = inputs.aval.shape[0]
    self._facts = _apart.Facts(
      examples, graph.behind(source), graph.behind(inputs)
    )
    if source.aval.shape[:1] != (examples,):
      raise Unknown('what the layer computes has no axis of examples')
    if source.aval.dtype not in (np.float32, np.float64):
      raise Unknown(f'the layer computes in {source.aval.dtype}')

  def links(self, start: _graph.Value, end: _graph.Value) -> list[_Link]:
    """Returns the steps from one value to another, all of whose paths lead by the first."""
    if not self._facts.moves(end):
      raise Unknown('the logits do not depend on the layer')
    found: list[_Link] = []
    while end is not start:
      link, end = self._step(start, end)
      found += [] if link is None else [link]
    return found[::-1]

  def quantizer_of(self, value: _graph.Atom) -> quantizers.Quantize | None:
    """Returns the quantizer whose levels a value has; None if there is none."""
    while isinstance(value, _graph.Value) and value.primitive == 'name':
      call = self._marks.calls.get(value.params['name'])
      if call is not None:
        return call.quantizer
      (value,) = value.args
    return None

  def _step(self, start, value) -> tuple[_Link | None, Any]:
    """Returns a step that ends with a value, and the value that it begins with."""
    if (known := self._call(value)) is not None:
      call, stage = known
      kernel = isinstance(stage, scans.Dense | scans.Conv)
      paths = (call.path,) if kernel else ()
      link = _Link(lambda _: stage, paths=paths)
      return link, self._graph.named[call.entry]
    sources = self._facts.sources(value)
    if len(sources) == 1:
      (source,) = sources
      if _is_same(value, source):
        return None, source
      if _is_relu(value):
        return _Link(lambda _: scans.Activation('relu')), source
      if (before := _means.mean_of(value, start)) is not None:
        return _Link(lambda _: scans.Mean()), before
      if (link := self._added(value)) is not None:
        return link, source
    for kind, holds, whole in (
      (scans.Pointwise, _apart.is_pointwise, True),
      (scans.Examplewise, _apart.is_examplewise, False),
    ):
      if (part := self._part(start, value, holds, whole)) is not None:
        values, source = part
        atoms, make = _replay.replay(values, source, self._facts)
        if kind is scans.Examplewise:
          channels = _apart.channels(values, self._facts)
          kind = functools.partial(kind, channels=channels)
        make_stage = functools.partial(_made_of, kind, make)
        return _Link(make_stage, atoms), source
    if value.primitive in ('add', 'add_any') and len(sources) == 2:
      return self._residual(value, *sources)
    raise Unknown(self._reason(value))

  def _call(self, value):
    """Returns the call whose output a value is, and its stage, if that is known."""
    if value.primitive != 'name':
      return None
    name = value.params['name']
    call = self._marks.calls.get(name)
    if call is None:
      return None
    if name not in self._stages:
      stage, why = None, call.obstacle(self._graph)
      if why is None:
        try:
          stage = call.stage(self._variables)
        except Unknown as error:
          why = str(error)
      if why is not None:
        self._reasons['/'.join(call.path or ())] = why
      self._stages[name] = stage
    stage = self._stages[name]
    return None if stage is None else (call, stage)

  def _before(self, value):
    if (known := self._call(value)) is not None:
      return [self._graph.named[known[0].entry]]
    return self._facts.sources(value)

  def _added(self, value):
    """Returns the addition of a constant for each example, or None if it is none."""
    if value.primitive not in ('add', 'add_any', 'sub'):
      return None
    left, right = value.args
    moving, constant = left, right
    if not self._facts.moves(left):
      moving, constant = right, left
    shape = value.aval.shape
    if moving.aval.shape != shape or not self._facts.differs(constant):
      return None
    sign = 1
    if value.primitive == 'sub':
      if moving is right:
        return None
      sign = -1

    def make(arrays):
      (array,) = arrays
      return scans.Add(jnp.broadcast_to(array if sign > 0 else -array, shape))

    return _Link(make, [constant])

  def _part(self, start, end, holds, whole):
    """Returns the values of a part of the model that ends with ``end``, and its input.

    Args:
      start: where the part may begin at the earliest.
      end: where it ends.
      holds: whether a value may belong to it.
      whole: whether the longest part is wanted. Else it begins behind the last value
        that belongs to a part of another kind.
    """
    inside, left, found = [], {end}, None
    while True:
      latest = max(left, key=lambda value: value.number)
      if latest is start or self._call(latest) is not None:
        return found
      if not holds(latest, self._facts):
        return found
      if found is not None and len(left) == 1:
        pointwise = _apart.is_pointwise(latest, self._facts)
        mean = _means.mean_of(latest, start) is not None
        if mean or _is_relu(latest) or (pointwise and not whole):
          return found
      inside.append(latest)
      left.remove(latest)
      left.update(self._facts.sources(latest))
      if len(left) == 1:
        (source,) = left
        if source.aval.dtype == end.aval.dtype:
          found = (inside[::-1], source)

  def _residual(self, value, *branches):
    left = set(branches)
    while len(left) > 1:
      latest = max(left, key=lambda value: value.number)
      left.remove(latest)
      left.update(self._before(latest))
    (start,) = left
    body, shortcut = (self.links(start, branch) for branch in branches)
    if _size(body) < _size(shortcut):
      body, shortcut = shortcut, body

    def make(arrays):
      first = sum(len(link.atoms) for link in body)
      return scans.Residual(
        _made(body, arrays[:first]), _made(shortcut, arrays[first:])
      )

    both = [*body, *shortcut]
    atoms = [atom for link in both for atom in link.atoms]
    paths = tuple(path for link in both for path in link.paths)
    return _Link(make, atoms, paths), start

  def _reason(self, value):
    equation = value.equation
    where = equation.where
    if where in self._reasons:
      return f'{where or "the model"} {self._reasons[where]}'
    place = f' in {where}' if where else ''
    if equation.name in ('name', 'convert_element_type'):
      return f'values become {value.aval.dtype}{place}'
    return f'the operation {equation.name}{place} is of no known kind'


def _made_of(kind, make, arrays):
  return kind(make(arrays))


def _size(links):
  return sum(len(link.paths) for link in links), len(links)


def _is_same(value, source):
  """Whether a primitive changes nothing, here."""
  name, params = value.primitive, value.params
  same = (value.aval.shape, value.aval.dtype) == (
    source.aval.shape,
    source.aval.dtype,
  )
  if name == 'pad':
    return not np.any(params['padding_config'])
  moves = ('reshape', 'convert_element_type', 'copy', 'name')
  return same and name in moves


def _is_relu(value):
  """Whether `jax.nn.relu` computes a value: functions that look alike may not in reverse."""
  return value.primitive == 'custom_jvp_call' and (
    _source(value.params) == _relu()
  )


@functools.cache
def _relu():
  x = jax.ShapeDtypeStruct((1,), np.float32)
  (equation,) = jax.make_jaxpr(jax.nn.relu)(x).eqns
  return _source(equation.params)


def _source(params):
  """Returns where the function of a ``custom_jvp`` was written."""
  return params['call_jaxpr'].jaxpr.debug_info.func_src_info
