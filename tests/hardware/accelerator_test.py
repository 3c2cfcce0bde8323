# amaranth: UnusedElaboratable=no
"""A chain of units against the packed network that it was made of, on real digits."""

import jax
import numpy as np
import optax
import pytest

pytest.importorskip('amaranth')

from bitjax import data
from bitjax import deploy
from bitjax import nn
from bitjax import types
from hardware import __main__ as command
from hardware import accelerator


def train(name, hidden, updates):
  """Returns a packed MLP, trained a little on real digits, and test images."""
  train, test = (data.load(name, split=split) for split in ('train', 'test'))
  model = nn.binary_mlp(hidden=hidden, batch_norm=True, input_scale=train.scale)
  variables = model.init(jax.random.key(0), train.images[:2])
  tx = optax.adam(1e-2)

  @jax.jit
  def update(variables, state, images, labels):
    def loss(params):
      logits, changed = model.apply(
        variables | {'params': params},
        images,
        train=True,
        mutable=['batch_stats'],
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return losses.mean(), changed

    grads, changed = jax.grad(loss, has_aux=True)(variables['params'])
    moves, state = tx.update(grads, state)
    params = optax.apply_updates(variables['params'], moves)
    return {'params': params, **changed}, state

  state = tx.init(variables['params'])
  rng = np.random.default_rng(0)
  for _ in range(updates):
    rows = rng.integers(0, len(train.images), 64)
    variables, state = update(
      variables, state, train.images[rows], train.labels[rows]
    )
  return deploy.pack_network(model, variables, test.images[:1]), test


@pytest.fixture(scope='module')
def small():
  """Returns a packed MLP with random normalisations, and real digits."""
  test = data.load('digits', split='test')
  model = nn.binary_mlp(
    hidden=(16, 16), batch_norm=True, input_scale=test.scale
  )
  variables = model.init(jax.random.key(0), test.images[:2])
  rng = np.random.default_rng(0)
  leaves, tree = jax.tree.flatten(variables)
  leaves = [
    leaf + rng.uniform(-0.2, 0.2, leaf.shape).astype(leaf.dtype)
    for leaf in leaves
  ]
  variables = jax.tree.unflatten(tree, leaves)
  return deploy.pack_network(model, variables, test.images[:1]), test


@pytest.fixture(scope='module')
def layers(small):
  return accelerator.layers_of(small[0])


def test_layers(small, layers):
  shapes = [layer.weights.shape for layer in layers]
  assert shapes == [(64, 16), (16, 16), (16, 10)]
  assert [layer.input_bits for layer in layers] == [8, 1, 1]
  images = small[1].images[:50].reshape(50, -1).astype(int)
  for layer in layers[:-1]:
    sums = images @ layer.weights.astype(int)
    images = 2 * ((sums >= layer.low) != layer.flip) - 1
  sums = images @ layers[-1].weights.astype(int)
  np.testing.assert_array_equal(
    sums, accelerator.sums_of(small[0], small[1].images[:50])
  )
  assert len(np.unique(sums, axis=0)) > 10


@pytest.mark.parametrize('most', [16, 64, 256])
def test_every_bit_and_every_cycle(small, layers, most):
  network, test = small
  folding = accelerator.fold(layers, most)
  cycles = [
    layer.unit(*folds).cycles
    for layer, folds in zip(layers, folding, strict=True)
  ]
  assert max(cycles) <= most
  images = test.images[:6]
  chain = accelerator.Accelerator(layers, folding)
  found = accelerator.simulate(chain, images.reshape(6, -1))
  np.testing.assert_array_equal(
    found.outputs, accelerator.sums_of(network, images)
  )
  # The slowest unit never waits for the others.
  assert np.diff(found.cycles)[1:].tolist() == [max(cycles)] * 4


def test_folding_is_the_cheapest(layers):
  folding = accelerator.fold(layers[1:], 64)

  def luts(folds):
    pairs = zip(layers[1:], folds, strict=True)
    units = [layer.unit(*own) for layer, own in pairs]
    slow = max(unit.cycles for unit in units) > 64
    return np.inf if slow else sum(unit.luts for unit in units)

  sides = [1, 2, 4, 8, 16]
  every = [
    [(pe, simd), (last, pe)]
    for pe in sides for simd in sides for last in (1, 2, 5, 10)
  ]  # fmt: skip
  assert luts(folding) == min(map(luts, every))


def test_bad_input(layers):
  with pytest.raises(types.BadInput, match='at most 0 cycles'):
    accelerator.fold(layers, 0)
  with pytest.raises(types.BadInput, match='needs simd=4 in the next; got 2'):
    accelerator.Accelerator(layers, [(4, 8), (4, 2), (2, 4)])
  model = nn.binary_mlp(hidden=(8,))
  images = np.zeros((2, 12), np.float32)
  variables = model.init(jax.random.key(0), images)
  network = deploy.pack_network(model, variables, images)
  with pytest.raises(types.BadInput, match='must be an MLP of bytes'):
    accelerator.layers_of(network)


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ([], 'must be of images of 28 x 28 pixels; got 8 x 8 x 1'),
    (['--images=0'], 'images must be an integer >= 1; got 0'),
    (['--cycles=0'], 'takes at most 0 cycles'),
    (['none.bitjax'], 'none.bitjax'),
  ],
)
def test_command_refuses_in_one_line(small, flags, words, tmp_path, capsys):
  file = tmp_path / 'small.bitjax'
  deploy.save(small[0], file)
  if not flags or flags[0].startswith('--'):
    flags = [str(file), *flags]
  assert command.main(flags) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('python -m hardware: ') and words in line


@pytest.mark.slow
def test_command(tmp_path, capsys):
  network, test = train('mnist5k', (64, 64), updates=100)
  logits = np.asarray(network(test.images[:500]))
  assert np.mean(logits.argmax(-1) == test.labels[:500]) > 0.6
  file = tmp_path / 'digits.bitjax'
  deploy.save(network, file)
  assert command.main([str(file), '--images=3', '--cycles=196']) == 0
  assert '3 images: the sums are equal' in capsys.readouterr().out
