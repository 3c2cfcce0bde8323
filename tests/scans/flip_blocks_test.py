"""Descents by blocks of flips, against a loop over brute-force losses."""

import dataclasses

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import training
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


def tiny_resnet(scaling):
  """A Bi-Real ResNet-8 after some batch statistics, with five images."""
  sign = quantizers.attach(quantizers.sign(), quantizers.window())
  model = nn.resnet20(
    stages=(1, 1, 1), widths=(2, 3, 4), variant='bireal', scaling=scaling,
    kernel_quantizer=sign, input_quantizer=sign,
  )  # fmt: skip
  rng = np.random.default_rng(1)
  images = jnp.asarray(rng.normal(size=(5, 8, 8, 3)), jnp.float32)
  labels = jnp.asarray(rng.integers(0, 10, 5))
  keys = {'params': jax.random.key(0), 'quantizer': jax.random.key(1)}
  variables = model.init(keys, images, train=False)
  _, moved = model.apply(variables, images, train=True, mutable=['batch_stats'])
  return model, variables | moved, images, labels


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize('scaling', ['none', 'mean_abs'])
def test_blocks_of_a_residual_network_are_those_of_its_own_forward_passes(
  scaling,
):
  """Losses are computed by the model, of its variables with flipped weights."""
  model, variables, images, labels = tiny_resnet(scaling)
  view = nn.network_view(
    model, variables, images, labels, layers='quantized', freeze_scale=True
  )
  found = scans.flip_descent(view, 300, block=4)
  assert found.certified and found.num_flips > 4
  paths = [
    path for path in training.kernels(variables['params'])
    if path.startswith('Block')
  ]  # fmt: skip
  units, first = [], 0
  for layer in view.product.layers:
    own = np.arange(layer.kernel.size) % layer.kernel.shape[-1]
    units.append(own + first)
    first += layer.kernel.shape[-1]
  unit = np.concatenate(units)
  ends = np.cumsum([layer.kernel.size for layer in view.product.layers])

  @jax.jit
  def loss(flat):
    params = traverse_util.flatten_dict(variables['params'], sep='/')
    for name, part in zip(paths, jnp.split(flat, ends[:-1]), strict=True):
      kernel = params[f'{name}/kernel']
      params[f'{name}/kernel'] = part.reshape(kernel.shape)
    params = traverse_util.unflatten_dict(params, sep='/')
    logits = model.apply(variables | {'params': params}, images, train=False)
    return training.cross_entropy(logits, jax.nn.one_hot(labels, 10))

  flat, done, sizes = np.array(view.kernel), 0, []
  losses = np.asarray(found.losses)
  np.testing.assert_allclose(losses[0], loss(flat), rtol=1e-5)
  while done < found.num_flips:
    size = next(k for k in range(1, 5) if losses[done + k] != losses[done])
    places = np.asarray(found.moved[done : done + size])
    assert len({*unit[places]}) == size  # None meets another in one sum.
    before, promised = loss(flat), 0.0
    for place in places:
      one = flat.copy()
      one[place] *= -1
      gain = float(before - loss(one))
      assert gain > 0
      promised += gain
    flat[places] *= -1
    after = loss(flat)
    np.testing.assert_allclose(losses[done + size], after, rtol=1e-5)
    assert before - after >= 0.5 * promised - 1e-6
    done += size
    sizes.append(size)
  assert max(sizes) > 1
  end = np.asarray(view.kernel + found.displacement)
  np.testing.assert_array_equal(end < 0, flat < 0)
  # No flip is left: each of them, by a forward pass of the model.
  flips = flat * (1 - 2 * np.eye(flat.size, dtype=np.float32))
  assert losses[found.num_flips] - jax.lax.map(loss, flips).min() <= (
    2e-6 * losses[0]
  )


@pytest.mark.slow
def test_scales_of_weights_are_held_or_refused():
  model, variables, images, labels = tiny_resnet('mean_abs')
  with pytest.raises(types.BadInput, match='pass freeze_scale=True'):
    nn.network_view(model, variables, images, labels, layers='quantized')


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
