"""Lists of choices are traced once per kind and computed once per value."""

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax.studies.toy import dispatch


def test_switch_is_the_function_of_each_choice():
  windows = [quantizers.window(c) for c in (0.5, 1.0, 2.0)]
  listed = [windows[0], quantizers.identity(), windows[1], windows[2]]
  traces = []
  x = jnp.float32([-1.5, 0.7, 0.2])

  def passed(estimator):
    traces.append(1)
    return estimator(jnp.ones(3), x, x, 1.0)

  chosen = dispatch.switch(passed, listed)
  numbers = jnp.arange(len(listed))
  found = jax.jit(lambda: jax.lax.map(chosen, numbers))()
  assert len(traces) == 2  # One for windows, one for the identity.
  np.testing.assert_array_equal(found, [passed(choice) for choice in listed])
  np.testing.assert_array_equal(chosen(2), passed(listed[2]))


def test_vectorised_is_the_function_of_each_choice():
  listed = [quantizers.window(0.5), quantizers.identity()]
  listed += [quantizers.window(2.0), quantizers.window(1.0)]
  x = jnp.float32([-1.5, 0.7, 0.2])

  def passed(estimator):
    return {'x': x, 'passed': estimator(jnp.ones(3), x, x, 1.0)}

  found = dispatch.vectorised(passed, listed)
  for index, choice in enumerate(listed):
    for name, value in passed(choice).items():
      np.testing.assert_array_equal(found[name][index], value)


def test_distinct_choices_differ_in_structure_or_bits():
  window, identity = quantizers.window, quantizers.identity()
  listed = [window(0.5), identity, window(2.0), window(0.5), identity]
  found, numbers = dispatch.distinct(listed)
  assert found == [listed[0], identity, listed[2]]
  assert numbers == [0, 1, 2, 0, 1]
  assert dispatch.distinct([window(0.5), window(0.5, inclusive=False)])[1] == [
    0,
    1,
  ]


def test_equal_rows_are_computed_once():
  rows = jnp.float32([[1, 2], [3, 4], [1, 2], [1, 5], [3, 4]])
  computed = []

  def fn(row):
    jax.debug.callback(lambda first: computed.append(float(first)), row[0])
    return {'sum': jnp.sum(row), 'square': row**2}

  found = jax.jit(lambda rows: dispatch.each_once(fn, rows))(rows)
  jax.effects_barrier()
  assert sorted(computed) == [1, 1, 3]
  np.testing.assert_array_equal(found['sum'], rows.sum(1))
  np.testing.assert_array_equal(found['square'], rows**2)


def test_rows_with_nan_stand_for_themselves():
  rows = jnp.float32([[1, 2], [jnp.nan, 4], [jnp.nan, 4], [1, 2]])
  found = jax.jit(lambda rows: dispatch.each_once(lambda row: row[1], rows))(
    rows
  )
  np.testing.assert_array_equal(found, [2, 4, 4, 2])
