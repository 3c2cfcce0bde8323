r"""What a model costs: parameters per bit-width, memory, operations, and what it moves.

A multiply-accumulate operation (MAC) of an a-bit input with a b-bit weight takes
:math:`a b` bit operations (BOPs), XNOR and popcount, if both have at most 8 bits;
else it is one floating-point operation (FLOP). A machine word does 64 bit
operations at once, hence the convention of the field:

.. math:: \mathrm{OPs} = \mathrm{FLOPs} + \mathrm{BOPs} / 64.

Operations do not say what is *moved*. Whatever a product reads was written before, at the
width at which it is read: one bit behind a sign, whose quantizer runs where the values are
made. A shortcut is kept beside it, at its own width, until it is added. So a
feature map of n values of b bits, or a shortcut, moves :math:`2 n b` bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from bitjax import types
from bitjax.nn import _bits
from bitjax.nn import _calls
from bitjax.nn import _tables
from bitjax.nn import _trace

__all__ = ['LayerSummary', 'Summary', 'summary']

_LARGEST_INTEGER = 8  # Bits; wider operands count as floating-point numbers.
_WORD = 64  # Bits of a machine word.


@dataclasses.dataclass(frozen=True)
class LayerSummary:
  """The costs of a layer or of a whole model.

  Attributes:
    path: names of the modules down to the layer, joined by slashes; '' for the
      model itself.
    kind: name of its class.
    output_shape: shape of the output for one example; None if it has none.
    parameters: number of trained parameters, by their bits.
    statistics: number of other variables (running means and so on), by their bits.
    macs: multiply-accumulate operations for one example, by the bits of
      ``(input, weight)``.
    features: values that its products read for one example, but for weights, by their
      bits.
    shortcuts: values of shortcuts that it adds for one example, by their bits.
  """

  path: str
  kind: str
  output_shape: tuple[int, ...] | None
  parameters: Mapping[int, int]
  statistics: Mapping[int, int]
  macs: Mapping[tuple[int, int], int]
  features: Mapping[int, int] = dataclasses.field(default_factory=dict)
  shortcuts: Mapping[int, int] = dataclasses.field(default_factory=dict)

  @property
  def memory(self) -> float:
    """Bytes of all variables, each packed at its own number of bits."""
    return self._bytes(lambda bits: bits)

  @property
  def int8_memory(self) -> float:
    """Bytes of all variables if those of more than 8 bits were stored at 8."""
    return self._bytes(lambda bits: min(bits, 8))

  @property
  def float32_memory(self) -> float:
    """Bytes of all variables if each were stored at 32 bits."""
    return self._bytes(lambda bits: 32)

  @property
  def moved(self) -> float:
    """Bytes of feature maps and shortcuts for one example, written once and read once."""
    counts = (*self.features.items(), *self.shortcuts.items())
    return sum(2 * bits * number for bits, number in counts) / 8

  @property
  def bit_operations(self) -> int:
    """BOPs for one example: ``input bits * weight bits`` for each integer MAC."""
    return sum(
      a * b * n for (a, b), n in self.macs.items() if _both_integer(a, b)
    )

  @property
  def flops(self) -> int:
    """FLOPs for one example: the MACs with an operand of more than 8 bits."""
    return sum(n for (a, b), n in self.macs.items() if not _both_integer(a, b))

  @property
  def operations(self) -> float:
    """OPs for one example: ``flops + bit_operations / 64``."""
    return self.flops + self.bit_operations / _WORD

  def _bytes(self, stored_bits):
    counts = (*self.parameters.items(), *self.statistics.items())
    return sum(stored_bits(bits) * number for bits, number in counts) / 8


@dataclasses.dataclass(frozen=True)
class Summary:
  """A model's layers and their total; ``str`` of it is a table.

  Attributes:
    layers: the layers that have variables, MACs or shortcuts, in the order of their
      calls.
    total: the sums over all layers.
  """

  layers: tuple[LayerSummary, ...]
  total: LayerSummary

  def __str__(self) -> str:
    """Returns a table of at most 100 columns."""
    widths = sorted({*self.total.parameters, *self.total.statistics})
    head = ['layer', 'kind', 'output', *(f'{bits}-bit' for bits in widths)]
    table = [[*head, 'memory', 'moved', 'MACs', 'bits']]
    for row in (*self.layers, self.total):
      counts = Counter(row.parameters) + Counter(row.statistics)
      table.append(
        [
          'total'
          if row is self.total
          else _tables.shorten(row.path or '(model)', 20),
          _tables.shorten(row.kind, 14),
          'x'.join(map(str, row.output_shape or ())),
          *(f'{counts[bits]:,}' for bits in widths),
          _size(row.memory),
          _size(row.moved),
          f'{sum(row.macs.values()):,}',
          ', '.join(_precision(pair) for pair in sorted(row.macs))
          if row is not self.total
          else '',
        ]
      )
    head, rule, *rows, total = _tables.align(table, 3)
    lines = [head, rule, *rows, rule, total, '', *self._totals()]
    return '\n'.join(lines)

  def _totals(self):
    total = self.total
    trained = sum(total.parameters.values())
    others = sum(total.statistics.values())
    macs = [f'{_precision(p)}: {n:,}' for p, n in sorted(total.macs.items())]
    features, shortcuts = (
      ', '.join(f'{b}-bit: {n:,}' for b, n in sorted(counts.items())) or 'none'
      for counts in (total.features, total.shortcuts)
    )
    return [
      f'parameters: {trained:,} trained, {others:,} statistics',
      f'memory:     {_size(total.memory)}; floats at 8 bits '
      f'{_size(total.int8_memory)}; all at 32 bits '
      f'{_size(total.float32_memory)}',
      f'MACs:       {", ".join(macs) or "none"} (bits of input x weight)',
      f'moved:      {_size(total.moved)} (read: {features}; shortcuts: {shortcuts})',
      f'operations: {total.operations:,.0f} OPs = {total.flops:,} FLOPs + '
      f'{total.bit_operations:,} BOPs / {_WORD}',
    ]


def summary(model: nn.Module, *inputs: Any, **kwargs: Any) -> Summary:
  """Returns what a flax.linen model costs, layer by layer.

  The model is traced, not run: shapes are enough, and no random numbers are drawn.
  Products and convolutions are counted in the traced program, so any module can be
  counted, including attention and scanned layers. Padding counts as inputs of a MAC, and a
  loop of unknown length as one iteration; biases, normalisations and pooling do not
  count. A shortcut is what is added to a feature map that comes by another product.

  **Bits of weights.** A module with a field ``kernel_quantizer`` stores its
  kernels at the quantizer's bits. All other variables have the bits of their dtype.
  Scales that are computed from a kernel are not variables.

  **Bits of inputs.** They are the bits of the module's ``input_quantizer``. Without
  one, they are those of the quantizer whose output the module takes unchanged (that
  of a sign activation of an `MLP`, or of a module with a field ``quantizer``). Without
  either, they are those of the input's dtype. If the model's own inputs are integers,
  the first layer that multiplies counts as taking them, because a factor in between
  can be folded into its scale.

  Args:
    model: any linen model.
    *inputs: positional arguments of its call, arrays or ``jax.ShapeDtypeStruct``. The
      first axis of the first one is that of the examples.
    **kwargs: keyword arguments of its call, such as ``train=False``.

  Raises:
    BadInput: for inputs without examples, and for a quantizer that does not
      declare how many bits it has (by an attribute ``bits``).

  Examples:
    >>> import jax
    >>> from bitjax import nn
    >>> images = jax.ShapeDtypeStruct((1, 28, 28, 1), 'uint8')
    >>> costs = nn.summary(nn.binary_mlp(hidden=(256, 256)), images)
    >>> costs.total.macs
    {(8, 1): 200704, (1, 1): 68096}
    >>> costs.total.memory, costs.total.float32_memory
    (33600.0, 1075200.0)

  References:
    Liu et al., Bi-Real net, 2018, the count of OPs
    (https://arxiv.org/abs/1808.00278).
  """
  kwargs = _calls.call_options(model, **kwargs)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), inputs
  )
  first = next(iter(jax.tree.leaves(shapes)), None)
  if first is None or not first.shape or first.shape[0] == 0:
    raise types.BadInput(
      'inputs must be arrays [examples, ...] of at least one example; got '
      f'{first}.'
    )
  key = jax.eval_shape(lambda: jax.random.key(0))
  variables = jax.eval_shape(
    lambda key, inputs: model.init(key, *inputs, **kwargs), key, shapes
  )
  calls = _trace.trace(model, variables, shapes, kwargs)
  multiplying = [call for call in calls.values() if call.macs]
  if multiplying and multiplying[0].input_bits is None:
    multiplying[0].input_bits = _trace.integer_bits(first.dtype)
  owned = _owners(variables, calls)
  rows = (
    _row(path, call, owned[path], first.shape[0])
    for path, call in calls.items()
  )
  layers = tuple(
    r for r in rows if r.parameters or r.statistics or r.macs or r.shortcuts
  )
  outputs = calls[()].output_shape
  total = LayerSummary(
    path='',
    kind=type(model).__name__,
    output_shape=None if outputs is None else outputs[1:],
    parameters=_sum(row.parameters for row in layers),
    statistics=_sum(row.statistics for row in layers),
    macs=_sum(row.macs for row in layers),
    features=_sum(row.features for row in layers),
    shortcuts=_sum(row.shortcuts for row in layers),
  )
  return Summary(layers, total)


def _owners(variables, calls):
  """Groups variables, (collection, name, leaf), by the path of their module."""
  owned = {path: [] for path in calls}
  for path, leaf in jax.tree.leaves_with_path(variables):
    collection, *names = (jax.tree_util.keystr((k,), simple=True) for k in path)
    depth = max(d for d in range(len(names)) if tuple(names[:d]) in owned)
    owned[tuple(names[:depth])].append((collection, names[-1], leaf))
  return owned


def _row(path, call, variables, num_examples):
  parameters: Counter = Counter()
  statistics: Counter = Counter()
  weight_bits = 32
  for collection, name, leaf in variables:
    bits = 8 * jnp.dtype(leaf.dtype).itemsize
    if name.endswith('kernel') and collection == 'params':
      if call.kernel_quantizer is not None:
        bits = _quantizer_bits(path, call.kernel_quantizer)
      weight_bits = bits
    counts = parameters if collection == 'params' else statistics
    counts[bits] += math.prod(leaf.shape)
  input_bits = call.input_bits or call.float_bits
  macs, features = (n // num_examples for n in (call.macs, call.features))
  shape = call.output_shape
  return LayerSummary(
    path='/'.join(path),
    kind=call.kind,
    output_shape=None if shape is None else shape[1:],
    parameters=dict(parameters),
    statistics=dict(statistics),
    macs={(input_bits, weight_bits): macs} if macs else {},
    features={input_bits: features} if features else {},
    shortcuts={b: n // num_examples for b, n in call.shortcuts.items()},
  )


def _quantizer_bits(path, quantizer):
  try:
    return _bits.quantizer_bits(quantizer)
  except types.BadInput as error:
    raise types.BadInput(
      f'kernel_quantizer of {"/".join(path)}: {error}'
    ) from None


def _both_integer(a, b):
  return max(a, b) <= _LARGEST_INTEGER


def _sum(counts):
  total: dict = {}
  for count in counts:
    for key, number in count.items():
      total[key] = total.get(key, 0) + number
  return total


def _precision(bits):
  return f'{bits[0]} x {bits[1]}'


def _size(num_bytes: float) -> str:
  for unit in ('B', 'KiB', 'MiB'):
    if num_bytes < 1024:
      return f'{num_bytes:.4g} {unit}'
    num_bytes /= 1024
  return f'{num_bytes:.4g} GiB'
