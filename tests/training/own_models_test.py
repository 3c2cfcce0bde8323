"""Models of one's own: without ``train`` or ``progress``, with dropout, in a `Sequential`.

The default progress of a task is tested here too, as it matters to models whose layers
anneal.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import data
from bitjax import nn as networks
from bitjax import quantizers
from bitjax import training
from bitjax import types


def seen(g, x, x_q, progress):
  """An estimator that shows the progress: the gradient is the progress."""
  del x, x_q
  return progress * jnp.ones_like(g)


SHOWS = quantizers.attach(quantizers.sign(), seen)


class Bare(nn.Module):
  """A model that takes the images only."""

  quantizer: Any = SHOWS

  @nn.compact
  def __call__(self, images):
    x = images.reshape(images.shape[0], -1)
    return networks.QuantDense(
      3, kernel_quantizer=self.quantizer, use_bias=False
    )(x)


class Dropped(nn.Module):
  """Takes ``train`` only, for dropout of the inputs."""

  @nn.compact
  def __call__(self, images, train=False):
    x = images.reshape(images.shape[0], -1)
    x = nn.Dropout(0.5, deterministic=not train)(x)
    return nn.Dense(3, use_bias=False)(x)


def flatten(images):
  return images.reshape(images.shape[0], -1)


def sequential():
  layer = networks.QuantDense(3, kernel_quantizer=SHOWS, use_bias=False)
  return nn.Sequential((flatten, layer))


@pytest.mark.parametrize(
  'model', [Bare(), sequential()], ids=['own', 'sequential']
)
def test_annealed_layers_go_from_0_to_1_whatever_the_model_takes(tiny, model):
  """With SGD at rate 1 the kernel falls by the progress of every update."""
  tx = optax.sgd(1.0)
  task = training.Task(model, tx, 3, tiny.prepare)
  start = tiny.start(task, 3)
  fitted = tiny.train(task, until=6, period=1, scored=False)
  moved = jax.tree.map(
    lambda a, b: np.unique(np.round(np.asarray(b - a), 4)),
    fitted.state.params,
    start.params,
  )
  for leaf in jax.tree.leaves(moved):
    np.testing.assert_allclose(leaf, [sum(np.arange(6) / 5)], atol=1e-4)
  np.testing.assert_allclose(
    fitted.history['progress'][:, 0], np.arange(6) / 5, atol=1e-6
  )


def test_phases_share_one_progress(tiny):
  task = training.Task(Bare(), optax.sgd(1.0), 3, tiny.prepare)
  phases = [training.Phase(task, 2), training.Phase(task, 4)]
  fitted = tiny.train(phases, period=1, scored=False)
  np.testing.assert_allclose(
    fitted.history['progress'][:, 0], np.arange(4) / 3, atol=1e-6
  )
  assert task.lasting(4) is task.lasting(4)  # So that programs are shared.
  assert task.lasting(4) is not task.lasting(5)


def test_a_task_alone_must_be_told_its_length(tiny):
  task = training.Task(Bare(), optax.sgd(1.0), 3, tiny.prepare)
  state = tiny.start(task, 0)
  one = jax.tree.map(lambda leaf: leaf[0], state)
  batch = data.Batch(np.zeros((4, 4, 4, 1), np.uint8), np.zeros(4, np.int32))
  with pytest.raises(types.BadInput, match='pass progress=training'):
    task.update(one, batch, None)
  assert task.lasting(3).update(one, batch, None).step == 1


@pytest.mark.slow
def test_dropout_draws_anew_in_every_update_and_resumes_exactly(
  tiny, same, tmp_path
):
  task = training.Task(Dropped(), optax.sgd(0.1), 3, tiny.prepare)
  whole = tiny.train(task, scored=True)
  stopped = tiny.Stop(3, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    tiny.train(task, tmp_path, report=stopped)
  again = tiny.train(task, tmp_path)
  assert same(whole.state, again.state)
  assert np.isfinite(whole.history['validation_loss']).all()


def masks(task, steps, augment=None):
  """Which inputs reach the kernel's gradient, at each of several updates."""
  task = training.Task(
    task.model, optax.sgd(1.0), 3, lambda x: jnp.ones(x.shape), augment=augment
  ).lasting(9)
  images = jnp.ones((1, 8, 8, 4))
  state = training.create(task.model, task.tx, [7], images)
  one = jax.tree.map(lambda leaf: leaf[0], state)
  batch = data.Batch(np.zeros((1, 8, 8, 4), np.uint8), np.zeros(1, np.int32))
  found = []
  for step in steps:
    after = task.update(one._replace(step=jnp.int32(step)), batch, None)
    (before,), (after,) = map(jax.tree.leaves, (one.params, after.params))
    found.append(np.asarray((before != after).any(axis=1)))
  return np.stack(found)


def test_masks_depend_on_the_update_and_not_on_augmentation():
  def augment(key, images, targets):
    del key
    return jnp.ones(images.shape), targets

  task = training.Task(Dropped(), optax.sgd(1.0), 3, lambda x: x)
  found = masks(task, (0, 1, 0))
  np.testing.assert_array_equal(found[0], found[2])
  assert 0.4 < np.mean(found[0] != found[1]) < 0.6
  assert 0.4 < np.mean(found[0]) < 0.6
  np.testing.assert_array_equal(masks(task, (0,), augment)[0], found[0])


def test_a_model_with_lists_is_refused_in_one_line(tiny):
  model = nn.Sequential([nn.Dense(3)])
  with pytest.raises(types.BadInput, match='tuples instead of lists'):
    training.Task(model, optax.sgd(1.0), 3, tiny.prepare)


def test_a_teacher_may_take_images_only(tiny):
  model = Bare(None)
  images = jnp.ones((2, 2, 2, 1))
  variables = model.init(jax.random.key(0), images)
  teacher = training.Distillation(model, variables)
  logits = model.apply(variables, images)
  assert teacher.loss(variables, images, logits) < 1e-6
