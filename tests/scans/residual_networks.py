"""Networks of known stages with shortcuts, and what one of their layers sees.

They are made of layers of `bitjax.nn`, with statistics drawn at random.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import nn
from bitjax import quantizers
from bitjax import scans

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Fn:
  """A function as a callable pytree, equal to others of the same name."""

  name: str

  def __call__(self, x):
    if self.name == 'hardtanh':
      return jnp.clip(x, -1, 1)
    if self.name == 'flatten':
      return x.reshape(x.shape[0], -1)
    if self.name == 'max_pool':
      return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID'
      )
    if self.name == 'avg_pool':
      size = (1, 2, 2, 1)
      return 0.25 * jax.lax.reduce_window(
        x, 0.0, jax.lax.add, size, size, 'VALID'
      )
    assert self.name == 'widen'
    low = x.shape[-1] // 2
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (low, low)))


HARDTANH = scans.Pointwise(Fn('hardtanh'))
SIGN = scans.Activation('sign', BINARY)
DOWN = (scans.Examplewise(Fn('avg_pool')), scans.Examplewise(Fn('widen')))


def conv(rng, fan_in, features, **options):
  """Returns a convolution with random weights as a stage."""
  options = {'padding': 1, 'kernel_quantizer': BINARY, **options}
  size = options.pop('size', (3, 3))
  groups = options.get('feature_group_count', 1)
  layer = nn.QuantConv(features, size, use_bias=False, **options)
  kernel = rng.normal(size=(*size, fan_in // groups, features))
  kernel = jnp.asarray(kernel * (fan_in * np.prod(size)) ** -0.5, 'f4')
  x = jnp.zeros((1, *[8] * len(size), fan_in))
  variables = {'params': {'kernel': kernel}}
  _, dense, product = layer.apply(variables, x, method='parts')
  return scans.Conv(dense, product)


def norm(rng, features, spread):
  """Returns a normalisation by running statistics of about this spread."""
  scale = rng.uniform(0.5, 1.5, features) / spread
  shift = rng.normal(size=features) * 0.3
  return scans.Affine(jnp.asarray(scale, 'f4'), jnp.asarray(shift, 'f4'))


def dense(rng, fan_in, features):
  """Returns a full-precision classifier."""
  kernel = rng.normal(size=(fan_in, features)) * 2 * fan_in**-0.5
  return scans.Dense(jnp.asarray(kernel, 'f4'))


def bireal(seed=0, blocks=(3, 3, 3), widths=(16, 32, 64), classes=10, **kernel):
  """Returns the stages of a Bi-Real network behind its first convolution."""
  rng = np.random.default_rng(seed)
  stages = []
  width = widths[0]
  for stage, count in enumerate(blocks):
    for number in range(2 * count):
      new, first = widths[stage], stage > 0 and number == 0
      body = (
        SIGN,
        conv(rng, width, new, strides=1 + first, **kernel),
        norm(rng, new, (9 * width) ** 0.5),
      )
      stages += [scans.Residual(body, DOWN if first else ()), HARDTANH]
      width = new
  return (*stages, scans.Mean(), dense(rng, width, classes))


def images(seed, count, size, channels):
  """Returns activations and labels."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(count, size, size, channels))
  return jnp.asarray(x, 'f4'), jnp.asarray(rng.integers(0, 10, count))


def view_in_residual(stages, x, labels, index):
  """Returns the view of the first convolution in the branch of stage ``index``.

  The stages before it are a sign, or none.
  """
  x = scans_apply(stages[:index], x)
  return view_of(
    stages[index].body, x, labels, stages[index + 1 :], stages[index].shortcut
  )


def view_of(body, x, labels, rest, shortcut=None):
  """Returns the view of the first convolution of ``body``."""
  number = [isinstance(s, scans.Conv) for s in body].index(True)
  before, own, behind = body[:number], body[number], body[number + 1 :]
  tail = behind
  if shortcut is not None:
    tail += (scans.Add(scans_apply(shortcut, x)),)
  return scans.LayerView(
    inputs=scans_apply(before, x),
    kernel=own.layer.kernel,
    labels=labels,
    tail=(*tail, *rest),
    quantizer=own.layer.quantizer,
    scaling=own.layer.scaling,
    affine=own.layer.affine,
    product=own.product,
    input_quantizer=BINARY if before else None,
  )


@functools.partial(jax.jit, static_argnums=())
def scans_apply(stages, x):
  """Applies stages."""
  for stage in stages:
    x = stage(x)
  return x
