"""Evaluation counts each example once, with the quantizers that are deployed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import training
from bitjax import types
from bitjax.training import _task


def logits(tiny, model, variables, part):
  images = tiny.prepare(jnp.asarray(part.images))
  apply = jax.jit(lambda *args: model.apply(*args, progress=1.0))
  return np.asarray(apply(variables, images), np.float64)


def scores(z, labels):
  z = z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))
  losses = -z[np.arange(len(labels)), labels]
  return losses.mean(), np.mean(z.argmax(-1) == labels)


def test_every_example_counts_once(tiny, task, whole):
  """There are 11 examples in batches of 8, of which the last is padded."""
  fitted, _ = whole
  part = tiny.dataset(11, 1)
  variables = training.variables_of(fitted.state)
  one = jax.tree.map(lambda leaf: leaf[0], variables)
  loss, accuracy = scores(logits(tiny, task.model, one, part), part.labels)
  found = training.evaluator(task, 1)(variables, tiny.batches(part))
  np.testing.assert_allclose(found.loss, [loss], rtol=1e-5)
  np.testing.assert_allclose(found.accuracy, [accuracy], rtol=1e-6)
  right = logits(tiny, task.model, one, part).argmax(-1) == part.labels
  np.testing.assert_array_equal(found.right.reshape(-1), [*right, *[0] * 5])
  history = fitted.history
  np.testing.assert_allclose(history['validation_loss'][-1], loss, rtol=1e-5)
  np.testing.assert_allclose(
    history['validation_accuracy'][-1], accuracy, rtol=1e-6
  )


@pytest.fixture(scope='module')
def averaged(tiny):
  return tiny.task(average=0.6)


@pytest.mark.slow
def test_moving_average(tiny, averaged, same):
  """It equals NumPy's from the first update on, and evaluation uses it."""
  state = tiny.start(averaged, 3, average=True)
  part, feed = tiny.dataset(), data.device_feed(tiny.dataset(), tiny.BATCH, 3)
  run = _task.loop(averaged, feed.take, 1)
  wanted = jax.tree.map(
    lambda leaf: np.array(leaf, np.float64), training.variables_of(state)
  )
  for t in range(tiny.STEPS):
    fed = np.pad(feed.chunk(t, 1)[None], ((0, 0), (0, 1), (0, 0)))
    state = run(state, feed.arrays, fed, 1, None)
    decay = min(0.6, (1 + t) / (10 + t))
    wanted = jax.tree.map(
      lambda old, new, decay=decay: decay * old + (1 - decay) * np.asarray(new),
      wanted,
      training.variables_of(state),
    )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    training.variables_of(state, average=True),
    wanted,
  )
  fitted = tiny.train(averaged)
  assert same(fitted.state.average, state.average)
  held_out = tiny.dataset(11, 1)
  one = jax.tree.map(lambda leaf: leaf[0], state.average)
  loss, _ = scores(logits(tiny, averaged.model, one, held_out), held_out.labels)
  np.testing.assert_allclose(
    fitted.history['validation_loss'][-1], loss, rtol=1e-5
  )
  assert len(part.labels) == 21


def test_progress_is_1_in_evaluation(tiny):
  """Evaluation does not use the training's schedule of progress."""
  from bitjax import quantizers

  soft = quantizers.attach(
    quantizers.progressive_hardtanh(), quantizers.identity()
  )
  model = tiny.Net(inputs=soft)
  task = tiny.task(model, progress=lambda step: jnp.float32(0.1))
  state = tiny.start(task, 0)
  part = tiny.dataset(11, 1)
  variables = training.variables_of(state)
  one = jax.tree.map(lambda leaf: leaf[0], variables)
  images = tiny.prepare(jnp.asarray(part.images))
  apply = jax.jit(model.apply)
  hard, soft = (np.asarray(apply(one, images, progress=p)) for p in (1.0, 0.1))
  found = training.evaluator(task, 1)(variables, tiny.batches(part))
  np.testing.assert_allclose(
    found.loss, [scores(hard, part.labels)[0]], rtol=1e-5
  )
  assert abs(scores(soft, part.labels)[0] - found.loss[0]) > 1e-3


def test_random_quantizers_are_evaluated_too(tiny):
  from bitjax import quantizers

  random = quantizers.attach(
    quantizers.stochastic_sign(), quantizers.identity()
  )
  task = tiny.task(tiny.Net(inputs=random))
  state = tiny.start(task, 0)
  variables = training.variables_of(state)
  evaluate = training.evaluator(task, 1)
  found, again = (
    evaluate(variables, tiny.batches(tiny.dataset(11, 1))) for _ in range(2)
  )
  assert np.isfinite(found.loss).all()
  jax.tree.map(np.testing.assert_array_equal, found, again)
  one = jax.tree.map(lambda leaf: leaf[0], variables)
  pretrained = tiny.start(task, 1, variables=one)
  np.testing.assert_array_equal(
    pretrained.params['Block_0']['kernel'], state.params['Block_0']['kernel']
  )


def test_statistics_of_layers(tiny, task, whole):
  """They equal NumPy's, from the gradients of four groups of two images."""
  fitted, _ = whole
  state = fitted.state
  part = tiny.dataset()
  found = training.statistician(task, 1)(state, tiny.probe(part), None)
  assert set(found) == set(training.STATISTICS)
  params, collections = (
    jax.tree.map(lambda leaf: leaf[0], tree)
    for tree in (state.params, state.collections)
  )

  @jax.jit
  def gradient(images, labels):
    def loss(params):
      z, _ = task.model.apply(
        {'params': params, **collections},
        images,
        train=True,
        progress=1.0,
        mutable=['batch_stats'],
      )
      return training.cross_entropy(z, jax.nn.one_hot(labels, 3))

    return jax.grad(loss)(params)

  groups = [
    gradient(
      tiny.prepare(jnp.asarray(part.images[i : i + 2])),
      jnp.asarray(part.labels[i : i + 2]),
    )
    for i in range(0, 8, 2)
  ]
  for layer in ('Dense_0', 'Block_0', 'Dense_1'):
    each = np.stack([np.ravel(g[layer]['kernel']) for g in groups])
    each = each.astype(np.float64)
    mean = each.mean(0)
    noise = each.var(0, ddof=1)
    wanted = {
      'gradient_mean': mean.mean(),
      'gradient_coordinate_variance': mean.var(),
      'gradient_batch_variance': noise.mean(),
      'gradient_sparsity': np.mean(each == 0),
      'gradient_signal_to_noise': (np.sum(mean**2) - noise.sum() / 4)
      / noise.sum(),
      'saturated': np.mean(np.abs(params[layer]['kernel']) > 1),
    }
    for name, value in wanted.items():
      np.testing.assert_allclose(
        found[name][layer], [value], rtol=1e-3, atol=1e-6, err_msg=name
      )


def test_bad_numbers(tiny, task):
  with pytest.raises(
    types.BadInput, match='num_groups must be an integer >= 2'
  ):
    training.statistician(task, 1, num_groups=1)
  for options, message in (
    ({'smoothing': 1.0}, r'smoothing must be in \[0, 1\); got 1.0'),
    ({'smoothing': -0.1}, 'smoothing must be in'),
    ({'average': 0.0}, r'average must be in \(0.0, 1.0\)'),
    ({'average': 1.0}, 'average must be in'),
  ):
    with pytest.raises(types.BadInput, match=message):
      tiny.task(**options)


class TestDiverged:
  """A network that diverged has no metrics; its neighbours keep theirs."""

  @pytest.mark.parametrize('value', [np.nan, np.inf])
  @pytest.mark.parametrize('layer', ['Dense_0', 'Block_0', 'Dense_1'])
  def test_evaluator(self, tiny, task, value, layer):
    """Also where a quantizer makes a number of the weight that is none."""
    one = training.variables_of(tiny.start(task, 0))
    both = jax.tree.map(lambda x: np.concatenate([x, x]), one)
    kernel = both['params'][layer]['kernel']
    kernel[1, 0, 0] = value
    batches = tiny.batches(tiny.dataset(11, 1))
    scores = training.evaluator(task, 2)(both, batches)
    alone = training.evaluator(task, 1)(one, batches)
    for found, wanted in zip(scores, alone, strict=True):
      np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)
    assert np.isnan([scores.loss[1], scores.accuracy[1]]).all()
    assert not scores.right[1].any()

  def test_history(self, tiny, task, tmp_path):
    labels = tiny.Stop(100, lambda: None)
    fitted = tiny.train(
      task, tmp_path, seeds=(7, 3), rates=(1e38, 1.0), report=labels
    )
    alone = tiny.train(task, seeds=(3,))
    assert len(alone.history) > 20
    for name, values in fitted.history.items():
      if name in ('step', 'progress'):
        continue
      assert np.isnan(values[:, 0]).all(), name
      np.testing.assert_allclose(
        values[:, 1], alone.history[name][:, 0], rtol=1e-3, atol=1e-5
      )
    assert '1 of 2 diverged, loss ' in labels.calls[-1][1]
    training.load_variables(tmp_path)
    with pytest.raises(types.BadInput, match='holds no best checkpoint'):
      training.load_variables(tmp_path, which='best')
