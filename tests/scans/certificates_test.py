"""Certificates of 1-flip optima, the descent to one, and pairs of flips."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import sizes
from bitjax import sweeps
from bitjax import types
from bitjax.scans import _coordinate_losses
from bitjax.scans import _flip_pairs
from bitjax.scans import _flip_sums


def sign(x):
  return np.where(x >= 0, 1.0, -1.0)


def flipped(kernel, place):
  moved = sign(np.asarray(kernel, float))
  moved.ravel()[place] *= -1
  return moved


def single_gains(kernel, loss):
  base = loss(sign(kernel))
  return np.array([base - loss(flipped(kernel, k)) for k in range(kernel.size)])


def steepest_flips(kernel, loss):
  """Flips the best weight until none lowers the loss."""
  here, places, losses = sign(np.asarray(kernel)), [], [loss(kernel)]
  while (gains := single_gains(here, loss)).max() > 1e-6 * losses[0]:
    places.append(int(np.argmax(gains)))
    here = flipped(here, places[-1])
    losses.append(loss(here))
  return here, places, losses


@pytest.mark.optimised
def test_descent_equals_the_loop(make, monkeypatch):
  few = dataclasses.replace(sizes.of('cpu'), sums_examples=8)
  monkeypatch.setattr(sizes, 'here', lambda: few)  # More than one block.
  view, loss = make(seed=1, examples=70)
  found = scans.flip_descent(view, 40)
  assert found.path == 'incremental'
  end, places, losses = steepest_flips(view.kernel, loss)
  kernel = np.asarray(view.kernel + found.displacement)
  np.testing.assert_array_equal(sign(kernel), end)
  assert found.certified and found.num_flips == len(places) > 4
  np.testing.assert_array_equal(found.moved[: len(places)], places)
  assert (found.moved[len(places) :] == -1).all()
  np.testing.assert_allclose(
    found.losses[: len(losses)], losses, rtol=1e-5, atol=1e-6
  )
  assert (found.losses[len(places) :] == found.losses[-1]).all()
  # The certificate, by other means.
  gains = single_gains(kernel, loss)
  assert gains.max() <= 1e-6 * losses[0]
  np.testing.assert_allclose(found.best, gains.max(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.optimised
def test_incremental_sums_are_those_of_all_examples(make, monkeypatch):
  few = dataclasses.replace(sizes.of('cpu'), sums_examples=16)
  monkeypatch.setattr(sizes, 'here', lambda: few)
  view, _ = make(seed=2, examples=90)

  @jax.jit
  def flip_thrice(view, choices):
    begin = _flip_sums.begin(view)

    def flip(state, choice):
      return state.flip(choice), None

    return jax.lax.scan(flip, begin, choices)[0]

  state = flip_thrice(view, jnp.array([5, 10, 5]))
  fresh = scans.flip_gains(state.view, path='brute_force')
  np.testing.assert_allclose(state.gains(), fresh.gains, atol=2e-6)
  np.testing.assert_allclose(state.loss(), fresh.loss, rtol=1e-6)
  assert np.abs(fresh.gains).max() > 0.01
  np.testing.assert_array_equal(
    sign(state.kernel) != sign(view.kernel), np.arange(24).reshape(6, 4) == 10
  )


def test_other_views_are_recomputed_and_limits_are_kept(make):
  view, loss = make(seed=3, activation='relu')
  found = scans.flip_descent(view, 2)
  assert found.path == 'recompute'
  _, places, losses = steepest_flips(view.kernel, loss)
  assert len(places) > 2
  np.testing.assert_array_equal(found.moved, places[:2])
  np.testing.assert_allclose(found.losses, losses[:3], rtol=1e-5)
  assert not found.certified and found.best > 0
  with pytest.raises(types.BadInput, match=r"'incremental' does not.*sign"):
    scans.flip_descent(view, 2, path='incremental')


@pytest.mark.optimised
def test_merged_gains_are_those_of_all_examples(make):
  view, _ = make(seed=4, examples=50)
  cuts = (slice(0, 10), slice(10, 30), slice(30, 50))
  parts = [
    scans.flip_gains(
      dataclasses.replace(view, inputs=view.inputs[c], labels=view.labels[c]),
      path='brute_force',
    )
    for c in cuts
  ]
  whole = scans.flip_gains(view, path='brute_force')
  merged = scans.merge_gains(scans.merge_gains(*parts[:2]), parts[2])
  assert merged.num_examples == 50 and merged.path == 'brute_force'
  np.testing.assert_allclose(merged.loss, whole.loss, rtol=1e-6)
  np.testing.assert_allclose(merged.gains, whole.gains, atol=1e-6)
  np.testing.assert_allclose(
    merged.standard_errors(), whole.standard_errors(), rtol=1e-3, atol=1e-6
  )


@pytest.mark.parametrize(
  'size', [50, pytest.param(20, marks=pytest.mark.slow), 7]
)
def test_streamed_gains_are_those_of_all_examples(make, size):
  view, _ = make(seed=4, examples=50)

  def look(inputs, labels):
    return dataclasses.replace(view, inputs=inputs, labels=labels)

  whole = scans.flip_gains(view)
  streamed = jax.jit(
    lambda inputs, labels: scans.stream_gains(look, inputs, labels, size)
  )(view.inputs, view.labels)
  assert streamed.num_examples == 50
  for name in ('gains', 'second_moments', 'loss'):
    np.testing.assert_allclose(
      getattr(streamed, name), getattr(whole, name), rtol=1e-5, atol=1e-6
    )


def gains_of(means, errors, num_examples=101):
  means, errors = np.float32(means), np.float32(errors)
  second = errors**2 * (num_examples - 1) + means**2
  return scans.FlipGains(
    jnp.asarray(means), jnp.asarray(second), jnp.float32(1), None,
    num_examples, 'brute_force',
  )  # fmt: skip


def test_certificate_counts():
  gains = gains_of(
    [0.3, 0.3, 1e-9, -0.3, -0.3, 0.0], [0.1, 0.2, 0, 0.1, 0.2, 0]
  )
  holdout = gains_of([0.1, -0.2, 0.1, 0.1, -0.1, -0.1], [0.1] * 6)
  found = scans.flip_certificate(gains, holdout)
  assert not found.is_optimum
  np.testing.assert_allclose([found.best, found.best_error], [0.3, 0.1], 1e-5)
  shares = found.improving, found.significant, found.mirrored
  np.testing.assert_allclose(shares, np.array([2, 1, 1]) / 6, rtol=1e-6)
  holds = found.holds, found.significant_holds, found.random_holds
  np.testing.assert_allclose(holds, [0.5, 1.0, 0.5], rtol=1e-6)
  np.testing.assert_allclose(found.mean_holdout, -0.05, rtol=1e-5)
  np.testing.assert_allclose(found.random_mean_holdout, -0.1 / 6, rtol=1e-5)
  strict = scans.flip_certificate(gains, holdout, num_errors=3.5)
  assert strict.significant == 0 and np.isnan(strict.significant_holds)
  assert scans.flip_certificate(gains, tolerance=0.5).is_optimum


def test_shares_are_counted_whatever_the_dtype_of_the_gains():
  values = [0.25] * 257 + [-0.25] * 44
  gains = gains_of(values, [0.0625] * 301)
  gains = dataclasses.replace(gains, gains=gains.gains.astype(jnp.bfloat16))
  holdout = dataclasses.replace(gains, gains=gains.gains.at[0].set(-1.0))
  found = scans.flip_certificate(gains, holdout)
  assert found.holds.dtype == jnp.float32
  np.testing.assert_allclose(found.holds, 256 / 257, rtol=1e-6)
  np.testing.assert_allclose(found.significant_holds, 256 / 257, rtol=1e-6)


@pytest.mark.optimised
def test_pairs(make):
  view, loss = make(seed=5)
  pairs = scans.pair_gains(view, jax.random.key(0), 50)
  first, second = np.asarray(pairs.first), np.asarray(pairs.second)
  assert (first != second).all() and len(set(first)) > 15
  gains = single_gains(view.kernel, loss)
  np.testing.assert_allclose(
    pairs.separately, gains[first] + gains[second], atol=2e-6
  )
  base = loss(view.kernel)
  together = [
    base - loss(flipped(flipped(view.kernel, k), m))
    for k, m in zip(first, second, strict=True)
  ]
  np.testing.assert_allclose(pairs.together, together, atol=2e-6)
  assert np.abs(pairs.interaction).max() > 0.01
  few = scans.pair_gains(view, jax.random.key(1), 50, among=jnp.array([3, 8]))
  np.testing.assert_array_equal(few.first + few.second, 11)


@pytest.mark.parametrize('repeats', [1, 2, 5])
def test_the_second_of_a_pair_is_any_move_of_another_weight(repeats):
  """The oracle lists the moves of other weights for each pair."""
  rng = np.random.default_rng(repeats)
  weights = rng.permutation(np.repeat(np.arange(7), repeats))
  first, offset = rng.integers(0, 7, 300), rng.integers(0, 1000, 300)
  others = [np.flatnonzero(weights != one) for one in first]
  wanted = [o[n % o.size] for o, n in zip(others, offset, strict=True)]
  with jax.numpy_dtype_promotion('strict'):
    found = _flip_pairs._others(*map(jnp.asarray, (weights, first, offset)))
  np.testing.assert_array_equal(found, wanted)


def test_pairs_need_no_table_of_all_moves(make):
  view, _ = make()

  def size(num_pairs):
    """The entries of the largest array that the pairs are drawn with."""
    draw = jax.make_jaxpr(
      lambda v: scans.pair_gains(v, jax.random.key(0), num_pairs)
    )
    lengths = re.findall(r':[a-z]+\d+\[([\d,]+)\]', str(draw(view)))
    return max(math.prod(map(int, found.split(','))) for found in lengths)

  assert size(999) < 999 * view.kernel.size / 10


def test_gains_that_are_not_finite_are_no_optimum(make):
  view, _ = make()
  gains = scans.flip_gains(view)
  broken = dataclasses.replace(
    gains, gains=jnp.full_like(gains.gains, jnp.nan), loss=jnp.nan
  )
  for args in ((broken,), (gains, broken)):
    with pytest.raises(types.BadInput, match='The loss must be finite'):
      scans.flip_certificate(*args)
    found = jax.jit(scans.flip_certificate)(*args)
    assert not found.is_optimum
    numbers = jax.tree.leaves(found)[1:]
    assert len(numbers) == (5 if len(args) == 1 else 10)
    assert np.isnan(numbers).all()
  one = dataclasses.replace(gains, gains=gains.gains.at[1, 2].set(jnp.inf))
  with pytest.raises(types.BadInput, match='A gain must be finite; got inf'):
    scans.flip_certificate(one)
  with pytest.raises(types.BadInput, match='The loss must be finite'):
    scans.merge_gains(gains, broken)


def test_a_batch_whose_loss_is_not_finite_ends_a_stream(make):
  view, _ = make(examples=30, activation='relu')
  inputs = view.inputs.at[15].set(jnp.nan)

  def look(inputs, labels):
    return dataclasses.replace(view, inputs=inputs, labels=labels)

  with pytest.raises(types.BadInput, match='The loss must be finite; got nan'):
    scans.stream_gains(look, inputs, view.labels, 10)
  found = jax.jit(lambda x: scans.stream_gains(look, x, view.labels, 10))(
    inputs
  )
  assert np.isnan(found.gains).all() and np.isnan(found.loss)


def test_a_stream_in_parts_resumes_where_it_was_killed(make, tmp_path):
  view, _ = make(seed=4, examples=40)
  computed = []

  def part_of_gains(fail, *, part, **_):
    if fail and int(part[0]) == 2:
      raise KeyboardInterrupt
    computed.append(int(part[0]))
    own = slice(10 * int(part[0]), 10 * int(part[0]) + 10)
    found = scans.flip_gains(view.map_examples(lambda x: x[own]))
    return {'gains': found.gains[None], 'squares': found.second_moments[None]}

  def run(fail):
    return sweeps.Sweep(tmp_path).hosted(
      functools.partial(part_of_gains, fail),
      name='gains',
      lanes={'part': np.arange(4)},
      dims=dict.fromkeys(('gains', 'squares'), ('input', 'unit')),
    )

  with pytest.raises(KeyboardInterrupt):
    run(fail=True)
  found = run(fail=False)
  assert computed == [0, 1, 2, 3]
  whole = scans.flip_gains(view)
  np.testing.assert_allclose(
    found.gains.mean('part'), whole.gains, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(
    found.squares.mean('part'), whole.second_moments, rtol=1e-5, atol=1e-6
  )


def test_statistics_of_a_batch_are_not_streamed(make):
  view, _ = make(examples=30)
  coupled = dataclasses.replace(
    view, tail=(scans.BatchNorm(jnp.ones(4), jnp.zeros(4)), *view.tail)
  )

  def look(inputs, labels):
    return dataclasses.replace(coupled, inputs=inputs, labels=labels)

  with pytest.raises(types.BadInput, match='use running statistics'):
    scans.stream_gains(look, view.inputs, view.labels, 10)


def test_bad_input(make):
  with pytest.raises(
    types.BadInput, match=r'batch_size must be an integer >= 1; got 0'
  ):
    scans.stream_gains(lambda *_: make()[0], jnp.ones((3, 2)), jnp.ones(3), 0)
  with pytest.raises(types.BadInput, match='must not be empty; got 0 examples'):
    scans.stream_gains(lambda *_: make()[0], jnp.ones((0, 2)), jnp.ones(0), 1)
  for count in (2, 6):  # Neither is cut, or cuts the images.
    with pytest.raises(types.BadInput, match=rf'got 4 examples.*\({count},\)'):
      scans.stream_gains(
        lambda *_: make()[0], jnp.ones((4, 2)), jnp.zeros(count, int), 2
      )
  view, _ = make()
  real = dataclasses.replace(view, quantizer=None)
  gains, other = gains_of([0.1], [0.1]), gains_of([0.1, 0.2], [0.1, 0.1])
  key = jax.random.key(0)
  for call, message in (
    (
      lambda: scans.flip_descent(view, 0),
      r'max_flips must be an integer >= 1; got 0',
    ),
    (lambda: scans.flip_descent(view, 1, path='x'), r'path.*recompute'),
    (lambda: scans.flip_descent(view, 1, tolerance=-1.0), r'tolerance must'),
    (lambda: scans.flip_descent(real, 1), r'needs a quantised kernel'),
    (lambda: scans.flip_certificate(gains, other), r'of the same moves'),
    (lambda: scans.flip_certificate(gains, num_errors=-1.0), r'num_errors'),
    (lambda: scans.merge_gains(), r'at least one'),
    (lambda: scans.merge_gains(gains, other), r'of the same moves'),
    (
      lambda: scans.pair_gains(view, key, 0),
      r'num_pairs must be an integer >= 1',
    ),
    (
      lambda: scans.pair_gains(view, key, 1, among=jnp.array([1])),
      r'at least two moves',
    ),
    (
      lambda: scans.pair_gains(view, key, 1, among=jnp.array([1, 10**6])),
      r'among must be in \[0, .*got 1000000',
    ),
  ):
    with pytest.raises(types.BadInput, match=message):
      call()


def test_a_stage_of_one_unit():
  stages = (scans.Affine(2.0, jnp.array([1.0, 3.0])), scans.Activation('relu'))
  front = _coordinate_losses.of_unit(stages, jnp.int32(1))
  assert front[0](jnp.float32(1)) == 5 and front[1] is stages[1]


def test_of_a_sample_shares_have_errors_for_the_whole_layer(make):
  view, _ = make(seed=6, examples=60)
  other = dataclasses.replace(
    view, inputs=view.inputs[::-1], labels=view.labels[::2].repeat(2)
  )
  sample = scans.draw_sample(view, 12, jax.random.key(0))
  gains, holdout = (
    scans.flip_gains(v, coordinates=sample) for v in (view, other)
  )
  plain = scans.flip_certificate(
    *(dataclasses.replace(g, sample=None) for g in (gains, holdout))
  )
  found = scans.flip_certificate(gains, holdout)
  np.testing.assert_array_equal(found[:-1], plain[:-1])
  assert plain.sampling_errors is None
  improving = np.float64(gains.gains > 1e-6 * gains.loss).reshape(4, 3)
  # Three of the six weights of each of four channels.
  variance = (1 - 3 / 6) * improving.var(axis=1, ddof=1) / 3
  wanted = np.sqrt(variance.sum()) / 4
  errors = found.sampling_errors
  np.testing.assert_allclose(errors['improving'], wanted, rtol=1e-5)
  held = np.float64(holdout.gains).reshape(4, 3)
  # Of a ratio, to first order: the error of (total - ratio * count) / mean count.
  ratio = (held * improving).sum() / improving.sum()
  residual = improving * (held - ratio) / improving.mean()
  wanted = np.sqrt((0.5 * residual.var(axis=1, ddof=1) / 3).sum()) / 4
  np.testing.assert_allclose(errors['mean_holdout'], wanted, rtol=1e-4)
  assert set(errors) < set(scans.Certificate._fields)
  others = scans.draw_sample(view, 12, jax.random.key(1))
  others = scans.flip_gains(other, coordinates=others)
  with pytest.raises(types.BadInput, match='of different samples'):
    scans.flip_certificate(gains, others)


def test_a_sample_of_a_streamed_data_set(make):
  view, _ = make(seed=6, examples=60)
  sample = scans.draw_sample(view, 12, jax.random.key(0))

  def make_view(x, y):
    return dataclasses.replace(view, inputs=x, labels=y)

  streamed = jax.jit(
    lambda x, y, s: scans.stream_gains(make_view, x, y, 25, coordinates=s)
  )(view.inputs, view.labels, sample)
  whole = scans.flip_gains(view, coordinates=sample)
  np.testing.assert_allclose(streamed.gains, whole.gains, rtol=1e-5, atol=1e-7)
  found = [scans.flip_certificate(g) for g in (streamed, whole)]
  errors = [f.sampling_errors['improving'] for f in found]
  assert errors[0] == pytest.approx(errors[1]) and errors[1] > 0
