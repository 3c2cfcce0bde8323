"""Sums of bytes and signs are exact in every arithmetic; others round as they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import sums
from bitjax import types

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 1200))
SIGNS = RNG.choice([-1, 1], (1200, 5))
every_option = pytest.mark.parametrize(
  ('precision', 'dtype'),
  [(p, d) for p in sums.PRECISIONS for d in (*sums.DTYPES, None)],
)


def rounded(x):
  """In bfloat16, by NumPy: the nearest number of 8 digits, to even."""
  mantissa, exponent = np.frexp(np.float64(x))
  return np.ldexp(np.rint(mantissa * 2**8), exponent - 8)


@functools.cache
def compiled(precision, dtype):
  """Products of bytes by signs and of signs by signs, and the gradients of their sums."""
  arithmetic = sums.Arithmetic(precision, dtype)

  def both(x, signs, weights):
    z = arithmetic.matmul(x, weights), arithmetic.matmul(signs, weights)
    return jnp.sum(z[0]) + jnp.sum(z[1]), z

  return jax.jit(jax.grad(both, argnums=(0, 2), has_aux=True))


@pytest.mark.optimised
@every_option
def test_bytes_and_signs_are_exact(precision, dtype):
  """Far beyond the 256 to which bfloat16 counts."""
  signs = SIGNS.T
  (x_bar, w_bar), (z, s) = compiled(precision, dtype)(
    *map(np.float32, (BYTES, signs, SIGNS))
  )
  np.testing.assert_array_equal(z, BYTES @ SIGNS)
  np.testing.assert_array_equal(s, signs @ SIGNS)
  assert z.dtype == x_bar.dtype == w_bar.dtype == jnp.float32
  np.testing.assert_array_equal(x_bar[0], SIGNS.sum(axis=1))
  total = np.float64(BYTES.sum(axis=0) + signs.sum(axis=0))
  tolerance = 2**-8 if dtype == 'bfloat16' else 0
  np.testing.assert_allclose(w_bar[:, 0], total, rtol=0, atol=2**11 * tolerance)


@pytest.mark.optimised
def test_other_numbers_are_rounded_once_and_summed_in_float32():
  x, w = RNG.normal(size=(3, 40)), RNG.normal(size=(40, 2))
  z = jax.jit(sums.Arithmetic(dtype='bfloat16').matmul)(
    *map(np.float32, (x, w))
  )
  wanted = rounded(np.float32(x)) @ rounded(np.float32(w))
  np.testing.assert_allclose(z, wanted, rtol=1e-5, atol=1e-5)
  assert np.abs(wanted - x @ w).max() > 1e-3


def test_float32_is_the_program_without_an_arithmetic():
  args = jnp.ones((2, 3)), jnp.ones((3, 4))
  plain = jax.make_jaxpr(lambda x, w: jnp.matmul(x, w, precision='highest'))
  for dtype in (None, 'float32'):
    ours = jax.make_jaxpr(sums.Arithmetic(dtype=dtype).matmul)
    assert str(ours(*args)) == str(plain(*args))


def test_how_far_a_device_may_round():
  digits = {
    'highest': None,
    'high': 11,
    'default': 8,
    None: 8,
    'F32_F32_F32': 8,
  }
  for precision, number in digits.items():
    found = sums.Arithmetic(precision).roundoff
    assert found == (0.0 if number is None else 2.0 ** (1 - number))
    assert sums.Arithmetic(precision, 'bfloat16').roundoff == 0.0
  held = jnp.asarray([255.0, -1.0, 2.0**-100])
  assert sums.unrounded(held)
  assert not sums.unrounded(held, jnp.asarray([257.0]))


def test_integers_are_multiplied_too():
  z = sums.Arithmetic(dtype='bfloat16').matmul(
    jnp.arange(6).reshape(2, 3), jnp.ones(3)
  )
  np.testing.assert_array_equal(z, [3, 12])


class TestCheck:
  @pytest.mark.parametrize(
    ('precision', 'dtype'),
    [('default', 'bfloat16'), ('highest', 'float32')],
  )
  def test_this_device_is_exact(self, precision, dtype):
    sums.check(precision, dtype, convolutions=True)

  def test_it_computes_once_for_each_device(self, monkeypatch):
    sums.check()

    def compute(*args):
      raise AssertionError('It computes again.')

    monkeypatch.setattr(sums.Arithmetic, 'product', compute)
    sums.check()

  def test_it_computes_while_its_caller_is_traced(self):
    @jax.jit
    def caller(x):
      # A name of 'high' that no other test has used.
      sums.check('tensorfloat32', 'float32')
      return x

    assert caller(1) == 1

  @pytest.mark.parametrize('convolutions', [False, True])
  def test_a_device_that_is_not_exact_is_refused(
    self, monkeypatch, convolutions
  ):
    """One that accumulates in bfloat16, or, for a product, 8-bit floats."""
    if not convolutions:
      with pytest.raises(types.BadInput, match='sums of a product') as error:
        sums.check('highest', 'float8_e4m3fn')
      assert '\n' not in str(error.value) and 'float8' in str(error.value)
      return
    monkeypatch.setattr(sums, '_wrong', lambda _, name, __: name != 'product')
    with pytest.raises(types.BadInput, match='sums of a convolution'):
      sums.check('default', 'bfloat16', convolutions=True)
    sums.check('default', 'bfloat16')


def test_only_floating_arrays_may_be_unrounded():
  for array in (np.uint8([255]), [257]):
    with pytest.raises(types.BadInput, match='arrays must be floating; got'):
      sums.unrounded(np.float32([1.0]), array)


@pytest.mark.parametrize(
  'options',
  [
    {'precision': 'fast'},
    {'precision': 3},
    {'precision': ('high', 'fast')},
    {'dtype': 'int8'},
    {'dtype': 'single'[:3]},
  ],
)
def test_bad_options_are_refused(options):
  (name,) = options
  with pytest.raises(types.BadInput, match=f'^{name} must be'):
    sums.Arithmetic(**options)


@pytest.mark.parametrize(
  'precision',
  [
    None,
    'float32',
    jax.lax.Precision.HIGH,
    ('high', 'default'),
    'TF32_TF32_F32',
  ],
)
def test_what_jax_takes_is_taken(precision):
  assert sums.Arithmetic(precision).precision == precision
