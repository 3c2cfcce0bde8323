"""Reflections at the boundary of a domain, against closed forms in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax.quantizers import _domains


def test_positive():
  value = np.float32([-2, -1e-20, -0.0, 0, 1e-20, 0.5, 1e30, np.inf])
  got, slope = jax.vmap(jax.value_and_grad(_domains.positive))(value)
  np.testing.assert_array_equal(got, np.maximum(np.abs(value), 2.0**-40))
  np.testing.assert_array_equal(slope, [-1, -1, 1, 1, 1, 1, 1, 1])
  assert np.isnan(_domains.positive(jnp.nan))


def test_between_0_and_1():
  value = np.float32([-253.25, -1, -0.25, 0, 1e-4, 0.25, 0.75, 1, 1.25, 2.25])
  got, slope = jax.vmap(jax.value_and_grad(_domains.between_0_and_1))(value)
  wide = value.astype(np.float64)
  want = np.clip(np.abs(wide - 2 * np.rint(wide / 2)), 1e-3, 1 - 1e-3)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_array_equal(slope, [1, 1, -1, 1, 1, 1, 1, 1, -1, 1])


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'int32'])
def test_ends_of_domains_are_wider_than_what_is_stored(dtype):
  """2^-40 is 0 in float16, and 1 - 1e-3 is 1 in bfloat16."""
  stored = jnp.asarray([0, 1, 3, -2], dtype)
  got = _domains.positive(stored)
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, np.float32([2.0**-40, 1, 3, 2]))
  got = _domains.between_0_and_1(stored)
  want = np.float32([1e-3, 1 - 1e-3, 1 - 1e-3, 1e-3])
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_ordered():
  for ends in ((-1.0, 2.0), (2.0, -1.0), (0.5, 0.5)):
    np.testing.assert_array_equal(_domains.ordered(*ends), sorted(ends))
  jacobian = jax.jacobian(_domains.ordered, argnums=(0, 1))
  np.testing.assert_array_equal(jacobian(-1.0, 2.0), np.eye(2))
  np.testing.assert_array_equal(jacobian(0.5, 0.5), np.eye(2))
  np.testing.assert_array_equal(jacobian(2.0, -1.0), np.eye(2)[::-1])
