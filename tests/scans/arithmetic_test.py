"""Every product of a scan names its precision, and rounded products are not cut short."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import sums
from bitjax import types

HIGH = sums.Arithmetic('high')
NARROW = sums.Arithmetic(dtype='bfloat16')
KEY = jax.random.key(0)
BALL = types.Budget(1.0)
RATES = np.linspace(0, 0.1, 70, dtype=np.float32)


def computed_by(view, arithmetic):
  """The view of a network whose products are computed in this arithmetic."""
  tail = (
    dataclasses.replace(stage, arithmetic=arithmetic)
    if isinstance(stage, scans.Dense)
    else stage
    for stage in view.tail
  )
  return dataclasses.replace(view, tail=tuple(tail), arithmetic=arithmetic)


def network(view):
  first = scans.Dense(
    view.kernel, view.quantizer, view.scaling, view.affine, view.arithmetic
  )
  last = view.tail[-1]
  last = dataclasses.replace(last, quantizer=view.quantizer)
  return scans.network_view(
    view.inputs, view.labels, (first, *view.tail[:-1], last)
  )


def line(path, view):
  return scans.line_scan(view, view.kernel, RATES, path=path)


def gains(path, view, step=None):
  return scans.flip_gains(view, step=step, path=path)


def step_of(view):
  return scans.discrete_gradient(view, BALL)


def prefixes(path, view):
  return scans.prefix_scan(view, step_of(view), path=path)


def brute(view):
  params = {'kernel': view.kernel}
  there = scans.moves(view).destinations
  return scans.brute_force_gains(
    lambda p: view.losses(p['kernel']), params, 'kernel', there
  )


def streamed(view):
  return scans.stream_gains(
    lambda x, y: dataclasses.replace(view, inputs=x, labels=y),
    view.inputs,
    view.labels,
    8,
  )


# By name: the kind of layer, and a function of its view.
SCANS = {
  'brute_force_gains': ('binary', brute),
  'central_difference': ('real', lambda v: scans.central_difference(v, 0.1)),
  'coordinate_discrete_gradient': (
    'binary',
    lambda v: scans.coordinate_discrete_gradient(v, BALL, key=KEY),
  ),
  'discrete_gradient': ('binary', step_of),
  'discrete_gradient, linear': (
    'binary',
    lambda v: scans.discrete_gradient(v, BALL, signal='linear'),
  ),
  'exhaustive': (
    'binary',
    lambda v: scans.exhaustive(v, BALL, coordinates=jnp.arange(3)),
  ),
  'flip_descent': ('binary', lambda v: scans.flip_descent(v, 2)),
  'averaged_factorial': (
    'binary',
    lambda v: scans.averaged_factorial(v, KEY, 0.1, 2),
  ),
  'flip_factorial': ('binary', scans.flip_factorial),
  'flip_walk': ('binary', scans.flip_walk),
  'flip_gains, sign': (
    'binary',
    lambda v: scans.flip_gains(v, count_near_ties=True),
  ),
  'flip_gains, rank_one': ('real', lambda v: gains('rank_one', v, 0.1)),
  'flip_gains, brute_force': ('real', lambda v: gains('brute_force', v, 0.1)),
  'flip_gains, layers': ('binary', lambda v: gains('layers', network(v))),
  'line_profile': (
    'binary',
    lambda v: scans.line_profile(v, v.kernel, 0.0, 1.0),
  ),
  'line_scan, steps': ('binary', functools.partial(line, 'steps')),
  'line_scan, affine': ('real', functools.partial(line, 'affine')),
  'line_scan, brute_force': ('real', functools.partial(line, 'brute_force')),
  'line_start': ('binary', scans.line_start),
  'multi_step_discrete_gradient': (
    'binary',
    lambda v: scans.multi_step_discrete_gradient(v, BALL, 2),
  ),
  'pair_gains': ('binary', lambda v: scans.pair_gains(v, KEY, 2)),
  'prefix_scan, steps': ('binary', functools.partial(prefixes, 'steps')),
  'prefix_scan, incremental': (
    'binary',
    functools.partial(prefixes, 'incremental'),
  ),
  'prefix_scan, brute_force': (
    'binary',
    functools.partial(prefixes, 'brute_force'),
  ),
  'set_gains, incremental': (
    'binary',
    lambda v: scans.set_gains(v, [[0, 5]], path='incremental'),
  ),
  'set_gains, brute_force': (
    'binary',
    lambda v: scans.set_gains(v, [[0, 5]], path='brute_force'),
  ),
  'smoothed_gains, factors': (
    'binary',
    lambda v: scans.smoothed_gains(v, KEY, 0.1, 2),
  ),
  'smoothed_gains, gains': (
    'binary',
    lambda v: scans.smoothed_gains(v, KEY, 0.1, 2, path='gains'),
  ),
  'stream_gains': ('binary', streamed),
}
# Those that add sums of products up in loops.
WIDE = (
  'line_scan, steps',
  'flip_factorial',
  *(
    pytest.param(name, marks=pytest.mark.slow)
    for name in (
      *('coordinate_discrete_gradient', 'flip_descent', 'flip_gains, sign'),
      *('line_start', 'prefix_scan, steps', 'prefix_scan, incremental'),
    )
  ),
)
NO_PRODUCTS = {
  'draw_sample', 'flip_certificate', 'merge_gains', 'moves', 'network_view', 'plan',
}  # fmt: skip


def test_no_public_scan_is_forgotten():
  functions = {
    name
    for name in scans.__all__
    if inspect.isroutine(getattr(scans, name)) and name == name.lower()
  }
  assert functions == {name.split(',')[0] for name in SCANS} | NO_PRODUCTS


def products(jaxpr):
  """Yields all products and convolutions of a jaxpr, and of those that it holds."""
  for equation in jaxpr.eqns:
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      yield equation
    for inner in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      inner = getattr(inner, 'jaxpr', inner)
      if hasattr(inner, 'eqns'):
        yield from products(inner)


@pytest.mark.parametrize('name', SCANS)
def test_products_name_their_precision(make, name):
  """It is the network's or float32's, also in gradients; some product is the network's."""
  kind, question = SCANS[name]
  binary = kind == 'binary'
  view, _ = make(activation='sign' if binary else 'relu', binary=binary)
  traced = jax.make_jaxpr(question)(computed_by(view, HIGH))
  found = {e.params['precision'] for e in products(traced.jaxpr)}
  high, highest = (
    (p, p) for p in (jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST)
  )
  assert high in found
  assert found <= {high, highest}


def test_the_walk_sees_products_without_a_precision():
  @jax.jit
  def careless(x):
    return jax.lax.scan(lambda s, _: (s @ s, None), x, None, 2)[0]

  (found,) = products(jax.make_jaxpr(careless)(jnp.eye(2)).jaxpr)
  assert found.params['precision'] is None


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', WIDE)
def test_products_may_be_narrower_than_a_network_in_64_bits(make, name, dtype):
  _, question = SCANS[name]
  view, _ = make()
  with jax.enable_x64(True):
    wide = jax.tree.map(
      lambda a: a if a is view.labels else jnp.asarray(a, jnp.float64), view
    )
    # A product behind the next one.
    deeper = scans.Activation('sign', view.quantizer), scans.Dense(jnp.eye(3))
    wide = dataclasses.replace(wide, tail=(*wide.tail, *deeper))
    view = computed_by(wide, sums.Arithmetic(dtype=dtype))
    found = jax.tree.leaves(jax.eval_shape(question, view))
  assert 'float64' in {str(leaf.dtype) for leaf in found}


@pytest.mark.slow
def test_bounds_on_rounding_include_that_of_the_precision(make):
  """Integers of 8 digits are exact all the same; longer numbers may be rounded."""
  exact, _ = make()
  exact = dataclasses.replace(exact, affine=scans.Affine(0.5, 0.0))
  fast = computed_by(exact, HIGH)
  near = functools.partial(scans.flip_gains, count_near_ties=True)
  few = near(exact).near_ties
  np.testing.assert_array_equal(near(fast).near_ties, few)
  views = [
    dataclasses.replace(view, inputs=view.inputs + 2.0**-10)
    for view in (exact, fast)
  ]
  assert near(views[1]).near_ties.sum() > near(views[0]).near_ties.sum()
  doubtful = [line('steps', view).uncertain for view in (exact, fast, *views)]
  assert doubtful[0] == doubtful[1]
  assert doubtful[2] < doubtful[3]


class TestRoundedToBfloat16:
  def test_signs_keep_their_fast_paths_and_their_gains(self, make):
    """Inputs that bfloat16 cannot hold are rounded once, on both paths."""
    exact, _ = make()
    inputs = np.random.default_rng(0).normal(size=exact.inputs.shape)
    inputs = jnp.asarray(inputs, jnp.float32)
    view = dataclasses.replace(computed_by(exact, NARROW), inputs=inputs)
    fast, brute = (
      scans.flip_gains(view, path=path) for path in ('auto', 'brute_force')
    )
    assert fast.path == 'sign'
    np.testing.assert_allclose(fast.gains, brute.gains, atol=1e-6)
    wanted = inputs.astype(jnp.bfloat16).astype(jnp.float32)
    assert (wanted != inputs).any()
    wanted = scans.flip_gains(dataclasses.replace(exact, inputs=wanted))
    np.testing.assert_allclose(fast.gains, wanted.gains, atol=1e-6)

  @pytest.mark.parametrize(
    ('activation', 'binary', 'narrow'),
    [
      ('relu', True, 'tail'),
      ('relu', False, 'layer'),
      ('sign', False, 'layer'),
    ],
  )
  def test_what_a_move_rounds_takes_the_generic_path(
    self, make, activation, binary, narrow
  ):
    view, _ = make(activation=activation, binary=binary)
    rounded = computed_by(view, NARROW)
    view = dataclasses.replace(
      view,
      **{
        field: getattr(rounded, field)
        for field in [{'layer': 'arithmetic'}.get(narrow, narrow)]
      },
    )
    plan = scans.plan(view, timed=False, num_rates=100)
    assert {scan.path for scan in plan.scans if scan.path} <= {
      'brute_force', 'distinct', 'tail', 'forward_passes', 'recompute', '*',
    }  # fmt: skip
    assert any('bfloat16' in scan.reason for scan in plan.scans)
    with pytest.raises(types.BadInput, match='multiply to bfloat16'):
      gains('rank_one', view, None if binary else 0.1)
