"""Written-out convolutions of floats against sums in NumPy, and against XLA's to the bit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax.deploy import _network
from bitjax.deploy import _ops
from bitjax.deploy import _sums

RNG = np.random.default_rng(0)
SHAPES = [  # Size of an image, kernel, strides, padding.
  ((5, 7, 3), (3, 3, 3, 5), (1, 1), ((1, 1), (1, 1))),
  ((6, 5, 1), (5, 4, 1, 2), (2, 1), ((0, 2), (2, 1))),
  ((4, 4, 4), (3, 3, 4, 3), (2, 2), ((0, 0), (1, 0))),
]


def added(x, kernel, strides, padding, once):
  """Returns sums of products, one after another; each rounded once, or product and sum."""
  x = np.pad(x, ((0, 0), *padding, (0, 0)))
  height, width, channels, features = kernel.shape
  rows = range(0, x.shape[1] - height + 1, strides[0])
  columns = range(0, x.shape[2] - width + 1, strides[1])
  found = np.zeros((len(x), len(rows), len(columns), features), np.float32)
  for i, j, c in np.ndindex(height, width, channels):
    seen = x[:, i:, j:, c][:, :: strides[0], :: strides[1]]
    seen = seen[:, : len(rows), : len(columns), None]
    # Products of float32 numbers are exact in float64.
    each = seen.astype(np.float64) * kernel[i, j, c].astype(np.float64)
    each = each if once else each.astype(np.float32)
    found = (found.astype(np.float64) + each).astype(np.float32)
  return found


def drawn(size, kernel, images=3):
  x, weights = (RNG.normal(size=s) for s in ((images, *size), kernel))
  return x.astype(np.float32), weights.astype(np.float32)


@jax.jit
def zero_of(x):
  return _ops.unknown_zero(x)


@pytest.mark.parametrize(('size', 'kernel', 'strides', 'padding'), SHAPES)
def test_products_are_added_one_after_another(size, kernel, strides, padding):
  x, weights = drawn(size, kernel)
  written = jax.jit(_sums.conv, static_argnums=(3, 4))
  got = written(x.transpose(1, 2, 3, 0), weights, zero_of(x), strides, padding)
  got = np.asarray(got).transpose(3, 0, 1, 2)
  want = [added(x, weights, strides, padding, once) for once in (True, False)]
  assert any(np.array_equal(got, each) for each in want)
  xla = np.asarray(_sums.by_xla(x, weights, strides, padding))
  same = _sums.same(size, kernel, strides, padding)
  assert same == np.array_equal(got, xla)


def test_it_is_not_used_where_xla_adds_otherwise(monkeypatch):
  size, kernel, *rest = SHAPES[0]
  by_xla = _sums.by_xla

  def backwards(x, kernel, **params):
    return by_xla(x[..., ::-1], kernel[:, :, ::-1], **params)

  monkeypatch.setattr(_sums, 'by_xla', backwards)
  assert not _sums.same.__wrapped__(size, kernel, *rest)
  assert not _sums.same.__wrapped__((5, 7, 5), (3, 3, 5, 4), *rest)


def test_a_network_is_the_same_with_and_without(monkeypatch):
  size, kernel, strides, padding = SHAPES[0]
  x, weights = drawn(size, kernel, images=5)
  x[0, 2], x[1, 0, 0] = np.nan, np.inf
  params = {'padding': padding, 'strides': strides}
  op = _ops.Op('conv', (-1, 'kernel'), tuple(params.items()))
  arrays = {'kernel': jnp.asarray(weights)}
  network = _network.Network(arrays, (op,), size, 'float32', 2)
  asked, same = [], _sums.same
  monkeypatch.setattr(
    _sums, 'same', lambda *shapes: asked.append(shapes) or same(*shapes)
  )
  got = network(x)
  assert set(asked) == {(size, kernel, strides, padding)}
  monkeypatch.setattr(_sums, 'same', lambda *shapes: False)
  other = dataclasses.replace(network, chunk=3)(x)
  want = _sums.by_xla(x, weights, strides, padding)
  np.testing.assert_array_equal(got, want)
  np.testing.assert_array_equal(other, want)
  with jax.disable_jit():
    np.testing.assert_array_equal(network(x), want)
