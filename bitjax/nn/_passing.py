r"""Measures how much gradient passes each quantizer of a model, layer by layer.

A straight-through window lets a gradient pass where :math:`|x| \le c`, and so does
the hardtanh before a sign. Whether the gradient of a deep network vanishes therefore
depends on the pre-activations that its initialisation produces. Here one gradient is
taken, and measured on both sides of every quantizer and activation. With :math:`g`
the cotangent of its output and :math:`\bar x` the cotangent of its input,

.. math::
  \mathrm{mass} = \frac{\sum |\bar x|}{\sum |g|}, \qquad
  \mathrm{power} = \frac{\sum \bar x^2}{\sum g^2}.

Layers are intercepted: zeros are added to the inputs and outputs of their quantizers,
and the loss is differentiated with respect to these zeros. Shortcuts around a layer
therefore do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any, cast

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import measures
from bitjax import scans
from bitjax import tree
from bitjax import types
from bitjax.nn import _binding
from bitjax.nn import _blocks
from bitjax.nn import _calls
from bitjax.nn import _conv
from bitjax.nn import _layers
from bitjax.nn import _tables

__all__ = ['GradientPassing', 'LayerPassing', 'gradient_passing']


@dataclasses.dataclass(frozen=True)
class LayerPassing:
  """How much gradient a layer's quantizers let pass; None where there is no quantizer.

  Mass and power are NaN where no gradient arrives; they can exceed 1 for estimators
  that amplify.

  Attributes:
    path: names of the modules down to the layer, joined by slashes; followed by a
      number from the second call on.
    kind: name of the layer's class; for an activation, its kind.
    input_mean: mean of the values that enter the input quantizer or the activation.
    input_std: standard deviation of these values.
    input_share: share of these values with ``|x| <= half_width``.
    input_mass: share of the gradient's l1 norm that passes the input quantizer or
      the activation.
    input_power: share of the gradient's squared l2 norm that passes it.
    saturated: share of the latent weights with ``|w| > 1``.
    kernel_mass: share of the gradient's l1 norm that passes the kernel's quantizer.
    kernel_power: share of the gradient's squared l2 norm that passes it.
    kernel_norm: l2 norm of the gradient that reaches the latent weights.
  """

  path: str
  kind: str
  input_mean: float | None = None
  input_std: float | None = None
  input_share: float | None = None
  input_mass: float | None = None
  input_power: float | None = None
  saturated: float | None = None
  kernel_mass: float | None = None
  kernel_power: float | None = None
  kernel_norm: float | None = None


@dataclasses.dataclass(frozen=True)
class GradientPassing:
  """A model's quantized layers and activations; ``str`` of it is a table.

  Attributes:
    layers: the layers and activations, in the order of their calls.
    half_width: half the width of the window in which ``input_share`` counts inputs.
    loss: of the batch: the mean cross-entropy, or what was asked for.
  """

  layers: tuple[LayerPassing, ...]
  half_width: float
  loss: float

  def __str__(self) -> str:
    """Returns a table of about 100 columns."""
    names = [field.name for field in dataclasses.fields(LayerPassing)][2:]
    inside = f'|x|<={self.half_width:g}'
    head = ['layer', 'kind', 'mean', 'std', inside, 'x mass', 'x power']
    table = [[*head, '|w|>1', 'w mass', 'w power', 'w norm']]
    for row in self.layers:
      cells = [_cell(name, getattr(row, name)) for name in names]
      table.append(
        [_tables.shorten(row.path or '(model)', 24), row.kind, *cells]
      )
    return '\n'.join(_tables.align(table, 2))


def _cell(name, value):
  if value is None:
    return ''
  if name in ('input_mean', 'input_std', 'kernel_norm'):
    return f'{value:.3g}'
  return f'{value:.1%}'


def gradient_passing(
  model: nn.Module,
  variables: types.PyTree,
  images: types.Array,
  labels: types.Array | None = None,
  *,
  loss: Callable[[types.Array, Any], types.Array] | None = None,
  half_width: float = 1.0,
  rngs: Mapping[str, types.Array] | None = None,
  **kwargs: Any,
) -> GradientPassing:
  """Measures how much gradient passes each quantized layer of a model.

  Activations of this package's networks are measured too, since a hardtanh is a
  window as well; activations that other models apply as functions cannot be seen.

  Args:
    model: a linen model with quantized layers that maps images to logits, or to what
      ``loss`` takes.
    variables: the model's variables, as from ``model.init``.
    images: a batch, [examples, ...].
    labels: classes of the images, [examples], integers; None for the classes in
      turn, which is enough for a model that has not been trained. With a ``loss``,
      whatever that takes.
    loss: (outputs, labels) -> the loss of the batch, such as that of a
      `bitjax.training.Reconstruction`; None for the mean cross-entropy of logits. The same
      function, model and shapes are compiled once.
    half_width: c > 0; ``input_share`` is the share of inputs with ``|x| <= c``.
    rngs: random keys of the model's call.
    **kwargs: passed to the model's call, such as ``train=True``. Repeated calls with
      equal models and keywords share a program, if both can be hashed.

  Returns:
    A `GradientPassing` of Python numbers, not of JAX arrays.

  Raises:
    BadInput: for a model without quantized layers, a number of labels other than
      that of images, or a ``half_width`` that is not positive.
  """
  types.check_positive('half_width', half_width, finite=True)
  if loss is None and labels is not None and labels.shape != images.shape[:1]:
    raise types.BadInput(
      'labels must be integers, one for each image; got shapes '
      f'{labels.shape} and {images.shape}.'
    )
  kwargs = _calls.call_options(model, **kwargs)
  arrays = {k: v for k, v in kwargs.items() if isinstance(v, _ARRAYS)}
  static = tuple((k, v) for k, v in kwargs.items() if k not in arrays)
  inputs = variables, images, labels, rngs, arrays
  program = functools.partial(_kept, model, loss, static)
  try:
    hash((model, loss, static))
  except TypeError:
    program = jax.jit(functools.partial(_measured, model, loss, static))
  found = jax.device_get(program(inputs, half_width))
  layers = tuple(
    LayerPassing(p, k, **{n: float(x) for n, x in found.numbers[p].items()})
    for p, k in found.kinds
  )
  return GradientPassing(layers, half_width, float(found.loss))


_ARRAYS = (jax.Array, np.ndarray)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Found:
  """What one gradient shows: its loss, and the numbers and kind of each layer."""

  loss: types.Array
  numbers: dict[str, dict[str, types.Array]]
  # (layer, kind) in the order of their calls; a program keeps them with its outputs.
  kinds: tuple[tuple[str, str], ...] = dataclasses.field(
    metadata={'static': True}
  )


def _measured(model, loss, static, inputs, half_width):
  """Measures one gradient; ``inputs`` are the arrays of `gradient_passing`."""
  variables, images, labels, rngs, arrays = inputs
  kinds: dict[str, str] = {}  # Kind of each layer; filled by the trace.

  def objective(taps):
    tapped = _Tapped(taps)
    hidden = _calls.mutable_but('params', _binding.QUANTIZED, 'intermediates')
    with nn.intercept_methods(tapped):
      outputs, updates = model.apply(
        variables, images, rngs=rngs, mutable=hidden, **dict(static), **arrays
      )
    kinds.update(tapped.kinds)
    value = (loss or _cross_entropy)(cast(types.Array, outputs), labels)
    return value, tapped.seen(updates)

  _, shapes = jax.eval_shape(objective, {})
  if not kinds:
    raise types.BadInput(
      'The model must call a layer with a quantizer, such as a QuantConv; it '
      'has none.'
    )
  taps = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  run = jax.value_and_grad(objective, has_aux=True)
  (value, seen), cotangents = run(taps)
  numbers = _measure(seen, cotangents, half_width)
  return _Found(value, numbers, tuple(kinds.items()))


# One program for each model, whichever variables and images it gets.
_kept = jax.jit(_measured, static_argnums=(0, 1, 2))


def _cross_entropy(logits, labels):
  if labels is None:
    labels = jnp.arange(logits.shape[0]) % logits.shape[-1]
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return jnp.mean(losses)


# Names of the taps of a layer: the inputs and outputs of its two quantizers.
_X, _X_Q, _W, _W_Q = 'x', 'x_q', 'w', 'w_q'

# Values leave the model through a collection, as they may be traced inside it.
_SEEN, _SEPARATOR = 'gradient_passing', '::'


class _Tapped:
  """An interceptor that adds zeros (taps) to inputs and outputs of quantizers.

  Attributes:
    taps: the zeros, by layer and name of the tap; empty to add none.
    kinds: kind of each layer, in the order of their calls.
  """

  def __init__(self, taps):
    self.taps = taps
    self.kinds: dict[str, str] = {}

  def __call__(self, next_fun, args, kwargs, context):
    module, method = context.module, context.method_name
    if method == 'stages':  # The stages of a whole network, such as an `MLP`.
      stages = next_fun(*args, **kwargs)
      return {
        name: self._stage(module, '/'.join((*module.path, name)), stage)
        for name, stage in stages.items()
      }
    if method == '__call__' and isinstance(module, _blocks.Activation):
      name = self._name('/'.join(module.path), module.kind)
      (x,) = args
      x = next_fun(self._tap(module, name, _X, x))
      return self._tap(module, name, _X_Q, x)
    ours = isinstance(module, (_layers.QuantDense, _conv.QuantConv))
    if method != '__call__' or not ours or not _quantizes(module):
      return next_fun(*args, **kwargs)
    name = self._name('/'.join(module.path), type(module).__name__)
    x, *rest = args
    if module.input_quantizer is None:
      x, layer, product = module.parts(x, *rest, **kwargs)
    else:
      x = self._tap(module, name, _X, x)
      x, layer, product = module.parts(x, *rest, **kwargs)
      x = self._tap(module, name, _X_Q, x)
    return _binding.as_dtype(
      self._product(module, name, layer, product, x), module.dtype
    )

  def seen(self, updates: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the values that taps were added to, by layer and name of the tap."""
    found: dict[str, dict[str, Any]] = {name: {} for name in self.kinds}
    flat: dict[Any, Any] = traverse_util.flatten_dict(updates.get(_SEEN, {}))
    for path, (value,) in flat.items():
      name, tap = path[-1].split(_SEPARATOR)
      found[name][tap] = value
    for name, values in found.items():
      if not values:
        raise types.BadInput(
          f'Layer {name!r} is called inside nn.scan, nn.vmap or the like, where it '
          'stands for many layers; gradient_passing cannot look at it.'
        )
    return found

  def _stage(self, module, path, stage):
    """Returns the stage with taps; unchanged if it does not quantize."""
    if getattr(stage, 'quantizer', None) is None:
      return stage
    if isinstance(stage, scans.Dense):
      name = self._name(path, type(stage).__name__)
      return lambda x: self._product(module, name, stage, None, x)
    name = self._name(path, stage.kind)

    def apply(x):
      x = stage(self._tap(module, name, _X, x))
      return self._tap(module, name, _X_Q, x)

    return apply

  def _product(self, module, name, layer, product, x):
    if layer.quantizer is None:
      weights = layer.kernel
    else:
      weights = layer.quantizer(self._tap(module, name, _W, layer.kernel))
      weights = self._tap(module, name, _W_Q, weights)
    if product is None:
      z = layer.arithmetic.matmul(x, weights)
    else:
      z = product(x, weights)
    return layer.rescale(z)

  def _name(self, path, kind):
    name, call = path, 1
    while name in self.kinds:
      call += 1
      name = f'{path} ({call})'
    self.kinds[name] = kind
    return name

  def _tap(self, module, name, tap, value):
    module.sow(_SEEN, f'{name}{_SEPARATOR}{tap}', value)
    zeros = self.taps.get(name, {}).get(tap)
    return value if zeros is None else value + zeros


def _quantizes(layer):
  return layer.input_quantizer is not None or layer.kernel_quantizer is not None


def _measure(seen, cotangents, half_width):
  """Returns the numbers of each layer, by the fields of `LayerPassing`."""
  found = {}
  for name, values in seen.items():
    bars, numbers = cotangents[name], {}
    if _X in values:
      widths = jnp.asarray([half_width], jnp.float32)
      mean, std, shares = measures.entering(values[_X], widths)
      mass, power = _shares(bars[_X], bars[_X_Q])
      numbers |= {
        'input_mean': mean,
        'input_std': std,
        'input_share': shares[0],
        'input_mass': mass,
        'input_power': power,
      }
    if _W in values:
      mass, power = _shares(bars[_W], bars[_W_Q])
      saturated = tree.share(jnp.abs(values[_W]) > 1)
      numbers |= {
        'saturated': saturated,
        'kernel_mass': mass,
        'kernel_power': power,
        'kernel_norm': jnp.linalg.norm(jnp.ravel(bars[_W])),
      }
    found[name] = numbers
  return found


def _shares(passed, arrived):
  """Returns the shares of a gradient's l1 norm and squared l2 norm that passed."""
  # Divide by the largest entry first: squares of small gradients would underflow.
  passed, arrived = (x.astype(jnp.float32) for x in (passed, arrived))
  largest = jnp.max(jnp.abs(arrived))
  passed, arrived = passed / largest, arrived / largest
  mass = jnp.sum(jnp.abs(passed)) / jnp.sum(jnp.abs(arrived))
  return mass, jnp.sum(passed**2) / jnp.sum(arrived**2)
