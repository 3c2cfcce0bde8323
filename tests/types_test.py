"""The budget as a pytree, and the checks with their messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import types


class TestBudget:
  """Radius traced, norm and anchor static."""

  def test_radius_is_the_only_leaf(self):
    budget = types.Budget(0.5, 'linf', 'noised')
    assert jax.tree.leaves(budget) == [0.5]
    assert (budget.norm, budget.anchor) == ('linf', 'noised')
    assert (types.Budget(1).norm, types.Budget(1).anchor) == ('l2', 'start')

  def test_one_trace_for_all_radii_another_for_another_norm(self):
    traces = []

    @jax.jit
    def doubled(budget):
      traces.append(budget.norm)
      return 2 * budget.radius

    radii = (0.5, 1.0, 0.0)
    assert [float(doubled(types.Budget(r))) for r in radii] == [1, 2, 0]
    assert float(doubled(types.Budget(3.0, 'l1'))) == 6
    assert traces == ['l2', 'l1']

  def test_vmap_grad_and_scan_over_radii(self):
    budgets = types.Budget(jnp.asarray([1.0, 2.0, 3.0]), 'flips')
    square = lambda budget: budget.radius**2
    np.testing.assert_array_equal(jax.vmap(square)(budgets), [1, 4, 9])
    grads = jax.vmap(jax.grad(square))(budgets)
    assert isinstance(grads, types.Budget)
    assert grads.norm == 'flips'
    np.testing.assert_array_equal(grads.radius, [2, 4, 6])
    swept = jax.vmap(lambda radius: types.Budget(radius).radius + 1)
    np.testing.assert_array_equal(swept(jnp.arange(3.0)), [1, 2, 3])
    _, stacked = jax.lax.scan(lambda c, b: (c, square(b)), 0.0, budgets)
    np.testing.assert_array_equal(stacked, [1, 4, 9])

  def test_traced_radius_is_not_validated(self):
    """JAX rebuilds budgets with anything for leaves: gradients, None."""
    got = jax.jit(lambda r: types.Budget(r).radius)(-1.0)
    assert float(got) == -1
    structure = jax.tree.structure(types.Budget(1.0))
    for leaf in (None, object(), jax.ShapeDtypeStruct((), jnp.float32)):
      assert jax.tree.unflatten(structure, [leaf]).radius is leaf

  @pytest.mark.parametrize('norm', types.NORMS)
  @pytest.mark.parametrize('anchor', types.ANCHORS)
  def test_accepts_what_it_lists(self, norm, anchor):
    for radius in (0, 0.0, 2, np.float32(1), jnp.float32(1), np.inf):
      budget = types.Budget(radius, norm, anchor)
      assert budget.radius is radius

  @pytest.mark.parametrize(
    'radius',
    [-1, -0.1, float('nan'), np.float32(-1), np.array([1, -1]), -np.inf],
    ids=repr,
  )
  def test_rejects_bad_radius(self, radius):
    for cast in (lambda x: x, jnp.asarray):
      with pytest.raises(
        types.BadInput, match='radius must be >= 0 and not NaN; g'
      ):
        types.Budget(cast(radius))

  @pytest.mark.parametrize(
    ('field', 'message'),
    [
      ({'norm': 'l3'}, "norm must be one of l2, linf, l1, flips; got 'l3'"),
      ({'norm': None}, 'norm must be one of l2, linf, l1, flips; got None'),
      ({'anchor': ''}, "anchor must be one of start, noised; got ''"),
    ],
  )
  def test_rejects_unknown_choices(self, field, message):
    with pytest.raises(types.BadInput, match=message):
      types.Budget(1.0, **field)

  def test_is_frozen(self):
    with pytest.raises(AttributeError):
      types.Budget(1.0).radius = 2.0


CHECKS = {
  'non_negative': (types.check_non_negative, [0, 2.5, np.inf], [-1, np.nan]),
  'positive': (types.check_positive, [1e-9, np.inf], [0, -1, 1e-46, np.nan]),
  'finite': (types.check_finite, [0, -3.0], [np.inf, -np.inf, np.nan]),
  'inside': (
    lambda name, value, **options: types.check_open_interval(
      name, value, 0, 1, **options
    ),
    [0.5, 1e-9],
    [0, 1, -1, np.inf, np.nan],
  ),
  'range': (
    lambda name, value, **options: types.check_range(
      name, value, 0.25, 4, **options
    ),
    [0.25, 4, 1],
    [0.2499, 4.001, np.nan, -np.inf],
  ),
  'fraction': (types.check_fraction, [0, 0.999], [1, -1e-9, np.inf, np.nan]),
}


@pytest.mark.parametrize('name', CHECKS)
def test_checks(name):
  check, good, bad = CHECKS[name]
  for cast in (
    float,
    np.float32,
    jnp.float32,
    lambda x: np.array([good[0], x]),
  ):
    options = {'arrays': True} if np.ndim(cast(1.0)) else {}
    for value in good:
      check('thing', cast(value), **options)
    for value in bad:
      with pytest.raises(types.BadInput, match=r'^thing must be .*; got .*\.$'):
        check('thing', cast(value), **options)
  jax.jit(lambda value: check('thing', value))(bad[0])


@pytest.mark.parametrize('name', [*CHECKS, 'number'])
def test_kinds(name):
  """Numbers are no strings, bools, complex numbers, arrays or other objects."""
  check = types.check_number if name == 'number' else CHECKS[name][0]
  for wrong in ('x', None, object(), True, np.bool_(1), 1j, b'1', [0.5], (1,)):
    with pytest.raises(types.BadInput, match=r'^thing must be a number.*; got'):
      check('thing', wrong)
  for wrong in (np.full(3, 0.5), jnp.full((1, 2), 0.5)):
    with pytest.raises(
      types.BadInput, match=r'^thing must be one number; got an array of shape'
    ):
      check('thing', wrong)
    check('thing', wrong, arrays=True)
  for wrong in (np.ones(2, bool), np.array(['x']), np.ones(2, complex)):
    with pytest.raises(types.BadInput, match=r'^thing must be a number'):
      check('thing', wrong, arrays=True)
  for fine in (0.5, np.float16(0.5), np.array(0.5), jnp.bfloat16(0.5)):
    check('thing', fine)
  jax.vmap(lambda value: check('thing', value))(jnp.ones(3))
  for wrong in (jax.random.key(0), jax.random.split(jax.random.key(0))):
    with pytest.raises(types.BadInput, match=r'^thing must be a number.*key<'):
      check('thing', wrong, arrays=True)
  with pytest.raises(types.BadInput, match=r'^thing must be one number'):
    jax.jit(lambda value: check('thing', value))(jnp.ones(3))
  with pytest.raises(types.BadInput, match=r'^thing must be a number'):
    jax.jit(lambda value: check('thing', value))(True)


def test_integers_of_any_length_are_numbers():
  """NumPy holds integers of more than 64 bits as objects."""
  for value in (2**64, 10**400):
    types.check_positive('x', value)
    with pytest.raises(types.BadInput, match=r'^x must be in \[0, 1\]; got'):
      types.check_range('x', value, 0, 1)
    with pytest.raises(types.BadInput, match=r'^x must be >= 0 and not NaN'):
      types.check_non_negative('x', -value)
  types.check_finite('x', 2**64)
  with pytest.raises(types.BadInput, match='x must be finite; got inf'):
    types.check_finite('x', 10**400)


def test_numbers_that_float32_takes_as_zero_are_not_positive():
  with pytest.raises(
    types.BadInput,
    match=r'must be > 0 and finite \(float32 takes numbers below 1.18e-38 as 0\)',
  ):
    types.check_positive('x', 1e-40, finite=True)


def test_values_are_shown_as_code_in_one_line():
  def function(x):
    return x

  partial = jax.tree_util.Partial
  for value, wanted in (
    (0.5, '0.5'),
    (np.float32(0.1), '0.1'),
    (jnp.bfloat16(0.5), '0.5'),
    (jnp.int32(3), '3'),
    (np.str_('text'), "'text'"),
    (np.ones((2, 3)), 'float64[2, 3]'),
    (jnp.ones(3), 'float32[3]'),
    (jax.random.key(0), 'key<fry>[]'),
    (jax.ShapeDtypeStruct((), jnp.float32), 'float32[]'),
    (np.dtype('float32'), "dtype('float32')"),
    (np.float32, "<class 'numpy.float32'>"),
    ((1,), '(1,)'),
    ([1, ('a', None)], "[1, ('a', None)]"),
    ({'a': jnp.ones(2)}, "{'a': float32[2]}"),
    (function, 'function'),
    (partial(function), 'function'),
    (partial(function, 1, y=jnp.ones(2)), 'function(1, y=float32[2])'),
  ):
    assert types.shown(value) == wanted
  jax.jit(lambda x: types.shown(x) == 'float32[2]' or 1 / 0)(jnp.ones(2))
  deleted = jnp.ones(())
  deleted.delete()
  assert types.shown(deleted) == 'float32[]'


def test_budgets_are_written_as_the_code_that_makes_them():
  for budget, wanted in (
    (types.Budget(0.1), 'Budget(0.1)'),
    (types.Budget(3, 'flips'), "Budget(3, 'flips')"),
    (types.Budget(0.5, anchor='noised'), "Budget(0.5, anchor='noised')"),
  ):
    assert repr(budget) == wanted
    assert eval(wanted, vars(types)) == budget
  assert repr(types.Budget(jnp.ones(3), 'l1')) == "Budget(float32[3], 'l1')"
  jax.eval_shape(
    lambda budget: repr(budget) == 'Budget(float32[])' or 1 / 0,
    types.Budget(1.0),
  )


def test_labels():
  for labels in ([0, 2], (0, 2), np.uint8([0, 2]), jnp.int32([0, 2])):
    types.check_labels('labels', labels, 2)
  for labels in ([0.0, 2.0], np.ones(2), [True, False], ['a', 'b']):
    with pytest.raises(types.BadInput, match=r'^labels must be .*the dtype'):
      types.check_labels('labels', labels, 2)
  with pytest.raises(types.BadInput, match='argmax'):
    types.check_labels('labels', [[0, 1], [1, 0]], 2)
  with pytest.raises(types.BadInput, match='the same number of examples'):
    types.check_labels('labels', [0, 1, 2], 2)


def test_axes():
  for value in (None, 0, -1, np.int64(3)):
    types.check_axis('channel_axis', value)
  for value in ('x', 1.0, True, object(), np.zeros(2)):
    with pytest.raises(
      types.BadInput, match=r'^channel_axis must be an integer'
    ):
      types.check_axis('channel_axis', value)
  with pytest.raises(types.BadInput, match='must be an integer; got None'):
    types.check_axis('channel_axis', None, optional=False)


def test_message_shows_value_as_the_user_wrote_it():
  with pytest.raises(
    types.BadInput,
    match=r'^x must be > 0 and not NaN \(float32 .*\); got -2\.$',
  ):
    types.check_positive('x', -2)


def test_integers():
  for value in (2, 7, np.int64(2), np.uint8(3)):
    types.check_integer('size', value, 2)
  for value in (1, -3, 2.0, True, None, '3', np.float32(4), np.zeros(2)):
    with pytest.raises(
      types.BadInput, match=r'^size must be an integer >= 2; got'
    ):
      types.check_integer('size', value, 2)
  with pytest.raises(
    types.BadInput, match=r'size must be an integer below 2\^31'
  ):
    types.check_integer('size', 2**31, 2)


def test_message_shows_one_value_of_an_array():
  values = jnp.ones((50, 3)).at[4, 1].set(-2.5)
  with pytest.raises(
    types.BadInput,
    match=r'^x must be > 0 and not NaN .*; got -2\.5 among 150\.$',
  ):
    types.check_positive('x', values, arrays=True)


@pytest.mark.parametrize('seed', [-1, 2**32, 2**64, 1.0, True, 'a', None])
def test_seeds_have_32_bits(seed):
  with pytest.raises(types.BadInput, match=r'^seeds must be'):
    types.check_seed('seeds', seed)


def test_every_seed_gives_other_numbers():
  seeds = [0, 1, 2**31, 2**32 - 1, np.uint32(7)]
  for seed in seeds:
    types.check_seed('seed', seed)
  keys = {str(jax.random.key_data(jax.random.key(seed))) for seed in seeds}
  assert len(keys) == len(seeds)
