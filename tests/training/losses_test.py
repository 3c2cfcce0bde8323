"""Losses against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import training
from bitjax import types
from bitjax.training import _losses

LOGITS = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], np.float32)
TAUGHT = np.array([[0.2, 0.1, -0.7], [2.0, -1.0, 1.5]], np.float32)
TARGETS = np.array([[0.7, 0.2, 0.1], [0.0, 0.25, 0.75]], np.float32)


def log_softmax(z):
  z = z.astype(np.float64)
  return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


def test_cross_entropy():
  wanted = -np.sum(TARGETS * log_softmax(LOGITS), axis=-1).mean()
  np.testing.assert_allclose(
    training.cross_entropy(jnp.asarray(LOGITS), jnp.asarray(TARGETS)),
    wanted,
    rtol=1e-6,
  )


def test_cross_entropy_is_computed_in_float32():
  logits = jnp.asarray(LOGITS, jnp.bfloat16)  # Exact in bfloat16.
  found = training.cross_entropy(logits, jnp.asarray(TARGETS))
  assert found.dtype == jnp.float32
  wanted = -np.sum(TARGETS * log_softmax(LOGITS), axis=-1).mean()
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_divergence(temperature):
  student, teacher = (log_softmax(z / temperature) for z in (LOGITS, TAUGHT))
  wanted = np.sum(np.exp(teacher) * (teacher - student), axis=-1).mean()
  logits, taught = jnp.asarray(LOGITS), jnp.asarray(TAUGHT)
  np.testing.assert_allclose(
    training.divergence(logits, taught, temperature),
    temperature**2 * wanted,
    rtol=1e-5,
  )
  shifted = logits + 3.0  # The same probabilities.
  np.testing.assert_allclose(
    training.divergence(shifted, logits, temperature), 0.0, atol=1e-6
  )
  gradient = jax.grad(training.divergence)(logits, logits, temperature)
  np.testing.assert_allclose(gradient, np.zeros((2, 3)), atol=1e-6)


def test_divergence_of_half_precision_logits_is_computed_in_float32():
  logits = jnp.asarray(LOGITS, jnp.bfloat16)
  found = training.divergence(logits, jnp.asarray(TAUGHT, jnp.bfloat16), 1.0)
  assert found.dtype == jnp.float32


def test_accuracy_sums_the_targets_of_the_guesses():
  found = _losses.num_correct(jnp.asarray(LOGITS), jnp.asarray(TARGETS))
  np.testing.assert_allclose(found, 0.7 + 0.25, rtol=1e-6)
  hard = jax.nn.one_hot(jnp.array([0, 2]), 3)
  np.testing.assert_array_equal(
    _losses.num_correct(jnp.asarray(LOGITS), hard), 1.0
  )


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'weight': -0.1}, r'weight must be in \[0.0, 1.0\]; got -0.1'),
    ({'weight': 1.5}, r'weight must be in \[0.0, 1.0\]; got 1.5'),
    ({'weight': float('nan')}, 'weight must be in'),
    ({'temperature': 0.0}, 'temperature must be > 0'),
    ({'temperature': -1.0}, 'temperature must be > 0'),
  ],
)
def test_bad_distillations(tiny, options, message):
  with pytest.raises(types.BadInput, match=message):
    training.Distillation(tiny.Net(), {}, **options)


@pytest.fixture(scope='module')
def parts(tiny):
  """A network without a normalisation, its variables, and examples."""
  model = tiny.Net(weights=None, inputs=None, norm=False)
  batch = tiny.probe(tiny.dataset())
  images = tiny.prepare(batch.inputs)
  return (
    model,
    jax.jit(model.init)(jax.random.key(0), images),
    images,
    batch.labels,
  )


@pytest.fixture(scope='module')
def taught_by(tiny, parts):
  """Returns (weight, teacher's variables) -> the student's loss and gradient."""
  model, variables, images, labels = parts

  @jax.jit
  def call(weight, taught):
    teacher = training.Distillation(model, variables, weight, 2.0)
    task = tiny.task(model, distillation=teacher)
    targets = jax.nn.one_hot(labels, 3)
    return jax.value_and_grad(
      lambda params: task.objective(
        params, {}, images, targets, jax.random.key(1), 1.0, taught
      )[0]
    )(variables['params'])

  return call


class TestTeacher:
  """The student begins as the network of its teacher."""

  @staticmethod
  def gradient(taught_by, weight, taught):
    loss, gradient = taught_by(weight, taught)
    return float(loss), np.max(
      [np.abs(g).max() for g in jax.tree.leaves(gradient)]
    )

  def test_of_all_weight_teaches_nothing_new(self, taught_by, parts):
    loss, largest = self.gradient(taught_by, 1.0, parts[1])
    assert abs(loss) < 1e-6 and largest < 1e-6

  def test_of_no_weight_does_not_matter(self, taught_by, parts):
    other = jax.tree.map(lambda leaf: leaf + 1.0, parts[1])
    wanted = self.gradient(taught_by, 0.0, parts[1])
    assert wanted[1] > 1e-2
    assert self.gradient(taught_by, 0.0, other) == wanted

  def test_of_half_weight_is_a_mean(self, taught_by, parts):
    plain, _ = self.gradient(taught_by, 0.0, parts[1])
    half, _ = self.gradient(taught_by, 0.5, parts[1])
    np.testing.assert_allclose(half, plain / 2, rtol=1e-5)


@pytest.mark.slow
def test_a_training_with_a_teacher_describes_its_layers(tiny, whole):
  fitted, _ = whole
  model = tiny.Net()
  variables = jax.tree.map(
    lambda leaf: leaf[0], training.variables_of(fitted.state)
  )
  task = tiny.task(
    distillation=training.Distillation(model, variables, weight=0.5)
  )
  found = tiny.train(task, until=5).history
  assert np.isfinite(found['gradient_mean/Block_0']).all()
  assert found['train_loss'][0] != fitted.history['train_loss'][0]
