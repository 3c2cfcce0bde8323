"""The training loop against a loop in plain optax, and against itself."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import data
from bitjax import sizes
from bitjax import training
from bitjax import types
from bitjax.training import _seeds


def loop(tiny, model, seed):
  """Trains as `fit` should, step by step; also returns a row for each step."""
  part = tiny.dataset()
  feed = data.device_feed(part, tiny.BATCH, seed)
  init_key, _ = jax.random.split(jax.random.key(seed))
  rngs = dict(
    zip(('params', 'quantizer'), jax.random.split(init_key), strict=True)
  )
  images = tiny.prepare(jnp.asarray(part.images[feed.chunk(0, 1)[0]]))
  variables = jax.jit(model.init)(rngs, images, progress=0.0)
  params, moving = variables['params'], variables['batch_stats']
  tx = optax.adam(0.02)

  @jax.jit
  def step(params, moving, opt_state, images, labels, progress):
    def loss(params):
      logits, new = model.apply(
        {'params': params, 'batch_stats': moving},
        images,
        train=True,
        progress=progress,
        mutable=['batch_stats'],
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return jnp.mean(losses), (new['batch_stats'], logits)

    (value, (moving, logits)), gradient = jax.value_and_grad(
      loss, has_aux=True
    )(params)
    updates, opt_state = tx.update(gradient, opt_state)
    right = jnp.mean(jnp.argmax(logits, -1) == labels)
    params = optax.apply_updates(params, updates)
    return params, moving, opt_state, value, right

  opt_state, rows = tx.init(params), []
  for t in range(tiny.STEPS):
    indices = feed.chunk(t, 1)[0]
    before = params
    params, moving, opt_state, value, right = step(
      params,
      moving,
      opt_state,
      tiny.prepare(jnp.asarray(part.images[indices])),
      jnp.asarray(part.labels[indices]),
      t / (tiny.STEPS - 1),
    )
    flips = {
      name: np.mean(
        (np.asarray(params[name]['kernel']) < 0)
        != (np.asarray(before[name]['kernel']) < 0)
      )
      for name in ('Dense_0', 'Block_0', 'Dense_1')
    }
    rows.append((value, right, flips))
  return params, moving, rows


def test_against_an_independent_loop(tiny, whole):
  fitted, _ = whole
  params, moving, rows = loop(tiny, tiny.Net(), 3)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[0], b, rtol=2e-5, atol=2e-6),
    training.variables_of(fitted.state),
    {'params': params, 'batch_stats': moving},
  )
  history = fitted.history
  np.testing.assert_array_equal(history['step'], [5, 10, 13])
  assert fitted.state.step == 13
  for row, part in enumerate((rows[:5], rows[5:10], rows[10:])):
    values, right, flips = zip(*part, strict=True)
    np.testing.assert_allclose(
      history['train_loss'][row], np.mean(values), rtol=1e-4
    )
    np.testing.assert_allclose(
      history['train_accuracy'][row], np.mean(right), rtol=1e-5
    )
    for layer in flips[0]:
      np.testing.assert_allclose(
        history[f'flip_ratio/{layer}'][row],
        np.mean([flip[layer] for flip in flips]),
        rtol=1e-5,
        atol=1e-7,
      )
  assert np.max(history['flip_ratio/Block_0']) > 0
  np.testing.assert_allclose(
    history['progress'][:, 0], np.array([4, 9, 12]) / 12, rtol=1e-6
  )
  totals = jax.tree.leaves(
    fitted.state.totals
  )  # They are reset after a report.
  assert all(not np.any(leaf) for leaf in totals)


@pytest.mark.parametrize('chunk', [1, 3, 100])
def test_chunks_do_not_matter(tiny, task, whole, same, chunk):
  fitted, _ = whole
  again = tiny.train(task, chunk=chunk)
  assert same(again.state, fitted.state)
  assert same(again.history, fitted.history)


@pytest.mark.parametrize('seed', [-1, 2**32, 2**64])
def test_seeds_are_checked_before_anything_is_trained(tiny, task, seed):
  feeds = data.device_feeds(tiny.dataset(), tiny.BATCH, [3, 4])
  phase = training.Phase(task, tiny.STEPS)
  with pytest.raises(types.BadInput, match=r'^seeds must be'):
    training.fit(phase, feeds, [3, seed])
  model, images = tiny.Net(), tiny.prepare(tiny.dataset().images[:2])
  with pytest.raises(types.BadInput, match=r'^seeds must be'):
    training.create(model, training.optimizer('adam', 0.1), [3, seed], images)


@pytest.mark.slow
def test_ways_to_run_seeds_are_the_same_to_rounding(tiny, task):
  """Vectorised, in a loop of one program, or the program of one, launched for each."""
  found = {
    together: tiny.train(
      task, seeds=(7, 3), rates=(0.5, 1.0), until=5, together=together
    )
    for together in sizes.SEEDS
  }
  vectorised = found.pop('vmap')
  for other in found.values():
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
      other.state._replace(key=jax.random.key_data(other.state.key)),
      vectorised.state._replace(key=jax.random.key_data(vectorised.state.key)),
    )
    assert other.history.keys() == vectorised.history.keys()
    for name, values in other.history.items():
      np.testing.assert_allclose(
        values, vectorised.history[name], rtol=1e-3, atol=1e-5
      )


class TestWaysToRunSeeds:
  @pytest.fixture
  def devices(self):
    return jax.make_mesh((1,), ('lanes',))

  def test_the_kind_of_device_chooses(self, monkeypatch):
    for kind in ('cpu', 'gpu'):
      monkeypatch.setattr(jax, 'default_backend', lambda kind=kind: kind)
      assert _seeds.choose(None) == sizes.of(kind).seeds
    assert _seeds.choose('vmap') == 'vmap'

  def test_devices_of_a_mesh_run_one_program(self, devices, monkeypatch):
    streams = dataclasses.replace(sizes.of('gpu'), seeds='stream')
    monkeypatch.setattr(sizes, 'here', lambda: streams)
    assert _seeds.choose(None) == 'stream'
    assert _seeds.choose(None, devices) == 'map'

  def test_bad_ones_are_refused_first(self, tiny, task, tmp_path, devices):
    with pytest.raises(
      types.BadInput, match=r"together must be .*; got 'pmap'"
    ):
      tiny.train(task, tmp_path / 'a', together='pmap')
    with pytest.raises(types.BadInput, match='on a mesh'):
      tiny.train(task, tmp_path / 'b', together='stream', mesh=devices)
    assert not list(tmp_path.iterdir())

  @pytest.mark.parametrize('together', ['vmap', 'map'])
  def test_only_vectorised_kernels_are_grouped(self, together):
    conv = functools.partial(
      jax.lax.conv_general_dilated,
      window_strides=(1, 1),
      padding='SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    program = jax.make_jaxpr(_seeds.inside(conv, 4, together))(
      jnp.ones((4, 2, 5, 5, 3)), jnp.ones((4, 3, 3, 3, 6))
    )
    groups = re.findall(r'feature_group_count=(\d+)', str(program))
    assert groups == ['4' if together == 'vmap' else '1']


def test_a_launch_runs_as_many_updates_as_suit_the_device(
  tiny, task, monkeypatch
):
  report = tiny.Stop(100, lambda: None)
  few = dataclasses.replace(sizes.of('cpu'), updates=2)
  monkeypatch.setattr(sizes, 'here', lambda: few)
  tiny.train(task, until=7, report=report, chunk=None)
  assert [images for images, _ in report.calls[1:]] == [8, 8, 4, 8]


def test_a_feed_from_the_host_gives_the_same(tiny, task, whole, same):
  fitted, _ = whole
  part = tiny.dataset()
  source = list(zip(part.images, part.labels, strict=True))
  feed = data.host_feed(source, tiny.BATCH, 3)
  again = training.fit(
    training.Phase(task, tiny.STEPS), [feed], [3], chunk=tiny.CHUNK
  )
  assert same(again.state, fitted.state)
  assert same(again.history['train_loss'], fitted.history['train_loss'])


def test_it_reports_images(tiny, task):
  report = tiny.Stop(100, lambda: None)
  tiny.train(task, until=7, report=report)
  assert report.compiled == ['from epoch 0']
  begin, *chunks = report.calls
  assert begin == (28, 0)
  assert [images for images, _ in chunks] == [8, 8, 4, 8]
  labels = [label for _, label in chunks]
  assert labels[:2] == ['', '']
  assert labels[2].startswith('epoch 1, loss ') and ' %' in labels[2]
  assert labels[3].startswith('epoch 1.4, ')


def test_seeds_side_by_side_are_as_if_alone(tiny, task, whole):
  alone, _ = whole
  several = tiny.train(task, seeds=(7, 3), rates=(0.5, 1.0))
  half = tiny.train(task, seeds=(7,), rates=(0.5,))
  whole_rate = tiny.train(task, seeds=(7,), until=1)
  first = tiny.train(task, seeds=(7,), rates=(0.5,), until=1)
  start = tiny.start(task, 7)
  jax.tree.map(
    lambda a, b, c: np.testing.assert_allclose(
      2 * (a - c), b - c, rtol=1e-4, atol=1e-6
    ),
    first.state.params,
    whole_rate.state.params,
    start.params,
  )
  for lane, one in ((0, half), (1, alone)):
    for name in ('params', 'collections'):
      jax.tree.map(
        lambda a, b, lane=lane: np.testing.assert_allclose(
          a[lane], b[0], rtol=1e-5, atol=1e-5
        ),
        getattr(several.state, name),
        getattr(one.state, name),
      )
    assert several.history.keys() == one.history.keys()
    for name, values in several.history.items():
      if name != 'step':
        np.testing.assert_allclose(
          values[:, lane], one.history[name][:, 0], rtol=1e-3, atol=1e-5
        )
