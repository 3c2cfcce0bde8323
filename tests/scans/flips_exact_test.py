"""Flip gains against an oracle that moves weights one by one, in float64.

The oracle's networks are lists of plain tuples, so that it shares no code with
the library: ('affine', scale, shift), ('dense', matrix, scale, shift), ('relu',),
('sign',), ('identity',), ('batch_norm', scale, shift).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())
EPSILON = 1e-5


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


def view_of(x, kernel, labels, tail, affine=(1.0, 0.0), **kwargs):
  """The library's view of a network of the oracle."""

  def f32(a):
    return a if isinstance(a, float) else jnp.asarray(a, jnp.float32)

  def stage(kind, *values):
    values = [f32(value) for value in values]
    if kind == 'affine':
      return scans.Affine(*values)
    if kind == 'dense':
      return scans.Dense(values[0], affine=scans.Affine(*values[1:]))
    if kind == 'batch_norm':
      return scans.BatchNorm(*values, EPSILON)
    return scans.Activation(kind, BINARY if kind == 'sign' else None)

  return scans.LayerView(
    inputs=f32(x),
    kernel=f32(kernel),
    labels=jnp.asarray(labels),
    tail=tuple(stage(*entry) for entry in tail),
    affine=stage('affine', *affine),
    **kwargs,
  )


def oracle_losses(x, weights, labels, tail, affine, alpha=1.0):
  z = np.asarray(x, float) @ weights * alpha * affine[0] + affine[1]
  for kind, *values in tail:
    if kind == 'affine':
      z = z * values[0] + values[1]
    elif kind == 'dense':
      z = z @ values[0] * values[1] + values[2]
    elif kind == 'relu':
      z = np.maximum(z, 0)
    elif kind == 'sign':
      z = sign(z)
    elif kind == 'batch_norm':
      z = (z - z.mean(0)) / np.sqrt(z.var(0) + EPSILON)
      z = z * values[0] + values[1]
  top = z.max(axis=1, keepdims=True)
  total = np.log(np.exp(z - top).sum(axis=1)) + top[:, 0]
  return total - z[np.arange(len(z)), labels]


def oracle_gains(
  x, kernel, labels, tail, affine=(1.0, 0.0), moved=None, scale=None
):
  """Gains and second moments of [moves, fan_in, units] moved latent weights.

  Args:
    moved: of a full-precision kernel; None for the flips of a binary one.
    scale: function from the latent kernel to a factor; None for none.
  """
  kernel = np.asarray(kernel, float)
  binary = moved is None
  if binary:
    largest = np.abs(kernel).max() or 1.0
    moved = (-1e-3 * largest * sign(kernel))[None]

  def losses(latent):
    weights = sign(latent) if binary else latent
    alpha = 1.0 if scale is None else scale(latent)
    return oracle_losses(x, weights, labels, tail, affine, alpha)

  base = losses(kernel)
  first, second = np.zeros(moved.shape), np.zeros(moved.shape)
  for place in np.ndindex(*moved.shape):
    latent = kernel.copy()
    latent[place[1:]] = moved[place]
    decrease = base - losses(latent)
    first[place], second[place] = decrease.mean(), (decrease**2).mean()
  return (first[0], second[0], base) if binary else (first, second, base)


def assert_equal(result, oracle, tolerance=1e-6):
  first, second, base = oracle
  loss = base.mean()
  assert np.abs(first).max() > 100 * tolerance * loss  # Not a test of zeros.
  np.testing.assert_allclose(result.loss, loss, rtol=tolerance)
  atol = tolerance * loss
  np.testing.assert_allclose(result.gains, first, rtol=0, atol=atol)
  np.testing.assert_allclose(
    result.second_moments, second, rtol=0, atol=10 * atol * loss
  )
  size = len(base)
  if size > 1:
    variance = (second - first**2) * size / (size - 1)
    np.testing.assert_allclose(
      result.standard_errors() ** 2, variance / size, atol=10 * atol * loss
    )


def dense(rng, fan_in, units, binary=True, bias=True):
  matrix = rng.normal(size=(fan_in, units))
  matrix = sign(matrix) if binary else np.round(matrix * 8) / 8
  shift = np.round(rng.normal(size=units) * 4) / 4 if bias else 0.0
  return ('dense', matrix, 0.25, shift)


def problem(seed, examples, fan_in, units, high=4):
  """Integer inputs with many zeros, a kernel with zeros, labels of 3 classes."""
  rng = np.random.default_rng(seed)
  x = np.maximum(rng.integers(-2, high, size=(examples, fan_in)), -1.0)
  kernel = rng.normal(size=(fan_in, units))
  kernel[rng.uniform(size=kernel.shape) < 0.1] = 0.0
  return rng, x, kernel, rng.integers(0, 3, examples)


def sign_cases():
  rng = np.random.default_rng(0)
  units = 6
  two_layers = lambda: [
    ('sign',), dense(rng, units, 5), ('sign',), dense(rng, 5, 3)
  ]  # fmt: skip
  scale = np.array([1.0, -0.5, 0.25, 0.0, -2.0, 4.0])
  shift = np.array([0.0, 1.0, -0.5, 0.25, -2.0, 8.0])
  return {
    'bias and threshold': ((0.125, shift), two_layers()),
    'negative and zero scales, two affine stages': (
      (scale, shift), [('affine', -scale[::-1], shift), *two_layers()],
    ),
    'scaled signs, then ReLU': (
      (1.0, -0.5),
      [
        ('sign',), ('affine', scale, shift), dense(rng, units, 7, False),
        ('relu',), dense(rng, 7, 3, False),
      ],
    ),
    'no product behind the sign': (
      (1.0, 0.0), [('sign',), ('affine', scale, shift)],
    ),
  }  # fmt: skip


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(
      name, marks=pytest.mark.slow if name == 'bias and threshold' else ()
    )
    for name in sign_cases()
  ],
)
def test_sign_path_equals_the_oracle(name):
  affine, tail = sign_cases()[name]
  _, x, kernel, labels = problem(1, 37, 7, 6)
  view = view_of(x, kernel, labels, tail, affine, quantizer=BINARY)
  result = scans.flip_gains(view, chunk=20)
  assert result.path == 'sign'
  assert_equal(result, oracle_gains(x, kernel, labels, tail, affine))


def test_ties_are_ties_on_every_path():
  # +-1 inputs and even fan-in: a fifth of all sums is exactly zero.
  rng, _, kernel, labels = problem(2, 40, 8, 5)
  x = sign(rng.normal(size=(40, 8)))
  assert np.mean(x @ sign(kernel) == 0) > 0.15
  tail = [('sign',), dense(rng, 5, 3)]
  oracle = oracle_gains(x, kernel, labels, tail)
  view = view_of(x, kernel, labels, tail, quantizer=BINARY)
  for path in 'rank_one', 'brute_force':
    assert_equal(scans.flip_gains(view, path=path), oracle)
  result = scans.flip_gains(view, count_near_ties=True)
  assert_equal(result, oracle)
  assert result.path == 'sign' and not result.near_ties.any()


@pytest.mark.parametrize('step', [0.5, 4.0])
def test_full_precision_kernel_before_a_sign(step):
  rng, x, kernel, labels = problem(3, 21, 5, 4)
  kernel = np.round(kernel * 16) / 16  # Dyadic: float32 sums are exact.
  tail = [('sign',), dense(rng, 4, 3)]
  affine = (0.5, np.array([0.25, -0.5, 0.0, 1.0]))
  view = view_of(x, kernel, labels, tail, affine)
  moved = np.stack([kernel + step, kernel - step])
  oracle = oracle_gains(x, kernel, labels, tail, affine, moved)
  result = scans.flip_gains(view, step=step)
  assert result.path == 'sign'
  assert_equal(result, oracle)


def relu_cases():
  rng = np.random.default_rng(4)
  units = 6
  scale, shift = rng.normal(size=(2, units))
  return {
    'affine stages between all': [
      ('affine', scale, shift), ('relu',), ('affine', shift, scale),
      dense(rng, units, 9, False), ('affine', *rng.normal(size=(2, 9))),
      ('relu',), ('affine', *rng.normal(size=(2, 9))), dense(rng, 9, 3, False),
      ('affine', 0.5, shift[:3]),
    ],
    'three hidden layers': [
      ('relu',), dense(rng, units, 7, False), ('relu',),
      dense(rng, 7, 8, False), ('relu',), dense(rng, 8, 3, False),
    ],
    'last layer': [],
    'linear': [('identity',), dense(rng, units, 4), dense(rng, 4, 3, False)],
    'then a sign': [
      ('relu',), dense(rng, units, 7), ('sign',), dense(rng, 7, 3),
    ],
  }  # fmt: skip


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(
      name,
      marks=pytest.mark.slow
      if name in ('three hidden layers', 'linear')
      else (),
    )
    for name in relu_cases()
  ],
)
def test_rank_one_path_equals_the_oracle(name):
  tail = relu_cases()[name]
  _, x, kernel, labels = problem(5, 13, 5, 6)
  kernel = np.round(kernel * 16) / 16
  affine = (0.25, np.arange(6.0) / 8 - 0.25)
  view = view_of(x, kernel, labels, tail, affine)
  # A large step passes all kinks, and takes the logits far away.
  for step in 2.0, 16.0:
    result = scans.flip_gains(view, step=step)
    assert result.path == 'rank_one'
    moved = np.stack([kernel + step, kernel - step])
    oracle = oracle_gains(x, kernel, labels, tail, affine, moved)
    assert_equal(result, oracle)


def test_binary_kernel_before_a_relu():
  rng, x, kernel, labels = problem(5, 13, 5, 6)
  tail = [
    ('relu',), dense(rng, 6, 23, False), ('relu',), dense(rng, 23, 3),
  ]  # fmt: skip
  view = view_of(x, kernel, labels, tail, (0.5, 0.25), quantizer=BINARY)
  result = scans.flip_gains(view)
  assert result.path == 'rank_one'
  assert_equal(result, oracle_gains(x, kernel, labels, tail, (0.5, 0.25)))


def test_small_moves_are_accurate_relative_to_the_largest_gain():
  rng = np.random.default_rng(6)
  x = rng.uniform(size=(50, 6))  # All different: no value is shared.
  kernel = rng.normal(size=(6, 5))
  tail = [
    ('relu',), ('dense', rng.normal(size=(5, 9)), 1.0, 0.0), ('relu',),
    ('dense', rng.normal(size=(9, 3)), 1.0, 0.0),
  ]  # fmt: skip
  labels = rng.integers(0, 3, 50)
  kernel, x = np.float32(kernel), np.float32(x)
  tail = [(k, *(np.asarray(v, np.float32) for v in vs)) for k, *vs in tail]
  step = 2.0**-10
  first, _, _ = oracle_gains(
    x, kernel, labels, tail,
    moved=np.stack([kernel + np.float64(step), kernel - np.float64(step)]),
  )  # fmt: skip
  result = scans.flip_gains(view_of(x, kernel, labels, tail), step=step)
  assert np.abs(first).max() < 1e-2
  error = np.abs(result.gains - first).max()
  assert error < 1e-4 * np.abs(first).max()


@pytest.mark.parametrize('activation', ['sign', 'relu'])
def test_one_example(activation):
  rng, x, kernel, labels = problem(7, 1, 3, 2)
  tail = [(activation,), dense(rng, 2, 3)]
  view = view_of(x, kernel, labels, tail, quantizer=BINARY)
  result = scans.flip_gains(view, chunk=5)
  assert_equal(result, oracle_gains(x, kernel, labels, tail))
  assert np.isinf(result.standard_errors()).all()


def mean_abs():
  kwargs = {'quantizer': BINARY, 'scaling': quantizers.mean_abs('column')}
  return kwargs, lambda latent: np.abs(latent).mean(axis=0)


def test_a_coupled_scale_directly_before_a_sign_is_harmless():
  rng, x, kernel, labels = problem(8, 19, 5, 4)
  kernel[:, 2] = 0.0  # Its scale is zero until one of its weights moves.
  tail = [('sign',), dense(rng, 4, 3)]
  kwargs, scale = mean_abs()
  view = view_of(x, kernel, labels, tail, (-1.0, 0.0), **kwargs)
  result = scans.flip_gains(view)
  assert result.path == 'sign'
  oracle = oracle_gains(x, kernel, labels, tail, (-1.0, 0.0), scale=scale)
  assert_equal(result, oracle)


def test_other_coupled_scales_are_not_narrow_unless_frozen():
  rng, x, kernel, labels = problem(8, 19, 5, 4)
  tail = [('sign',), dense(rng, 4, 3)]
  affine = (1.0, np.array([0.5, -0.25, 0.125, 1.0]))
  kwargs, scale = mean_abs()
  view = view_of(x, kernel, labels, tail, affine, **kwargs)
  result = scans.flip_gains(view)
  assert result.path == 'tail'
  oracle = oracle_gains(x, kernel, labels, tail, affine, scale=scale)
  assert_equal(result, oracle)
  for path in 'sign', 'rank_one':
    with pytest.raises(types.BadInput, match=r'column.*freeze_scale'):
      scans.flip_gains(view, path=path)
  # Frozen it is a constant: another question, with a fast answer.
  frozen = scans.flip_gains(view.freeze_scale())
  assert frozen.path == 'sign'
  constant = scale(np.float32(kernel))
  oracle = oracle_gains(
    x, kernel, labels, tail, affine, scale=lambda _: constant
  )
  assert_equal(frozen, oracle)
  assert np.abs(frozen.gains - result.gains).max() > 1e-3


def test_batch_statistics_take_the_generic_path():
  rng, x, kernel, labels = problem(9, 11, 4, 3)
  shift, scale = rng.normal(size=(2, 3))
  tail = [('batch_norm', scale, shift), ('relu',), dense(rng, 3, 3)]
  view = view_of(x, kernel, labels, tail, quantizer=BINARY)
  result = scans.flip_gains(view, chunk=5)
  assert result.path == 'brute_force'
  assert_equal(result, oracle_gains(x, kernel, labels, tail))
  for path in 'sign', 'rank_one':
    with pytest.raises(types.BadInput, match='batch statistics'):
      scans.flip_gains(view, path=path)


def test_real_inputs_differ_from_the_oracle_only_in_counted_near_ties():
  # Pixels k/255 in float32: sums that would be zero are not, on either side.
  rng, _, kernel, labels = problem(10, 64, 12, 4)
  x = np.float32(rng.integers(0, 3, size=(64, 12))) / np.float32(255)
  tail = [('sign',), dense(rng, 4, 3)]
  true = oracle_gains(np.rint(x * 255.0), kernel, labels, tail)
  view = view_of(x, kernel, labels, tail, quantizer=BINARY)
  result = scans.flip_gains(view, count_near_ties=True)
  # Exactly the examples whose moved sum of integers is zero.
  moved = (np.rint(x * 255.0) @ sign(kernel))[:, None, :] - 2 * np.rint(
    x * 255.0
  )[:, :, None] * sign(kernel)
  np.testing.assert_array_equal(result.near_ties, (moved == 0).sum(axis=0))
  clear = np.asarray(result.near_ties) == 0
  base_ties = ((np.rint(x * 255.0) @ sign(kernel)) == 0).any(axis=0)
  clear &= ~base_ties[None, :]
  error = np.abs(result.gains - true[0])
  assert clear.any() and error[clear].max(initial=0) < 1e-6
  assert error.max() > 1e-4  # Ties do matter.


MIXED = pytest.mark.parametrize(
  ('inputs', 'activation'),
  [('float32', 'sign'), ('int32', 'sign'), ('int32', 'relu')],
)


def mixed(view, inputs):
  return dataclasses.replace(
    view,
    inputs=view.inputs.astype(inputs),
    kernel=view.kernel.astype(jnp.bfloat16),
  )


@MIXED
def test_kernels_may_be_narrower_than_inputs_or_losses(
  make, inputs, activation
):
  view = mixed(make(activation=activation)[0], inputs)
  found = jax.eval_shape(scans.flip_gains, view)
  assert found.path != 'brute_force'
  assert found.gains.dtype == jnp.float32
  if activation == 'sign':
    descent = jax.eval_shape(lambda v: scans.flip_descent(v, 2), view)
    assert descent.path == 'incremental'
    assert descent.losses.dtype == jnp.float32


@pytest.mark.slow
@MIXED
def test_narrow_kernels_have_the_gains_of_wide_ones(make, inputs, activation):
  view, _ = make(activation=activation)
  narrow = mixed(view, inputs)
  np.testing.assert_array_equal(
    scans.flip_gains(narrow).gains, scans.flip_gains(view).gains
  )
  if activation == 'sign':
    np.testing.assert_array_equal(
      scans.flip_descent(narrow, 2).losses, scans.flip_descent(view, 2).losses
    )
