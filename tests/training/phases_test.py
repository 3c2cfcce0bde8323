"""Switches of quantizers during a training, and pretrained starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import training
from bitjax import types
from bitjax.training import _checkpoints
from bitjax.training import _state

LEARNED = quantizers.learned_dsq(1)
SWITCH, PERIOD = 6, 4


def named(tree):
  found, _ = jax.tree.flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in found
  }


@pytest.fixture(scope='module')
def phases(tiny):
  """Quantizes activations first, then also weights, by a learned quantizer."""
  tx = training.optimizer('adam', 0.02, quantizer_rate=0.5)
  models = (
    tiny.Net(weights=None),
    tiny.Net(weights=LEARNED, scaling='none'),
  )
  tasks = [tiny.task(model, tx, average=0.9) for model in models]
  return [
    training.Phase(tasks[0], SWITCH),
    training.Phase(tasks[1], tiny.STEPS),
  ]


@pytest.fixture(scope='module')
def staged(tiny, phases, tmp_path_factory):
  folder = tmp_path_factory.mktemp('staged')
  with tiny.as_in_tests():
    return tiny.train(phases, folder, period=PERIOD), folder


@pytest.fixture(scope='module')
def around(tiny, phases):
  """The state before and after a switch, and the images."""
  task = phases[1].task
  part = tiny.dataset()
  with tiny.as_in_tests():
    before = tiny.train(phases[:1]).state
    images = tiny.prepare(jnp.asarray(part.images[:4]))
    return before, _state.switch(before, task.model, task.tx, images), images


def test_a_switch_keeps_weights_and_moments(around):
  before, after, _ = around
  old, new = named(before._replace(key=0)), named(after._replace(key=0))
  added = {path for path in new if path not in old}
  assert added and all('kernel_quantizer' in path for path in added)
  assert set(old) <= set(new)
  for path, leaf in old.items():
    assert new[path].tobytes() == leaf.tobytes(), path
  assert any('/mu/' in path for path in old)
  assert old['step'] == SWITCH
  for path in added:
    if path.startswith('opt_state'):
      assert not new[path].any()
  np.testing.assert_array_equal(
    jax.random.key_data(before.key), jax.random.key_data(after.key)
  )


def test_learned_quantizers_begin_from_the_weights(around):
  before, after, _ = around
  kernel = before.params['Block_0']['kernel'][0]
  wanted = LEARNED.init(None, kernel)
  found = after.params['Block_0']['kernel_quantizer']
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-6), found, wanted
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, b),
    after.average['params']['Block_0']['kernel_quantizer'],
    found,
  )


def test_a_switch_between_learned_quantizers(tiny, around):
  """The old one's parameters are dropped; the new one's begin from the weights."""
  _, after, images = around
  other = tiny.Net(weights=quantizers.lsq(2), scaling='none')
  tx = training.optimizer('adam', 0.02)
  third = _state.switch(after, other, tx, images)
  kernel = after.params['Block_0']['kernel'][0]
  wanted = quantizers.lsq(2).init(None, kernel)
  found = third.params['Block_0']['kernel_quantizer']
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-6), found, wanted
  )
  paths = named(third._replace(key=0))
  assert not any('lower' in path for path in paths)
  back = _state.switch(third, tiny.Net(weights=None), tx, images)
  assert not any('quantizer' in path for path in named(back._replace(key=0)))


@pytest.mark.slow
def test_rows_cover_whole_periods(tiny, phases, staged):
  """A row averages all steps of its period, even if quantizers change in it."""
  rough, fine = staged[0].history, tiny.train(phases, period=2).history
  np.testing.assert_array_equal(rough['step'], [4, 8, 12, 13])
  np.testing.assert_array_equal(fine['step'], [2, 4, 6, 8, 10, 12, 13])
  for name in ('train_loss', 'train_accuracy', 'flip_ratio/Block_0'):
    for row in range(3):
      np.testing.assert_allclose(
        rough[name][row],
        np.mean(fine[name][2 * row : 2 * row + 2], axis=0),
        rtol=1e-5,
      )


@pytest.mark.parametrize(
  'chunks', [pytest.param(1, marks=pytest.mark.slow), 2, 3]
)  # 3 is at the switch.
def test_resume(tiny, phases, staged, same, tmp_path, chunks):
  def stop():
    raise KeyboardInterrupt

  wanted, folder = staged
  with pytest.raises(KeyboardInterrupt):
    tiny.train(phases, tmp_path, period=PERIOD, report=tiny.Stop(chunks, stop))
  again = tiny.train(phases, tmp_path, period=PERIOD)
  assert same(again.state, wanted.state)
  assert same(again.history, wanted.history)
  text = (tmp_path / 'history.csv').read_text()
  assert text == (folder / 'history.csv').read_text()


def test_the_best_is_one_of_the_last_phase(tiny, phases, tmp_path, monkeypatch):
  """Accuracies of earlier phases do not count."""
  save, seen = _checkpoints.Checkpoints.save, {}

  def spy(self, state, description, **options):
    seen[int(state.step[0])] = options['accuracy']
    save(self, state, description, **options)

  monkeypatch.setattr(_checkpoints.Checkpoints, 'save', spy)
  tiny.train(phases, tmp_path, period=PERIOD)
  assert {step for step, score in seen.items() if score is not None} == {
    *range(2 * PERIOD, tiny.STEPS, PERIOD),
    tiny.STEPS,
  }
  assert {2, PERIOD, SWITCH} < seen.keys()
  folder = tmp_path / 'checkpoints'
  best = training.load_variables(folder, which='best')
  assert 'kernel_quantizer' in best['params']['Block_0']


def test_a_checkpoint_of_a_later_phase(tiny, phases, staged):
  with pytest.raises(
    types.BadInput, match='is in phase 2; this training has 1'
  ):
    tiny.train(phases[:1], staged[1])


@pytest.mark.parametrize('ends', [[], [5, 5], [6, 5]])
def test_ends_that_do_not_grow(tiny, task, ends):
  with pytest.raises(types.BadInput, match='phases must end later and later'):
    tiny.train([training.Phase(task, end) for end in ends])


@pytest.fixture(scope='module')
def full(tiny):
  """Returns the variables of a full-precision network, and images."""
  model = tiny.Net(weights=None, inputs=None)
  images = tiny.prepare(jnp.asarray(tiny.dataset().images[:4]))
  variables = jax.jit(model.init)(jax.random.key(5), images)
  return jax.tree.map(lambda leaf: leaf + 0.01, variables), images


class TestPretrained:
  """Trainings of quantized networks that begin with full-precision weights."""

  def test_latent_weights_are_the_checkpoints(self, tiny, full):
    variables, images = full
    quantizer = quantizers.lsq(2)
    pact = quantizers.pact(2)
    model = tiny.Net(weights=quantizer, inputs=pact, scaling='none')
    tx = training.optimizer('sgd', 0.1, frozen=('Dense_0', 'quantizer'))
    state = training.create(model, tx, [0, 1], images, variables=variables)
    old, new = named(variables), named(training.variables_of(state))
    for path, leaf in old.items():
      np.testing.assert_array_equal(new[path], [leaf, leaf], err_msg=path)
    added = [path for path in new if path not in old]
    assert added and all('quantizer' in path for path in added)
    kernel = variables['params']['Block_0']['kernel']
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-6),
      state.params['Block_0']['kernel_quantizer'],
      quantizer.init(None, kernel),
    )

  def test_each_seed_has_its_own(self, tiny, full):
    variables, images = full
    other = jax.tree.map(lambda leaf: 2 * leaf, variables)
    model = tiny.Net(weights=quantizers.lsq(2), scaling='none')
    tx = training.optimizer('sgd', 0.1)
    both = training.create(
      model, tx, [3, 4], images, variables=[variables, other]
    )
    for at, some in enumerate((variables, other)):
      alone = training.create(model, tx, [3 + at], images, variables=[some])
      for name in ('params', 'collections'):
        jax.tree.map(
          lambda a, b, at=at: np.testing.assert_allclose(
            a[at], b[0], rtol=1e-6
          ),
          getattr(both, name),
          getattr(alone, name),
        )
    np.testing.assert_array_equal(
      both.params['Dense_0']['kernel'],
      [one['params']['Dense_0']['kernel'] for one in (variables, other)],
    )
    with pytest.raises(types.BadInput, match='each seed; got 1 for 2 seeds'):
      training.create(model, tx, [3, 4], images, variables=[variables])

  def test_a_training_from_there(self, tiny, full):
    variables, _ = full
    model = tiny.Net(weights=LEARNED, scaling='none')
    tx = training.optimizer('sgd', 0.1, frozen=('Dense_0', 'quantizer'))
    fitted = tiny.train(
      tiny.task(model, tx), until=4, variables=variables, scored=False
    )
    params = fitted.state.params
    old = variables['params']
    np.testing.assert_array_equal(
      params['Dense_0']['kernel'][0], old['Dense_0']['kernel']
    )
    assert np.any(params['Block_0']['kernel'][0] != old['Block_0']['kernel'])
    first = LEARNED.init(None, old['Block_0']['kernel'])
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-6),
      params['Block_0']['kernel_quantizer'],
      first,
    )
    assert not np.any(fitted.history['flip_ratio/Dense_0'])

  @pytest.mark.slow
  def test_learned_quantizers_of_others_begin_anew(self, tiny, full):
    _, images = full
    other = tiny.Net(weights=LEARNED, scaling='none')
    made = jax.jit(other.init)(jax.random.key(0), images)
    model = tiny.Net(weights=quantizers.lsq(2), scaling='none')
    training.check_fits(model, made, images)
    tx = training.optimizer('sgd', 0.1)
    state = training.create(model, tx, [0], images, variables=made)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-6),
      state.params['Block_0']['kernel_quantizer'],
      quantizers.lsq(2).init(None, made['params']['Block_0']['kernel']),
    )

  def test_checkpoints_of_other_networks(self, tiny, full):
    variables, images = full
    wide = tiny.Net(width=7)
    message = r'BatchNorm_0/mean is float32\[6\] there, here float32\[7\]'
    with pytest.raises(types.BadInput, match=message):
      training.check_fits(wide, variables, images)
    with pytest.raises(types.BadInput, match=message):
      tiny.train(tiny.task(wide), variables=variables)
    less = {'params': variables['params']}
    with pytest.raises(
      types.BadInput, match='has batch_stats/BatchNorm_0/mean'
    ):
      training.check_fits(tiny.Net(), less, images)
    more = tiny.Net(norm=False)
    message = 'batch_stats/BatchNorm_0/mean is .* here absent'
    with pytest.raises(types.BadInput, match=message):
      training.check_fits(more, variables, images)

  def test_rates_need_a_factor(self, tiny, full):
    import optax

    with pytest.raises(types.BadInput, match='rates need an optimiser of'):
      training.create(tiny.Net(), optax.sgd(0.1), [0], full[1], rates=[0.5])


def test_kernels_come_in_the_order_of_the_network():
  layers = (
    *('Conv_0', 'Conv_2', 'Conv_10'),
    *('Block_0/Conv_0', 'Block_0/Conv_1', 'Block_0/Conv_shortcut'),
    *('Block_9/Conv_0', 'Block_10/Conv_0', 'Dense_0'),
  )
  params = {}
  for layer in sorted(layers):
    inner = params
    for name in layer.split('/'):
      inner = inner.setdefault(name, {})
    inner['kernel'] = np.zeros(1)
  assert tuple(training.kernels(params)) == layers
