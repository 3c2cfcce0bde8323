"""Near ties of convolutions that feed a sign, against sums of integers in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from tests.scans import conv_masks_test as before_sign
from tests.scans import conv_oracle
from tests.scans import conv_pooled_test as before_pooling

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

OUT, CLASSES = 3, 3


def network(front, divisor=1, examples=3, size=(4, 3), pooled=False, seed=0):
  """A network on integers from 0 to 2 over a divisor; 255 for pixels."""
  rng = np.random.default_rng(seed)
  x = rng.integers(0, 3, size=(examples, *size, 2))
  kernel = rng.normal(size=(3, 3, 2, OUT))
  net = conv_oracle.Network(x, kernel, rng.integers(0, CLASSES, examples), [])
  z = conv_oracle._apply(front, np.zeros((examples, *size, OUT)))
  width = OUT if pooled else z[0].size
  tail = [*front, ('mean',) if pooled else ('flatten',)]
  dense = ('dense', rng.normal(size=(width, CLASSES)), np.zeros(CLASSES))
  net = dataclasses.replace(net, tail=[*tail, dense])
  pixels = np.float32(x) / np.float32(divisor)
  return net, dataclasses.replace(net, x=pixels)


def moved_sums(net, conv=conv_oracle._conv):
  """Yields the index of each flip, and the sums of its channel after it."""
  q = conv_oracle.sign(net.kernel)
  for index in np.ndindex(*q.shape):
    other = q.copy()
    other[index] *= -1
    z = conv(net.x, other, net.groups, net.strides, net.padding)
    yield index, z[..., index[-1]]


def counted(net, near):
  """Counts examples with ``near`` at any position, [*kernel.shape]."""
  found = np.zeros(net.kernel.shape, int)
  for index, z in moved_sums(net):
    found[index] = near(z).reshape(len(z), -1).any(axis=1).sum()
  return found


def float32_signs(net, reverse):
  """Returns signs after each flip, summed in one order or another in float32."""

  def conv(x, kernel, groups, strides, padding):
    x = np.pad(np.float32(x), ((0, 0), *padding, (0, 0)))
    height, width, inner, _ = kernel.shape
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    z = np.zeros((len(x), rows, columns, kernel.shape[3]), np.float32)
    terms = list(np.ndindex(height, width, inner))
    for i, j, n in terms[::-1] if reverse else terms:
      there = x[:, i : i + rows, j : j + columns, n, None]
      z += there * np.float32(kernel[i, j, n])
    return z

  return {i: conv_oracle.sign(z) for i, z in moved_sums(net, conv)}


def max_pooled(z):
  z = z[:, : z.shape[1] // 2 * 2, : z.shape[2] // 2 * 2]
  rows, columns = z.shape[1] // 2, z.shape[2] // 2
  return z.reshape(len(z), rows, 2, columns, 2).max(axis=(2, 4))


SIGN = ('sign',)
CASES = {
  'a sign': ([SIGN], lambda z: z == 0),
  'a scale and a shift': (
    [('affine', 0.3, -0.3 * 2 / 255), SIGN],
    lambda z: z == 2,
  ),
  'exact sums and a scale': (
    [('affine', 0.3, -0.3 * 2), SIGN],
    lambda z: z == 2,
  ),
  'a falling channel': (
    [('affine', np.array([-0.5, 0.5, -0.3]), 0.0), ('hardtanh',), SIGN],
    lambda z: z == 0,
  ),
  'pooling before the sign': (
    [('max_pool',), SIGN],
    lambda z: max_pooled(z) == 0,
  ),
  'branches': (
    [('residual', [('affine', 2.0, 0.0)], [('affine', 0.7, 0.0)]), SIGN],
    lambda z: z == 0,
  ),
  'a mean': (
    [('mean',), SIGN, ('affine', 1.0, 0.0)],
    lambda z: z.sum(axis=(1, 2)) == 0,
  ),
}


@pytest.mark.parametrize(
  'case',
  [
    pytest.param(case, marks=[] if n in (1, 2) else [pytest.mark.slow])
    for n, case in enumerate(CASES)
  ],
)
def test_values_within_rounding_of_the_threshold_are_counted(case):
  # Sums of pixels k/255 that would be zero are not, on either side.
  front, near = CASES[case]
  exact = case == 'exact sums and a scale'
  integers, pixels = network(front, 1 if exact else 255)
  found = scans.flip_gains(
    pixels.view(), path='masks', chunk=2, count_near_ties=True
  )
  wanted = counted(integers, near)
  np.testing.assert_array_equal(found.near_ties, wanted)
  assert found.near_ties.dtype == jnp.int32
  assert wanted.any() and (wanted == 0).any()


@pytest.mark.slow
def test_who_is_decided_otherwise_in_another_order_is_counted():
  integers, pixels = network([SIGN], 255, examples=6, seed=1)
  found = scans.flip_gains(pixels.view(), path='masks', count_near_ties=True)
  orders = [float32_signs(pixels, reverse) for reverse in (False, True)]
  others = np.zeros(pixels.kernel.shape, int)
  for index, signs in orders[0].items():
    differ = signs != orders[1][index]
    others[index] = differ.reshape(len(differ), -1).any(axis=1).sum()
  assert others.any() and (others <= found.near_ties).all()
  # Gains are those of integers where no example is a near tie.
  clear = np.asarray(found.near_ties) == 0
  z = conv_oracle._conv(
    integers.x, conv_oracle.sign(integers.kernel), 1, (1, 1), conv_oracle.SAME
  )
  clear &= (z != 0).all(axis=(0, 1, 2))  # Before any move.
  error = np.abs(found.gains - integers.decreases()[0].mean(axis=-1))
  assert error.max() > 1e-4
  assert error[clear].max(initial=0) < 1e-6


EXACT = {
  'ties': {'pad_value': -1.0},
  'pooling before the sign': {'pool': 'before'},
  'pooling behind the sign': {'pool': 'behind', 'size': (6, 5)},
  'ternary': {'weights': 'ternary'},
}


@pytest.mark.slow
@pytest.mark.parametrize('case', EXACT)
def test_exact_sums_count_none(case):
  net = before_sign.network(examples=2, **EXACT[case])
  tail = [
    ('affine', stage[1], 2 * stage[2])
    if n < 2 and stage[0] == 'affine'
    else stage
    for n, stage in enumerate(net.tail)
  ]  # Sums are even, and their quarters meet shifts by halves in ties.
  net = dataclasses.replace(net, tail=tail)
  found = scans.flip_gains(net.view(), path='masks', count_near_ties=True)
  shape = net.kernel.shape
  shape = (2, *shape) if net.weights == 'ternary' else shape
  assert found.near_ties.shape == shape and not found.near_ties.any()
  # There are ties, which are exact.
  front = net.tail[: net.tail.index(('sign',))]
  options = net.groups, net.strides, net.padding, net.pad_value
  q = conv_oracle.sign(net.kernel)
  if net.weights == 'ternary':
    q = conv_oracle.ternary(net.kernel)
  q[0, 1, 1] = -q[0, 1, 1]  # One flip of each channel.
  z = conv_oracle._conv(net.x, q, *options)
  assert (conv_oracle._apply(front, z) == 0).any()


@pytest.mark.slow
def test_coordinates_pick_counts_and_reports_go_on():
  _, pixels = network([SIGN], 255, examples=5)
  view, some, shares = pixels.view(), jnp.array([5, 0, 53, 5]), []
  every = scans.flip_gains(view, path='masks', count_near_ties=True)
  found = scans.flip_gains(
    view,
    path='masks',
    coordinates=some,
    chunk=1,
    count_near_ties=True,
    report=shares.append,
  )
  np.testing.assert_array_equal(
    found.near_ties, every.near_ties.reshape(-1)[some]
  )
  assert shares[-1] == 1 and shares == sorted(shares) and len(shares) > 5
  np.testing.assert_array_equal(
    scans.flip_gains(view, path='masks').gains, every.gains
  )


@pytest.mark.slow
@pytest.mark.parametrize('signed', [False, True])
def test_before_pooling_only_a_sign_has_near_ties(signed):
  front = [('affine', 0.3, 0.0), ('hardtanh',)]
  if signed:
    front = [('residual', [*front, SIGN], front)]
  integers, pixels = network(front, 255, pooled=True)
  found = scans.flip_gains(pixels.view(), count_near_ties=True)
  assert found.path == 'pooled'
  wanted = counted(integers, lambda z: (z == 0) & signed)
  np.testing.assert_array_equal(found.near_ties, wanted)
  assert wanted.any() == signed


def test_they_are_none_where_no_sign_is_met():
  view = before_pooling.network(examples=1).view()
  some = jnp.array([5, 0])
  found = scans.flip_gains(view, coordinates=some, count_near_ties=True)
  assert found.path == 'pooled'
  np.testing.assert_array_equal(found.near_ties, [0, 0])


@pytest.mark.slow
def test_a_precision_that_rounds_inputs_has_more():
  integers, _ = network([SIGN])
  view = integers.view()
  reals = jax.random.normal(jax.random.key(0), view.inputs.shape)
  near = jax.jit(
    lambda view: (
      scans.flip_gains(view, path='masks', count_near_ties=True).near_ties
    )
  )

  def of(inputs, precision):
    arithmetic = dataclasses.replace(
      view.product.arithmetic, precision=precision
    )
    product = dataclasses.replace(view.product, arithmetic=arithmetic)
    return near(dataclasses.replace(view, inputs=inputs, product=product))

  fine, coarse = of(reals, 'highest'), of(reals, 'default')
  assert (coarse >= fine).all() and coarse.sum() > fine.sum()
  assert not of(view.inputs + 0.5, 'highest').any()
  assert not of(2 * view.inputs + 1, 'default').any()
