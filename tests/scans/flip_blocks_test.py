"""Descents by blocks of flips, against a loop over brute-force losses."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types

BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())


def layer(seed=0, fan_in=5, units=4, examples=60):
  rng = np.random.default_rng(seed)
  return scans.LayerView(
    inputs=jnp.asarray(rng.normal(size=(examples, fan_in)), jnp.float32),
    kernel=jnp.asarray(rng.normal(size=(fan_in, units)), jnp.float32),
    labels=jnp.asarray(rng.integers(0, 3, examples)),
    tail=(
      scans.Activation('sign', BINARY),
      scans.Dense(jnp.asarray(rng.normal(size=(units, 3)), jnp.float32)),
    ),
    quantizer=BINARY,
  )


def network(seed=0):
  rng = np.random.default_rng(seed)
  dense = lambda a, b: scans.Dense(
    jnp.asarray(rng.normal(size=(a, b)), jnp.float32),
    BINARY,
    affine=scans.Affine(scale=jnp.float32(a**-0.5)),
  )
  act = scans.Activation('sign', BINARY)
  return scans.network_view(
    jnp.asarray(rng.normal(size=(40, 4)), jnp.float32),
    jnp.asarray(rng.integers(0, 3, 40)),
    [dense(4, 5), act, dense(5, 3), act, dense(3, 3)],
  )


def loop(view, unit, block, promise, most):
  """The rule of the docstring, on losses that are computed one by one."""
  signs = np.where(np.asarray(view.kernel) >= 0, 1.0, -1.0).ravel()
  loss = lambda s: float(
    view.loss(jnp.asarray(s.reshape(view.kernel.shape), jnp.float32))
  )
  flipped = lambda s, places: np.where(
    np.isin(np.arange(s.size), places), -s, s
  )
  first, moved, losses, blocks = loss(signs), [], [loss(signs)], []
  while len(moved) < most:
    now = loss(signs)
    gains = np.array(
      [now - loss(flipped(signs, [k])) for k in range(signs.size)]
    )
    best = [
      max(np.flatnonzero(unit == u), key=lambda k: (gains[k], -k))
      for u in range(unit.max() + 1)
    ]
    best.sort(key=lambda k: -gains[k])
    best = [k for k in best if gains[k] > 1e-6 * first][
      : min(block, most - len(moved))
    ]
    if not best:
      return signs, moved, losses, blocks, True
    while len(best) > 1 and (
      now - loss(flipped(signs, best)) < promise * gains[best].sum()
    ):
      best = best[: len(best) // 2]
    signs = flipped(signs, best)
    moved += best
    losses += [losses[-1]] * (len(best) - 1) + [loss(signs)]
    blocks.append(len(best))
  return signs, moved, losses, blocks, False


@pytest.mark.optimised
@pytest.mark.parametrize(
  ('seed', 'fan_in', 'units', 'promise'),
  [(0, 5, 4, 0.5), pytest.param(7, 6, 8, 0.9, marks=pytest.mark.slow)],
)
def test_blocks_equal_the_loop_and_end_at_an_optimum(
  seed, fan_in, units, promise
):
  view = layer(seed, fan_in, units)
  unit = np.arange(view.kernel.size) % units
  found = scans.flip_descent(view, 60, block=6, promise=promise)
  signs, moved, losses, sizes, certified = loop(view, unit, 6, promise, 60)
  assert certified and found.certified and found.path == 'recompute'
  assert found.num_flips == len(moved) and max(sizes) > 1
  np.testing.assert_array_equal(found.moved[: len(moved)], moved)
  np.testing.assert_allclose(found.losses[: len(losses)], losses, rtol=1e-5)
  end = np.asarray(view.kernel + found.displacement)
  np.testing.assert_array_equal(np.where(end >= 0, 1, -1).ravel(), signs)
  at = dataclasses.replace(view, kernel=jnp.asarray(end))
  gains = scans.flip_gains(at, path='brute_force').gains
  assert gains.max() <= 2e-6 * losses[0]


@pytest.mark.slow
@pytest.mark.optimised
def test_blocks_of_a_whole_network_keep_what_they_promise():
  """Of equal gains any may come first, so each block is checked where it was made."""
  view = network()
  unit = np.concatenate([
    np.tile(np.arange(5), 4), 5 + np.tile(np.arange(3), 5),
    8 + np.tile(np.arange(3), 3),
  ])  # fmt: skip
  found = scans.flip_descent(view, 60, block=6)
  assert found.certified
  kernel, done, sizes = view.kernel, 0, []
  losses = np.asarray(found.losses)
  while done < found.num_flips:
    size = next(k for k in range(1, 7) if losses[done + k] != losses[done])
    places = np.asarray(found.moved[done : done + size])
    at = dataclasses.replace(view, kernel=kernel)
    gains = scans.flip_gains(at, path='brute_force').gains[places]
    assert gains.min() > 0 and len({*unit[places]}) == size
    kernel = kernel.at[places].set(scans.moves(at).destinations[0][places])
    after = view.loss(kernel)
    np.testing.assert_allclose(losses[done + size], after, rtol=1e-5)
    assert losses[done] - after >= 0.5 * gains.sum() - 1e-6
    done += size
    sizes.append(size)
  assert max(sizes) > 1
  np.testing.assert_allclose(
    kernel, view.kernel + found.displacement, atol=1e-6
  )
  at = dataclasses.replace(view, kernel=kernel)
  gains = scans.flip_gains(at, path='brute_force').gains
  assert gains.max() <= 2e-6 * losses[0]


def test_a_limit_ends_a_descent_within_a_block():
  view = layer(7, 6, 8)
  whole = scans.flip_descent(view, 60, block=6)
  few = scans.flip_descent(view, 3, block=6)
  assert few.num_flips == 3 < whole.num_flips and not few.certified
  assert few.losses.shape == (4,) and (few.moved >= 0).all()
  assert few.losses[-1] < few.losses[0]


def test_a_block_of_one_is_a_descent_by_single_flips():
  view = layer(3)
  single = scans.flip_descent(view, 40, path='recompute')
  one = scans.flip_descent(view, 40, block=1)
  np.testing.assert_array_equal(single.moved, one.moved)


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'block': 0}, 'block must be an integer >= 1'),
    ({'block': 2, 'promise': 0.0}, 'promise must be'),
    ({'block': 2, 'promise': 1.5}, 'promise must be'),
    ({'block': 2, 'path': 'incremental'}, 'Blocks compute all gains anew'),
  ],
)
def test_bad_input(options, words):
  with pytest.raises(types.BadInput, match=words):
    scans.flip_descent(layer(), 4, **options)
