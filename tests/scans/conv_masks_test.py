"""Gains of a convolution that feeds a sign, against a float64 loop."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import sizes
from bitjax import types
from bitjax.scans import _flips
from bitjax.scans import _packed_distinct
from tests.scans import conv_oracle
from tests.scans import conv_pooled_test as before_pooling

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

CLASSES = 4
OUT, NEXT = 4, 6


def network(
  inputs='signs',
  examples=3,
  behind='conv',
  next_groups=1,
  pool=None,
  size=(5, 4),
  **kwargs,
):
  """A network whose products are small integers, or reals."""
  rng = np.random.default_rng(1)
  x, kernel, after = conv_oracle.draw(
    rng, inputs, examples, size, OUT, **kwargs
  )
  flips = rng.choice([-1.0, 1.0], size=OUT)  # Some channels fall.
  shifts = rng.integers(-1, 2, size=OUT) / 4  # Ties where sums are even.
  shifts[0] = 8.0  # A channel whose signs never turn.
  convolved = after
  if pool is not None:
    after = [n // 2 for n in after]
  where = convolved if pool == 'behind' else after
  value = rng.integers(-1, 2, size=(examples, *where, OUT)) / 2
  front = [
    ('affine', flips / 4, shifts),
    ('add', value),
    ('hardtanh',),
    ('sign',),
  ]
  if pool is not None:
    front.insert(0 if pool == 'before' else len(front), ('max_pool',))
  weights = rng.choice([-1.0, 1.0], size=(3, 3, OUT // next_groups, NEXT))
  conv = ('conv', weights, next_groups, (2, 1), conv_oracle.SAME)
  norm = ('affine', rng.normal(size=NEXT) / 8, rng.integers(-1, 2, size=NEXT))
  branch = rng.choice([-1.0, 1.0], size=(1, 1, NEXT, NEXT))
  residual = (
    'residual',
    [('sign',), ('conv', branch, 1, (1, 1), ((0, 0), (0, 0)))],
    [],
  )
  pixels = after[0] * after[1] * OUT
  half = (-(-after[0] // 2), after[1], NEXT)
  ends = {
    'conv': [
      conv,
      norm,
      ('add', rng.normal(size=(examples, *half))),
      ('hardtanh',),
      residual,
      ('mean',),
      ('dense', rng.normal(size=(NEXT, CLASSES)), rng.normal(size=CLASSES)),
    ],
    'flatten': [
      ('affine', 0.5, 0.25),
      ('flatten',),
      ('dense', rng.normal(size=(pixels, CLASSES)) / 4, np.zeros(CLASSES)),
    ],
  }
  labels = rng.integers(0, CLASSES, examples)
  return conv_oracle.Network(x, kernel, labels, front + ends[behind], **kwargs)


CASES = {
  'ties': {'pad_value': -1.0},
  'one image': {'examples': 1},
  'two words': {'size': (6, 7)},
  'strides and groups': {'strides': (2, 1), 'groups': 2, 'next_groups': 2},
  'flattened': {'behind': 'flatten', 'examples': 5},
  'pooling before the sign': {'pool': 'before'},
  'pooling behind the sign': {'pool': 'behind', 'size': (6, 5)},
  'ternary': {'weights': 'ternary'},
  'two bits': {'weights': 'two bits'},
  'reals': {'inputs': 'reals', 'weights': 'real'},
}
SLOW = {'one image', 'ternary', 'two bits', 'reals', 'pooling behind the sign'}


@pytest.mark.parametrize(
  'case',
  [
    pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else [])
    for case in CASES
  ],
)
def test_gains_are_those_of_a_float64_loop(case):
  net = network(**CASES[case])
  step = 0.25 if net.weights == 'real' else None
  found = scans.flip_gains(net.view(), step=step, chunk=2, path='masks')
  assert scans.flip_gains(net.view(), step=step, chunk=2).path == 'masks'
  decreases = net.decreases(step)
  if net.weights == 'sign':
    decreases = decreases[0]
  np.testing.assert_allclose(
    found.gains, decreases.mean(axis=-1), rtol=2e-5, atol=2e-6
  )
  np.testing.assert_allclose(
    found.second_moments, (decreases**2).mean(axis=-1), rtol=1e-4, atol=2e-6
  )
  nothing = (decreases == 0).all(axis=-1)
  assert 0 < nothing.mean() < 1 and np.abs(decreases).max() > 0.01
  np.testing.assert_array_equal(found.gains[nothing], 0)


def test_only_what_coordinates_ask_for():
  view = network().view()
  every = scans.flip_gains(view, chunk=2)
  some = jnp.array([5, 0, 71, 5])
  picked = scans.flip_gains(view, chunk=2, coordinates=some, path='masks')
  assert picked.path == 'masks'
  for name in ('gains', 'second_moments'):
    np.testing.assert_allclose(
      getattr(picked, name),
      getattr(every, name).reshape(-1)[np.asarray(some)],
      rtol=1e-5,
      atol=1e-6,
    )


def test_what_does_not_apply_says_why():
  view = network().view()
  relu = tuple(s for s in view.tail if not isinstance(s, scans.Activation))
  norm = scans.BatchNorm(jnp.ones(OUT), jnp.zeros(OUT))
  for tail, match in [
    (relu, 'does not feed a sign.*Use one of tail, brute_force'),
    (
      (scans.Examplewise(lambda x: x[..., ::-1]), *view.tail),
      'does not feed a sign',
    ),
    ((norm, *view.tail), 'batch statistics'),
  ]:
    with pytest.raises(types.BadInput, match=match):
      scans.flip_gains(dataclasses.replace(view, tail=tail), path='masks')


def test_auto_takes_it_where_many_moves_turn_the_same_signs():
  view = network().view()
  whole = jnp.arange(view.kernel.size)
  assert _flips.choose(view).path == 'masks'
  assert _flips.choose(view, coordinates=whole).path == 'masks'
  some = _flips.choose(view, coordinates=whole[:5])
  assert some.path == 'tail' and 'sample' in some.reason
  large = network(size=(12, 12)).view()
  assert _flips.choose(large).path == 'tail'
  assert _flips.choose(large, 'masks').path == 'masks'


@pytest.mark.slow
def test_reports():
  view, shares = network(examples=5).view(), []
  told = scans.flip_gains(view, chunk=1, report=shares.append)
  assert shares[-1] == 1 and shares == sorted(shares) and len(shares) > 3
  np.testing.assert_array_equal(
    told.gains, scans.flip_gains(view, chunk=1).gains
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  ('make', 'path'), [(network, 'masks'), (before_pooling.network, 'pooled')]
)
def test_small_blocks_do_not_change_the_answer(monkeypatch, make, path):
  small = dataclasses.replace(
    sizes.of('cpu'), pooled_numbers=900, mask_numbers=1500, mask_lanes=250
  )
  monkeypatch.setattr(sizes, 'here', lambda: small)
  net = make(examples=11)  # Of a size that no other test has, to trace anew.
  found = scans.flip_gains(net.view())
  assert found.path == path
  np.testing.assert_allclose(
    found.gains, net.decreases()[0].mean(axis=-1), rtol=2e-5, atol=2e-6
  )


@pytest.mark.slow
def test_masks_whose_hashes_collide_are_told_apart(monkeypatch):
  view = network(examples=7).view()
  monkeypatch.setattr(_packed_distinct, '_ODD', 0)
  found = scans.flip_gains(view, path='masks')
  np.testing.assert_allclose(
    found.gains,
    network(examples=7).decreases()[0].mean(axis=-1),
    rtol=2e-5,
    atol=2e-6,
  )
