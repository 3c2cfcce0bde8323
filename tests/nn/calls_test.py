"""Models of one's own: every tool calls them with the keywords that they take."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn as networks


def flatten(images):
  return images.reshape(images.shape[0], -1)


class Bare(nn.Module):
  """Takes the images only."""

  @nn.compact
  def __call__(self, images):
    return networks.QuantDense(3)(flatten(images))


class Dropped(nn.Module):
  """Takes ``train`` only, for dropout of the inputs."""

  @nn.compact
  def __call__(self, images, train=False):
    x = nn.Dropout(0.5, deterministic=not train)(flatten(images))
    return nn.Dense(3)(x)


SEQUENTIAL = nn.Sequential((flatten, networks.QuantDense(3)))


@pytest.mark.parametrize(
  'model',
  [Bare(), Dropped(), SEQUENTIAL],
  ids=['own', 'dropout', 'sequential'],
)
def test_every_tool_calls_a_model_with_what_it_takes(model):
  """Keywords that a model lacks are left out; the result is its own."""
  images = jax.random.normal(jax.random.key(0), (4, 2, 2, 1))
  options = {'train': False, 'progress': 0.5}
  variables, _ = networks.init_quietly(
    model, jax.random.key(1), images, **options
  )
  want = model.apply(variables, images)
  (layer,) = {
    path[0].key for path, _ in jax.tree.leaves_with_path(variables['params'])
  }
  labels = jnp.zeros(4, jnp.int32)
  view = networks.layer_view(model, variables, images, labels, layer, **options)
  np.testing.assert_allclose(view.logits(view.kernel), want, rtol=1e-6)
  assert networks.summary(model, images, **options).total.parameters
  completed = networks.complete(
    model, variables, jax.random.key(2), images, **options
  )
  np.testing.assert_array_equal(model.apply(completed, images), want)


def test_a_misspelt_keyword_is_still_an_error():
  images = jnp.ones((4, 2, 2, 1))
  variables = Bare().init(jax.random.key(0), images)
  with pytest.raises(TypeError, match='progres'):
    networks.layer_view(
      Bare(),
      variables,
      images,
      jnp.zeros(4, jnp.int32),
      'QuantDense_0',
      progres=1,
    )
