"""Networks that begin with a convolution: for the library, and in NumPy's float64.

The oracle's networks are lists of plain tuples, so that it shares no code with the
library: ('affine', scale, shift), ('add', value), ('hardtanh',), ('relu',), ('sign',),
('mean',), ('max_pool',), ('flatten',), ('conv', kernel, groups, strides, padding), ('dense', matrix, shift),
('residual', body, shortcut).
"""

import dataclasses

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np

from bitjax import nn
from bitjax import quantizers
from bitjax import scans

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())
TERNARY = quantizers.attach(quantizers.ternary(0.5), quantizers.identity())
TWO_BITS = quantizers.attach(
  quantizers.uniform(2, step=0.5), quantizers.identity()
)
SAME = ((1, 1), (1, 1))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Clipped:
  def __call__(self, x):
    return jnp.clip(x, -1, 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Flattened:
  def __call__(self, x):
    return x.reshape(x.shape[0], -1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MaxPooled:
  def __call__(self, x):
    return linen.max_pool(x, (2, 2), (2, 2))


def draw(rng, inputs, examples, size, out, groups=1, strides=(1, 1), **_):
  """Inputs ('signs' or 'reals'), a 3 x 3 kernel, and the size of the outputs."""
  channels = 2 * groups
  shape = (examples, *size, channels)
  x = rng.choice([-1.0, 1.0], size=shape)
  if inputs == 'reals':
    x = rng.normal(size=shape)
  kernel = rng.normal(size=(3, 3, channels // groups, out))
  kernel[0, 0, 0, 0] = 0.0
  return x, kernel, [-(-n // s) for n, s in zip(size, strides, strict=True)]


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


def ternary(x):
  return np.where(x >= 0.5, 1.0, np.where(x <= -0.5, -1.0, 0.0))


def two_bits(x):
  return np.clip(np.floor(2 * x + 0.5), -2, 1) / 2


@dataclasses.dataclass
class Network:
  """A convolution of quantized weights and what follows; no scale, no bias.

  Attributes:
    x: inputs, [examples, height, width, in].
    kernel: latent weights.
    labels: classes.
    tail: what follows.
    strides, padding, groups, pad_value: of the convolution.
    weights: 'sign', 'ternary', 'two bits' or 'real'.
  """

  x: np.ndarray
  kernel: np.ndarray
  labels: np.ndarray
  tail: list
  strides: tuple = (1, 1)
  padding: tuple = SAME
  groups: int = 1
  pad_value: float = 0.0
  weights: str = 'sign'

  def view(self, **kwargs):
    quantizer = {
      'sign': BINARY,
      'ternary': TERNARY,
      'two bits': TWO_BITS,
      'real': None,
    }
    conv = nn.QuantConv(
      self.kernel.shape[-1],
      self.kernel.shape[:2],
      strides=self.strides,
      padding=self.padding,
      feature_group_count=self.groups,
      pad_values=self.pad_value,
    )
    signs = set(np.unique(self.x)) <= {-1.0, 1.0}
    return scans.LayerView(
      inputs=_f32(self.x),
      kernel=_f32(self.kernel),
      labels=jnp.asarray(self.labels),
      tail=_stages(self.tail),
      quantizer=quantizer[self.weights],
      product=_product(conv, self.x, self.kernel),
      input_quantizer=BINARY if signs else None,
      **kwargs,
    )

  def losses(self, quantized):
    """Returns each example's loss, for weights of the convolution."""
    z = _conv(
      self.x,
      quantized,
      self.groups,
      self.strides,
      self.padding,
      self.pad_value,
    )
    logits = _apply(self.tail, z)
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return total - logits[np.arange(len(logits)), self.labels]

  def decreases(self, step=None):
    """Returns what each move lowers each example's loss by, [moves, *kernel, examples]."""
    quantize = {
      'sign': sign,
      'ternary': ternary,
      'two bits': two_bits,
      'real': np.asarray,
    }
    q = quantize[self.weights](np.asarray(self.kernel, float))
    if self.weights == 'sign':
      moved = [-q]
    elif self.weights == 'ternary':
      moved = [np.minimum(q + 1, 1), np.maximum(q - 1, -1)]
    elif self.weights == 'two bits':
      moved = [np.minimum(q + 0.5, 0.5), np.maximum(q - 0.5, -1)]
    else:
      moved = [q + step, q - step]
    base = self.losses(q)
    found = np.zeros((len(moved), *q.shape, len(base)))
    for number, levels in enumerate(moved):
      for index in np.ndindex(*q.shape):
        other = q.copy()
        other[index] = levels[index]
        found[(number, *index)] = base - self.losses(other)
    return found


def _f32(a):
  return jnp.asarray(a, jnp.float32)


def _product(conv, x, kernel):
  params = {
    'params': {'kernel': _f32(kernel), 'bias': jnp.zeros(len(kernel.T))}
  }
  return conv.apply(params, _f32(x), method='parts')[2]


def _stages(tail):
  return tuple(_stage(*entry) for entry in tail)


def _stage(kind, *values):
  if kind == 'conv':
    kernel, groups, strides, padding = values
    conv = nn.QuantConv(
      kernel.shape[-1],
      kernel.shape[:2],
      strides=strides,
      padding=padding,
      feature_group_count=groups,
    )
    x = np.zeros((1, 4, 4, groups * kernel.shape[2]))
    return scans.Conv(scans.Dense(_f32(kernel)), _product(conv, x, kernel))
  if kind == 'residual':
    return scans.Residual(*map(_stages, values))
  make = {
    'affine': lambda scale, shift: scans.Affine(_f32(scale), _f32(shift)),
    'add': lambda value: scans.Add(_f32(value)),
    'hardtanh': lambda: scans.Pointwise(Clipped()),
    'relu': lambda: scans.Activation('relu'),
    'sign': lambda: scans.Activation('sign', BINARY),
    'mean': scans.Mean,
    'max_pool': lambda: scans.Examplewise(MaxPooled(), 'chosen'),
    'flatten': lambda: scans.Examplewise(Flattened()),
    'dense': lambda matrix, shift: scans.Dense(
      _f32(matrix), affine=scans.Affine(1.0, _f32(shift))
    ),
  }
  return make[kind](*values)


def _apply(tail, x):
  for kind, *values in tail:
    if kind == 'affine':
      x = x * values[0] + values[1]
    elif kind == 'add':
      x = x + values[0]
    elif kind == 'hardtanh':
      x = np.clip(x, -1, 1)
    elif kind == 'relu':
      x = np.maximum(x, 0)
    elif kind == 'sign':
      x = sign(x)
    elif kind == 'mean':
      x = x.mean(axis=(1, 2))
    elif kind == 'max_pool':
      rows, columns = x.shape[1] // 2, x.shape[2] // 2
      x = x[:, : 2 * rows, : 2 * columns]
      x = x.reshape(len(x), rows, 2, columns, 2, -1).max(axis=(2, 4))
    elif kind == 'flatten':
      x = x.reshape(len(x), -1)
    elif kind == 'dense':
      x = x @ values[0] + values[1]
    elif kind == 'conv':
      x = _conv(x, *values)
    else:
      x = _apply(values[0], x) + _apply(values[1], x)
  return x


def _conv(x, kernel, groups, strides, padding, pad_value=0.0):
  x = np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=pad_value)
  height, width = kernel.shape[:2]
  rows = (x.shape[1] - height) // strides[0] + 1
  columns = (x.shape[2] - width) // strides[1] + 1
  z = np.zeros((len(x), rows, columns, groups, kernel.shape[3] // groups))
  x = x.reshape(*x.shape[:3], groups, -1)
  kernel = kernel.reshape(*kernel.shape[:3], groups, -1)
  for i, j in np.ndindex(height, width):
    there = x[:, i : i + rows * strides[0] : strides[0]][:, :rows]
    there = there[:, :, j : j + columns * strides[1] : strides[1]]
    there = there[:, :, :columns]
    z += np.einsum('bpqgi,igc->bpqgc', there, kernel[i, j])
  return z.reshape(*z.shape[:3], -1)
