"""The toy networks equal a NumPy implementation, forward and backward."""

import functools

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types

KINDS = {
  'full precision': nn.full_precision_mlp,
  'binary': nn.binary_mlp,
  'binary weights': nn.binary_weights_mlp,
}
SCALINGS = ('none', 'fan_in', 'mean_abs')
CLASSES = 3
KEY = jax.random.key(0, impl='rbg')  # Compiles faster than threefry.
every_kind = pytest.mark.parametrize('kind', KINDS)


def make(kind, **kwargs):
  return KINDS[kind](num_classes=CLASSES, **kwargs)


def batch(examples=7, shape=(4, 3), seed=0):
  rng = np.random.default_rng(seed)
  inputs = rng.integers(0, 256, (examples, *shape), dtype=np.uint8)
  return inputs, rng.integers(0, CLASSES, examples)


def fill(model, inputs, seed=1):
  """Random variables of the model's shapes; variances positive."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(model.init, KEY, inputs)

  def leaf(path, x):
    value = rng.normal(size=x.shape)
    name = path[-1].key
    value = {'var': np.exp(value), 'scale': 1 + 0.3 * value}.get(name, value)
    return value.astype(x.dtype)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


class Oracle:
  """The networks in NumPy float64, written for the tests only."""

  def __init__(self, model, kind, variables, inputs, train=False):
    variables = jax.tree.map(np.float64, variables)
    self.params = variables['params']
    self.stats = variables.get('batch_stats', {})
    self.model, self.kind, self.train = model, kind, train
    self.moments, self.cache = {}, []
    x = np.float64(inputs).reshape(len(inputs), -1)
    self.logits = self.forward(x / (1 if inputs.dtype.kind == 'f' else 255))

  def layer(self, number):
    params = self.params[f'Dense_{number}']
    kernel = params['kernel']
    weights = kernel
    if self.kind != 'full precision':
      weights = np.where(kernel >= 0, 1.0, -1.0)
    scale = {
      'none': 1.0,
      'fan_in': len(kernel) ** -0.5,
      'mean_abs': np.abs(kernel).mean(axis=0),
    }[self.model.scaling]
    return weights, scale, params.get('bias', 0.0)

  def normalisation(self, number, z):
    """Factor and offset of what follows the layer, with its statistics."""
    name = f'BatchNorm_{number}'
    if name not in self.params:
      return None
    stats = self.stats[name]
    mean, var = stats['mean'], stats['var']
    if self.train:
      mean, var = z.mean(axis=0), z.var(axis=0)
      self.moments[name] = {'mean': mean, 'var': var}
    return mean, 1 / np.sqrt(var + 1e-5)

  def forward(self, x):
    depth = len(self.model.hidden)
    for number in range(depth + 1):
      weights, scale, bias = self.layer(number)
      z = (x @ weights) * scale + bias
      if number == depth:
        self.cache.append((x, z, z, None))
        return z
      norm, y = self.normalisation(number, z), z
      if norm is not None:
        params = self.params[f'BatchNorm_{number}']
        y = (z - norm[0]) * norm[1] * params['scale'] + params['bias']
      self.cache.append((x, z, y, norm))
      x = np.where(y >= 0, 1, -1) if self.kind == 'binary' else np.maximum(y, 0)

  def gradients(self, labels):
    """Straight-through gradients of the mean cross-entropy; not for train."""
    probabilities = np.exp(self.logits - self.logits.max(axis=1)[:, None])
    probabilities /= probabilities.sum(axis=1)[:, None]
    dy = (probabilities - np.eye(CLASSES)[labels]) / len(labels)
    grads = {}
    for number in reversed(range(len(self.cache))):
      x, z, y, norm = self.cache[number]
      if number < len(self.model.hidden):
        dy = dy * (np.abs(y) <= 1 if self.kind == 'binary' else y > 0)
      if norm is not None:
        params = self.params[f'BatchNorm_{number}']
        grads[f'BatchNorm_{number}'] = {
          'scale': (dy * (z - norm[0]) * norm[1]).sum(axis=0),
          'bias': dy.sum(axis=0),
        }
        dy = dy * params['scale'] * norm[1]
      weights, scale, _ = self.layer(number)
      grads[f'Dense_{number}'] = {'kernel': x.T @ (dy * scale)}
      if self.model.use_bias:
        grads[f'Dense_{number}']['bias'] = dy.sum(axis=0)
      dy = (dy * scale) @ weights.T
    return grads


def loss(params, model, variables, inputs, labels, **kwargs):
  logits = model.apply({**variables, 'params': params}, inputs, **kwargs)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return jnp.mean(losses), logits


@functools.partial(jax.jit, static_argnums=0)
def gradients(model, variables, inputs, labels):
  grad = jax.grad(loss, has_aux=True)
  return grad(variables['params'], model, variables, inputs, labels)


NOT_ACTIVATIONS = {
  'learned': quantizers.lsq(2),
  'remembering': quantizers.attach(
    quantizers.hysteretic_sign(0.1), quantizers.identity()
  ),
}


@pytest.mark.parametrize('name', NOT_ACTIVATIONS)
def test_activations_that_have_variables_are_refused(name):
  model = nn.MLP(activation_quantizer=NOT_ACTIVATIONS[name])
  message = 'activation_quantizer must be a quantizer that neither learns nor'
  with pytest.raises(types.BadInput, match=message):
    jax.eval_shape(model.init, KEY, batch()[0])


def test_random_activations_draw_from_keys_of_their_own():
  quantize = quantizers.attach(
    quantizers.stochastic_sign(), quantizers.identity()
  )
  model = nn.MLP((5,), 2, activation_quantizer=quantize)
  inputs, _ = batch()
  params = fill(model, inputs)
  run = jax.jit(lambda key: model.apply(params, inputs, rngs=key))
  first, again, other = (
    run({'quantizer': jax.random.key(seed)}) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)


NORM_AND_BIAS = [(False, False), (False, True), (True, True)]
# A Latin square: every kind and every scaling meets every pair once.
OPTIONS = [
  (kind, scaling, *NORM_AND_BIAS[(row + column) % 3])
  for row, kind in enumerate(KINDS)
  for column, scaling in enumerate(SCALINGS)
]


class TestAgainstNumPy:
  """Every kind, every option."""

  @pytest.mark.parametrize(
    ('kind', 'scaling', 'batch_norm', 'use_bias'), OPTIONS
  )
  def test_logits_and_gradients(self, kind, scaling, batch_norm, use_bias):
    model = make(
      kind,
      hidden=(6, 5),
      scaling=scaling,
      batch_norm=batch_norm,
      use_bias=use_bias,
    )
    inputs, labels = batch(examples=9)
    variables = fill(model, inputs)
    grads, logits = gradients(model, variables, inputs, labels)
    oracle = Oracle(model, kind, variables, inputs)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)
    close(logits, oracle.logits)
    want = oracle.gradients(labels)
    assert jax.tree.structure(grads) == jax.tree.structure(want)
    jax.tree.map(close, grads, want)
    kernels = [g['kernel'] for n, g in want.items() if n.startswith('Dense')]
    assert all(np.abs(kernel).max() > 1e-4 for kernel in kernels)

  @pytest.mark.parametrize('hidden', [(), (1,), (5,), (3, 7, 2, 5)])
  @every_kind
  def test_any_number_of_hidden_layers(self, kind, hidden):
    model = make(kind, hidden=hidden)
    inputs, _ = batch(shape=(13,))
    variables = fill(model, inputs)
    logits = jax.jit(model.apply)(variables, inputs)
    oracle = Oracle(model, kind, variables, inputs)
    np.testing.assert_allclose(logits, oracle.logits, rtol=1e-4, atol=1e-5)
    assert list(variables['params']) == [
      f'Dense_{layer}' for layer in range(len(hidden) + 1)
    ]

  @every_kind
  def test_floating_inputs_are_taken_as_they_are(self, kind):
    model = make(kind, hidden=(6,))
    inputs = np.random.default_rng(5).normal(size=(4, 6)).astype(np.float32)
    variables = fill(model, inputs)
    oracle = Oracle(model, kind, variables, inputs)
    logits = jax.jit(model.apply)(variables, inputs)
    np.testing.assert_allclose(logits, oracle.logits, rtol=1e-5, atol=1e-6)

  @every_kind
  def test_training_mode_normalises_by_the_batch(self, kind):
    model = make(kind, hidden=(6, 5), batch_norm=True)
    inputs, _ = batch(examples=11)
    variables = fill(model, inputs)
    apply = jax.jit(
      functools.partial(model.apply, train=True, mutable=['batch_stats'])
    )
    logits, new = apply(variables, inputs)
    oracle = Oracle(model, kind, variables, inputs, train=True)
    np.testing.assert_allclose(logits, oracle.logits, rtol=1e-4, atol=1e-4)
    want = jax.tree.map(
      lambda old, moment: 0.9 * old + 0.1 * moment, oracle.stats, oracle.moments
    )
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
      new['batch_stats'],
      want,
    )


class Reference(linen.Module):
  """The same network from flax's own layers, full precision."""

  hidden: tuple[int, ...]
  batch_norm: bool
  use_bias: bool

  @linen.compact
  def __call__(self, x, train=False):
    x = x.reshape((x.shape[0], -1))
    for units in self.hidden:
      x = linen.Dense(units, use_bias=self.use_bias)(x)
      if self.batch_norm:
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
      x = linen.relu(x)
    return linen.Dense(CLASSES, use_bias=self.use_bias)(x)


class TestAgainstFlax:
  """Names, shapes, and normalisation are those of flax."""

  @pytest.mark.parametrize('use_bias', [False, True])
  @pytest.mark.parametrize('batch_norm', [False, True])
  @every_kind
  def test_variables_have_the_same_names_and_shapes(
    self, kind, batch_norm, use_bias
  ):
    options = {'batch_norm': batch_norm, 'use_bias': use_bias}
    inputs = np.zeros((2, 4, 3), np.float32)
    ours, theirs = (
      jax.eval_shape(model.init, KEY, inputs)
      for model in (
        make(kind, hidden=(6, 5), **options),
        Reference(hidden=(6, 5), **options),
      )
    )
    assert ours == theirs

  @pytest.mark.parametrize('train', [False, True])
  def test_outputs_gradients_and_statistics(self, train):
    options = {'hidden': (6, 5), 'batch_norm': True, 'use_bias': True}
    ours = make('full precision', **options)
    inputs = np.random.default_rng(3).normal(size=(9, 12)).astype(np.float32)
    labels = batch(examples=9)[1]
    variables = fill(ours, inputs)

    @functools.partial(jax.jit, static_argnums=0)
    def run(model):
      def total(params):
        logits, new = model.apply(
          {**variables, 'params': params},
          inputs,
          train=train,
          mutable=['batch_stats'],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), (logits, new)

      return jax.grad(total, has_aux=True)(variables['params'])

    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
      run(ours),
      run(Reference(**options)),
    )

  def test_initialisation_leaves_statistics_alone(self):
    model = make('binary', hidden=(6,), batch_norm=True)
    inputs, _ = batch()
    init = jax.jit(functools.partial(model.init, train=True))
    stats = init(KEY, inputs)['batch_stats']['BatchNorm_0']
    np.testing.assert_array_equal(stats['mean'], np.zeros(6))
    np.testing.assert_array_equal(stats['var'], np.ones(6))


class TestInitialisation:
  """Uniform, within the bounds of the papers."""

  @pytest.mark.parametrize(
    ('name', 'bound'),
    [
      ('xavier', lambda fan_in, units: np.sqrt(6 / (fan_in + units))),
      ('kaiming', lambda fan_in, units: np.sqrt(6 / fan_in)),
    ],
  )
  def test_bounds(self, name, bound):
    model = make('binary', hidden=(64,), init_name=name, use_bias=True)
    params = jax.jit(model.init)(KEY, np.zeros((1, 96)))['params']
    for layer, (fan_in, units) in enumerate([(96, 64), (64, CLASSES)]):
      kernel = np.asarray(params[f'Dense_{layer}']['kernel'])
      limit = bound(fan_in, units)
      assert np.abs(kernel).max() <= limit * (1 + 1e-6)
      assert np.abs(kernel).max() > 0.9 * limit
      uniform = limit / np.sqrt(3)
      assert abs(kernel.std() / uniform - 1) < 0.1
      np.testing.assert_array_equal(params[f'Dense_{layer}']['bias'], 0)

  @pytest.mark.parametrize(
    ('bad', 'message'),
    [
      ({'init_name': 'he'}, 'init_name must be one of xavier, kaiming'),
      ({'scaling': 'sqrt'}, 'scaling must be one of none, fan_in, mean_abs'),
    ],
  )
  def test_unknown_names_list_the_valid_ones(self, bad, message):
    with pytest.raises(types.BadInput, match=message):
      jax.eval_shape(make('binary', **bad).init, KEY, np.zeros((1, 4)))


def narrowing(start):
  """The tests' own annealed estimator."""
  return jax.tree_util.Partial(_narrowing, start)


def _narrowing(start, g, x, x_q, progress):
  return jnp.where(jnp.abs(x) <= start * (1 - 0.5 * progress), g, 0)


class TestSweeps:
  """Progress, seeds and window widths are traced."""

  inputs, labels = batch(examples=9)
  hidden = (6, 5)

  def grads(self, model, params, **kwargs):
    grad = jax.grad(loss, has_aux=True)
    variables = {'params': params}
    return grad(params, model, variables, self.inputs, self.labels, **kwargs)[0]

  @pytest.mark.parametrize('part', ['kernel', 'activation'])
  def test_progress_reaches_every_estimator(self, part):
    def model(estimator):
      estimators = {f'{part}_estimator': estimator}
      return make('binary', hidden=self.hidden, **estimators)

    params = fill(model(None), self.inputs)['params']
    annealed = jax.jit(
      lambda progress: self.grads(
        model(narrowing(1.6)), params, progress=progress
      )
    )
    fixed = jax.jit(
      lambda width: self.grads(model(quantizers.window(width)), params)
    )
    results = []
    for progress in (0.0, 0.25, 1.0):
      results.append(annealed(progress))
      want = fixed(1.6 * (1 - 0.5 * progress))
      jax.tree.map(np.testing.assert_array_equal, results[-1], want)
    assert annealed._cache_size() == 1
    first, _, last = (r['Dense_0']['kernel'] for r in results)
    assert np.sum((first != 0) != (last != 0)) > 0

  def test_progress_outside_its_range_is_an_error(self):
    model = make('binary', hidden=(4,))
    with pytest.raises(types.BadInput, match='progress must be in'):
      model.apply(fill(model, self.inputs), self.inputs, progress=1.5)

  def test_vmap_over_window_widths_equals_a_loop(self):
    params = fill(make('binary', hidden=self.hidden), self.inputs)['params']

    def grads(width):
      estimator = quantizers.window(width)
      model = make('binary', hidden=self.hidden, activation_estimator=estimator)
      return self.grads(model, params)

    widths = np.float32([0.2, 0.7, 3.0])
    with jax.checking_leaks():
      got = jax.jit(jax.vmap(grads))(widths)
    alone = jax.jit(grads)
    loop = [alone(width) for width in widths]
    want = jax.tree.map(lambda *leaves: np.stack(leaves), *loop)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, got, want)
    first = got['Dense_0']['kernel']
    assert np.abs(first[0] - first[2]).max() > 1e-3

  def test_vmap_over_seeds_keeps_them_apart(self):
    model = make('binary', hidden=())

    @jax.jit
    def run(keys):
      def one(key):
        params = model.init(key, self.inputs)['params']
        return params, self.grads(model, params)

      return jax.vmap(one)(keys)

    keys = jax.vmap(jax.random.key)(np.arange(3))
    with jax.debug_key_reuse(False):  # The same numbers are drawn again.
      params, grads = run(keys)
      reverse = run(keys[::-1])
    for leaf, other in zip(
      jax.tree.leaves((params, grads)), jax.tree.leaves(reverse), strict=True
    ):
      np.testing.assert_allclose(leaf, other[::-1], rtol=1e-5, atol=1e-7)
    kernels = params['Dense_0']['kernel']
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1

  def test_vmap_over_networks_equals_a_loop(self):
    model = make('binary', hidden=self.hidden)
    networks = [fill(model, self.inputs, seed)['params'] for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *networks)
    grads = functools.partial(self.grads, model)
    got = jax.jit(jax.vmap(grads))(stacked)
    alone = jax.jit(grads)
    loop = [alone(params) for params in networks]
    want = jax.tree.map(lambda *leaves: np.stack(leaves), *loop)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, got, want)
