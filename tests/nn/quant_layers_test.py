"""QuantDense and QuantConv: flax's layers, quantized."""

from flax import linen
import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types

RNG = np.random.default_rng(0)
KEY = jax.random.key(0, impl='rbg')  # Compiles faster than threefry.


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


def sign(estimator=None):
  return quantizers.attach(
    quantizers.sign(), estimator or quantizers.identity()
  )


def leaves(variables):
  """Names and shapes of all leaves."""
  paths = jax.tree.leaves_with_path(variables)
  return {jax.tree_util.keystr(path): leaf.shape for path, leaf in paths}


CONVS = {
  'same': ((5, 6, 3), {'kernel_size': (3, 3)}),
  'strided, no bias': (
    (5, 6, 3),
    {'kernel_size': (3, 2), 'strides': (2, 1), 'use_bias': False},
  ),
  'valid': ((5, 6, 3), {'kernel_size': (2, 2), 'padding': 'VALID'}),
  'depthwise': (
    (5, 6, 4),
    {'kernel_size': (3, 3), 'feature_group_count': 4, 'strides': 2},
  ),
  'dilated': (
    (9, 8, 2),
    {'kernel_size': (3, 3), 'kernel_dilation': (2, 1), 'padding': 2},
  ),
  'input dilation': (
    (4, 3, 2),
    {'kernel_size': (2, 2), 'input_dilation': 2, 'padding': ((1, 0), 1)},
  ),
  'circular': (
    (5, 6, 2),
    {'kernel_size': (3, 2), 'padding': 'CIRCULAR', 'kernel_dilation': (1, 2)},
  ),
  'reflect': ((5, 6, 2), {'kernel_size': (3, 4), 'padding': 'REFLECT'}),
  'causal': (
    (9, 2),
    {'kernel_size': (3,), 'padding': 'CAUSAL', 'kernel_dilation': 2},
  ),
  'one number for a kernel': ((9, 2), {'kernel_size': 3}),
  'None for 1': (
    (5, 6, 3),
    {'kernel_size': (3, 3), 'strides': None, 'kernel_dilation': None},
  ),
}


class TestAgainstFlax:
  """Without quantizers they are flax's layers, whose checkpoints load."""

  def test_same_parameters_same_outputs(self):
    pairs = [
      (nn.QuantDense(4), linen.Dense(4), (6,)),
      (
        nn.QuantDense(4, use_bias=False),
        linen.Dense(4, use_bias=False),
        (2, 6),
      ),
    ]
    for shape, options in CONVS.values():
      pairs.append(
        (
          nn.QuantConv(4, **options),
          linen.Conv(4, **options),
          shape,
        )
      )
    inputs, checkpoints = [], []
    for place, (ours, theirs, shape) in enumerate(pairs):
      batch = [(), (2,), (3, 2)][place % 3]  # Any leading axes.
      x = normal(*batch, *shape)
      got = jax.eval_shape(ours.init, KEY, x)
      want = jax.eval_shape(theirs.init, KEY, x)
      assert got == want
      inputs.append(x)
      checkpoints.append(jax.tree.map(lambda a: normal(*a.shape), want))

    @jax.jit
    def run(checkpoints, inputs):
      return [
        (ours.apply(variables, x), theirs.apply(variables, x))
        for (ours, theirs, _), variables, x in zip(
          pairs, checkpoints, inputs, strict=True
        )
      ]

    for got, want in run(checkpoints, inputs):
      assert got.shape == want.shape
      np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

  def test_initialises_alike(self):
    x = normal(2, 5)
    ours, theirs = (m.init(KEY, x) for m in (nn.QuantDense(3), linen.Dense(3)))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)

  @pytest.mark.parametrize('dtype', [None, jnp.bfloat16])
  def test_bfloat16_is_computed_and_float32_is_kept(self, dtype):
    x = normal(8, 5).astype(jnp.bfloat16)
    ours = nn.QuantDense(3, dtype=dtype)
    theirs = linen.Dense(3, dtype=dtype)
    variables = {'params': {'kernel': normal(5, 3), 'bias': normal(3)}}

    @jax.jit
    def run(variables):
      def total(variables, model):
        z = model.apply(variables, x)
        return jnp.sum(z.astype(jnp.float32)), z

      return [
        jax.grad(total, has_aux=True)(variables, model)
        for model in (ours, theirs)
      ]

    (grads, z), (want_grads, want) = run(variables)
    assert z.dtype == want.dtype == (jnp.float32 if dtype is None else dtype)
    np.testing.assert_allclose(
      np.float64(z), np.float64(want), rtol=2**-7, atol=2**-7
    )
    for got, want in zip(
      jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True
    ):
      assert got.dtype == np.float32
      np.testing.assert_allclose(got, want, rtol=2**-7)


class TestQuantized:
  """Products of quantized inputs and kernels, in NumPy."""

  @pytest.mark.parametrize('scaling', ['none', 'fan_in', 'mean_abs', 'object'])
  def test_binary_convolution(self, scaling):
    x, kernel, bias = normal(2, 4, 5, 3), normal(3, 3, 3, 2), normal(2)
    window = quantizers.window(0.5)
    model = nn.QuantConv(
      2,
      (3, 3),
      kernel_quantizer=sign(),
      input_quantizer=sign(window),
      scaling=quantizers.power_of_two() if scaling == 'object' else scaling,
    )
    params = {'kernel': kernel, 'bias': bias}

    @jax.jit
    def run(params, x):
      def total(params, x):
        z = model.apply({'params': params}, x)
        return jnp.sum(z**2) / 2, z

      return jax.grad(total, argnums=(0, 1), has_aux=True)(params, x)

    (grads, x_bar), z = run(params, x)
    mean = np.abs(np.float64(kernel)).mean(axis=(0, 1, 2))
    scale = {
      'none': 1.0,
      'fan_in': 27**-0.5,
      'mean_abs': mean,
      'object': 2 ** np.rint(np.log2(mean)),
    }[scaling]
    padded = np.zeros((2, 6, 7, 3))
    padded[:, 1:-1, 1:-1] = np.where(x >= 0, 1, -1)
    weights = np.where(kernel >= 0, 1, -1)
    want = np.zeros((2, 4, 5, 2))
    for i, j in np.ndindex(3, 3):
      want += padded[:, i : i + 4, j : j + 5] @ weights[i, j]
    want = want * scale + bias
    np.testing.assert_allclose(z, want, rtol=1e-5, atol=1e-5)
    g = want * scale
    padded_bar, kernel_bar = np.zeros_like(padded), np.zeros(kernel.shape)
    for i, j in np.ndindex(3, 3):
      patch = padded[:, i : i + 4, j : j + 5]
      kernel_bar[i, j] = np.einsum('bhwi,bhwo->io', patch, g)
      padded_bar[:, i : i + 4, j : j + 5] += g @ weights[i, j].T
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    close(grads['kernel'], kernel_bar)
    close(x_bar, padded_bar[:, 1:-1, 1:-1] * (np.abs(x) <= 0.5))

  def test_binary_depthwise_convolution_in_bfloat16(self):
    x, kernel = normal(2, 4, 5, 3), normal(2, 2, 1, 3)
    model = nn.QuantConv(
      3,
      (2, 2),
      padding='VALID',
      feature_group_count=3,
      kernel_quantizer=sign(),
      input_quantizer=sign(),
      use_bias=False,
      dtype=jnp.bfloat16,
    )

    @jax.jit
    def run(params):
      def total(params):
        z = model.apply({'params': params}, x)
        return jnp.sum(z.astype(jnp.float32)), z

      return jax.grad(total, has_aux=True)(params)

    grads, z = run({'kernel': kernel})
    inputs, weights = np.where(x >= 0, 1, -1), np.where(kernel >= 0, 1, -1)
    want, kernel_bar = np.zeros((2, 3, 4, 3)), np.zeros(kernel.shape)
    for i, j in np.ndindex(2, 2):
      patch = inputs[:, i : i + 3, j : j + 4]
      want += patch * weights[i, j]
      kernel_bar[i, j, 0] = patch.sum(axis=(0, 1, 2))
    assert z.dtype == jnp.bfloat16 and grads['kernel'].dtype == np.float32
    np.testing.assert_array_equal(np.float32(z), want)
    np.testing.assert_array_equal(grads['kernel'], kernel_bar)

  def test_kernels_are_quantized_before_they_are_rounded(self):
    threshold = np.float32(1.0)
    kernel = np.float32([[1 + 2**-12, 1 - 2**-12]])  # Both 1 in bfloat16.
    model = nn.QuantDense(
      2,
      kernel_quantizer=quantizers.attach(
        quantizers.ternary(threshold), quantizers.identity()
      ),
      use_bias=False,
      dtype=jnp.bfloat16,
    )
    z = model.apply({'params': {'kernel': kernel}}, np.ones((1, 1), np.float32))
    assert z.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(z), [[1, 0]])

  def test_sits_in_a_sequential(self):
    model = linen.Sequential(
      [
        nn.QuantConv(3, (2, 2), kernel_quantizer=sign()),
        lambda x: x.reshape(x.shape[0], -1),
        nn.QuantDense(2, kernel_quantizer=sign(), input_quantizer=sign()),
      ]
    )
    plain = linen.Sequential(
      [
        linen.Conv(3, (2, 2)),
        lambda x: x.reshape(x.shape[0], -1),
        linen.Dense(2),
      ]
    )
    x = normal(2, 3, 3, 1)
    variables = jax.tree.map(
      lambda a: normal(*a.shape), jax.eval_shape(plain.init, KEY, x)
    )
    assert leaves(jax.eval_shape(model.init, KEY, x)) == leaves(variables)
    z = jax.jit(model.apply)(variables, x)
    head = np.where(variables['params']['layers_2']['kernel'] >= 0, 1, -1)
    z = np.asarray(z) - variables['params']['layers_2']['bias']
    np.testing.assert_allclose((z - head.sum(axis=0)) % 2, 0, atol=1e-5)

  def test_progress_reaches_layers_that_nobody_hands_it_to(self):
    def fading(g, x, x_q, progress):
      return g * progress

    quantize = sign(jax.tree_util.Partial(fading))
    model = linen.Sequential(
      [
        nn.QuantDense(3),
        nn.QuantDense(2, input_quantizer=quantize),
      ]
    )
    x = normal(4, 3)
    variables = model.init(KEY, x)

    @jax.jit
    def grad(progress):
      def total(x):
        with nn.training_progress(progress):
          return jnp.sum(model.apply(variables, x))

      return jax.grad(total)(x)

    whole = grad(1.0)
    np.testing.assert_allclose(grad(0.25), whole / 4, rtol=1e-6)
    assert np.abs(whole).max() > 0
    with (
      pytest.raises(types.BadInput, match='progress must be in'),
      nn.training_progress(2.0),
    ):
      pass

  def test_progress_reaches_both_quantizers(self):
    def fading(g, x, x_q, progress):
      return g * progress

    partial = jax.tree_util.Partial(fading)
    for model, x in (
      (
        nn.QuantDense(2, kernel_quantizer=sign(partial)),
        normal(3, 4),
      ),
      (
        nn.QuantConv(
          2, 2, kernel_quantizer=sign(partial), input_quantizer=sign(partial)
        ),
        normal(1, 5, 2),
      ),
    ):
      params = jax.tree.map(
        lambda a: normal(*a.shape), jax.eval_shape(model.init, KEY, x)
      )

      @jax.jit
      def grads(progress, model=model, x=x, params=params):
        def total(params, x):
          return jnp.sum(model.apply(params, x, progress=progress))

        return jax.grad(total, argnums=(0, 1))(params, x)

      (whole, x_whole), (half, x_half) = grads(1.0), grads(0.5)
      kernel = whole['params']['kernel']
      np.testing.assert_allclose(half['params']['kernel'], kernel / 2)
      assert np.abs(kernel).max() > 0
      if isinstance(model, nn.QuantConv):
        np.testing.assert_allclose(x_half, x_whole / 2)


class Network(linen.Module):
  """The same names with and without quantizers."""

  quantized: bool = True
  scaling: str = 'none'

  @linen.compact
  def __call__(self, x, train=False):
    def layer(kind, plain, *args, **options):
      name = plain.__name__
      if not self.quantized:
        return plain(*args, name=name)
      return kind(*args, name=name, scaling=self.scaling, **options)

    x = layer(
      nn.QuantConv,
      linen.Conv,
      3,
      (2, 2),
      kernel_quantizer=quantizers.ttq(channel_axis=-1),
    )(x)
    x = linen.relu(x).reshape(x.shape[0], -1)
    return layer(
      nn.QuantDense,
      linen.Dense,
      2,
      kernel_quantizer=quantizers.lsq(2),
      input_quantizer=quantizers.lsq(3, signed=False, batch_axes=1),
    )(x)


class TestLearned:
  """Parameters of quantizers, and checkpoints that lack them."""

  x = normal(4, 3, 3, 1)

  def checkpoint(self):
    shapes = jax.eval_shape(Network(quantized=False).init, KEY, self.x)
    return jax.tree.map(lambda a: normal(*a.shape), shapes)

  def test_checkpoint_is_completed_from_its_weights_and_inputs(self):
    checkpoint = self.checkpoint()
    variables = nn.complete(Network(), checkpoint, KEY, self.x)
    fresh = jax.eval_shape(Network().init, KEY, self.x)
    assert leaves(variables) == leaves(fresh)
    params, old = variables['params'], checkpoint['params']
    for layer, own in old.items():
      for name, value in own.items():
        np.testing.assert_array_equal(params[layer][name], value)
    got = params['Dense']['kernel_quantizer']['step']
    want = 2 * np.abs(old['Dense']['kernel']).mean()
    np.testing.assert_allclose(got, want, rtol=1e-5)
    ttq = params['Conv']['kernel_quantizer']
    assert ttq['positive'].shape == ttq['negative'].shape == (3,)
    _, seen = Network().apply(
      variables,
      self.x,
      capture_intermediates=lambda module, _: module.name == 'Conv',
    )
    inputs = np.maximum(seen['intermediates']['Conv']['__call__'][0], 0)
    got = params['Dense']['input_quantizer']['step']
    np.testing.assert_allclose(got, 2 * inputs.mean() / np.sqrt(7), rtol=1e-5)

  def test_all_parameters_have_gradients(self):
    variables = nn.complete(Network(), self.checkpoint(), KEY, self.x)

    def loss(params):
      return jnp.sum(Network().apply({'params': params}, self.x) ** 2)

    grads = jax.jit(jax.grad(loss))(variables['params'])
    for path, leaf in jax.tree.leaves_with_path(grads):
      assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


class TestMemory:
  """Hysteresis remembers in a collection of its own, only if it may."""

  model = nn.QuantDense(
    2,
    kernel_quantizer=quantizers.attach(
      quantizers.hysteretic_sign(0.5), quantizers.identity()
    ),
    use_bias=False,
  )

  def test_state_moves_when_it_is_mutable(self):
    x = np.eye(3, dtype=np.float32)
    first = np.float32([[0.1, -0.1], [0.2, -2], [1, 0]])
    variables = nn.complete(self.model, {'params': {'kernel': first}}, KEY, x)
    state = variables['quantizer_state']['kernel_quantizer']
    np.testing.assert_array_equal(state, np.where(first >= 0, 1, -1))
    second = np.float32([[-0.4, 0.4], [-0.6, 0.5], [0, 0]])
    moved = {**variables, 'params': {'kernel': second}}
    want = np.float32([[1, -1], [-1, 1], [1, 1]])
    # Evaluation remembers nothing; training does when asked to.
    np.testing.assert_array_equal(self.model.apply(moved, x), want)
    z, new = self.model.apply(moved, x, mutable=['quantizer_state'])
    np.testing.assert_array_equal(z, want)
    got = new['quantizer_state']['kernel_quantizer']
    np.testing.assert_array_equal(got, want)
    third = {'params': {'kernel': -0.1 * np.ones((3, 2), np.float32)}, **new}
    np.testing.assert_array_equal(self.model.apply(third, x), want)


class TestViews:
  """Quantized layers in anybody's model tell exact scans what they are."""

  @pytest.mark.parametrize('layer', ['Conv', 'Dense'])
  def test_view_is_the_model_and_knows_its_levels(self, layer):
    model, x = Network(scaling='mean_abs'), TestLearned.x
    variables = nn.complete(model, TestLearned().checkpoint(), KEY, x)
    labels = np.arange(len(x)) % 2
    view = nn.layer_view(model, variables, x, labels, layer)
    np.testing.assert_allclose(
      view.logits(view.kernel), model.apply(variables, x), rtol=1e-5
    )
    assert view.coupling == 'column'
    staircase = quantizers.staircase(view.quantizer)
    if layer == 'Conv':  # TTQ's threshold depends on all weights.
      assert staircase is None
      return
    assert staircase.num_levels == 4
    gains = scans.flip_gains(view, coordinates=jnp.arange(3)).gains
    moved = staircase.neighbours(view.kernel)[0].ravel()[0]
    kernel = jnp.asarray(view.kernel).at[0, 0].set(moved)
    params = variables['params']
    params = {**params, 'Dense': {**params['Dense'], 'kernel': kernel}}
    logits = model.apply({'params': params}, x)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    want = view.loss(view.kernel) - losses.mean()
    np.testing.assert_allclose(gains[0, 0], want, atol=1e-5)
    with pytest.raises(types.BadInput, match='brings its own quantizer'):
      nn.layer_view(model, variables, x, labels, layer, quantizer=sign())


def noisy_sign(x, *, key):
  noise = jax.random.uniform(key, x.shape, x.dtype, -1, 1)
  return jnp.where(x + noise >= 0, 1, -1).astype(x.dtype)


def test_random_quantizers_draw_from_keys_of_their_own():
  staircase = jax.tree_util.Partial(noisy_sign)
  quantize = quantizers.attach(staircase, quantizers.identity())
  assert quantizers.is_random(quantize) and not quantizers.is_random(sign())
  model = nn.QuantDense(2, kernel_quantizer=quantize, input_quantizer=quantize)
  x = np.zeros((40, 3), np.float32)
  params = model.init(KEY, x)
  run = jax.jit(lambda key: model.apply(params, x, rngs={'quantizer': key}))
  first, again, other = (run(jax.random.key(seed)) for seed in (1, 1, 2))
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)
  with pytest.raises(flax.errors.InvalidRngError, match='quantizer'):
    model.apply(params, x)


def test_random_and_remembering_compositions_in_layers():
  x, kernel = np.eye(3, dtype=np.float32), np.float32([[0.3], [-0.1], [0.2]])
  drawing = quantizers.attach(
    quantizers.stochastic_sign(), quantizers.identity()
  )
  remembering = quantizers.attach(
    quantizers.hysteretic_sign(0.5), quantizers.identity()
  )
  model = nn.QuantDense(
    1,
    kernel_quantizer=quantizers.scaled(drawing, quantizers.mean_abs()),
    use_bias=False,
  )
  params = {'params': {'kernel': kernel}}
  z = model.apply(params, x, rngs={'quantizer': jax.random.key(0)})
  np.testing.assert_allclose(np.abs(z), np.full((3, 1), 0.2), rtol=1e-6)
  model = model.clone(kernel_quantizer=quantizers.standardized(remembering))
  variables = nn.complete(model, params, KEY, x)
  np.testing.assert_array_equal(model.apply(variables, x), [[1], [-1], [1]])
  # Standardised it is 0.66, 0.49, -1.15: the second is not beyond the margin.
  kernel = np.float32([[0.1], [0], [-1]])
  variables = {**variables, 'params': {'kernel': kernel}}
  np.testing.assert_array_equal(model.apply(variables, x), [[1], [-1], [-1]])


def test_functions_are_quantizers_and_other_things_are_not():
  x, kernel = np.eye(2, dtype=np.float32), np.float32([[1.6, -0.2], [0.4, 3]])
  variables = {'params': {'kernel': kernel}}
  model = nn.QuantDense(2, kernel_quantizer=jnp.round, use_bias=False)
  np.testing.assert_array_equal(model.apply(variables, x), np.rint(kernel))
  view = nn.layer_view(model, variables, x, np.arange(2), '')
  np.testing.assert_allclose(view.logits(view.kernel), np.rint(kernel))
  for name in ('kernel_quantizer', 'input_quantizer'):
    message = f"{name} must be a function such as .* got 'ste_sign'"
    with pytest.raises(types.BadInput, match=message):
      nn.QuantDense(2, **{name: 'ste_sign'})


class TestDeploy:
  """Weights as computed with: explicit, marked, never quantized again."""

  x = normal(4, 3, 3, 1)

  @pytest.mark.parametrize('scaling', ['none', 'fan_in', 'mean_abs'])
  def test_computes_the_same_and_keeps_quantized_weights(self, scaling):
    model = Network(scaling=scaling)
    variables = TestLearned().checkpoint()
    variables = nn.complete(model, variables, KEY, self.x)
    deployed = nn.deploy(model, variables, self.x)
    want = model.apply(variables, self.x)
    got = model.apply(deployed, self.x)
    np.testing.assert_array_equal(got, want)
    kernel = deployed['params']['Conv']['kernel']
    assert len(np.unique(kernel[..., 0])) <= 3
    assert 'kernel_quantizer' not in deployed['params']['Conv']
    assert 'input_quantizer' in deployed['params']['Dense']
    with pytest.raises(types.BadInput, match='these are deployed already'):
      nn.deploy(model, deployed, self.x)

  def test_flax_layers_compute_the_same_with_them(self):
    model = nn.QuantDense(
      3, kernel_quantizer=quantizers.dorefa_weights(2), scaling='mean_abs'
    )
    x = normal(5, 4)
    variables = {'params': {'kernel': normal(4, 3), 'bias': normal(3)}}
    want = model.apply(variables, x)
    deployed = nn.deploy(model, variables, x, fold_scale=True)
    plain = {'params': deployed['params']}
    np.testing.assert_allclose(
      linen.Dense(3).apply(plain, x), want, rtol=1e-5, atol=1e-6
    )
    # Without the mark they would be quantized twice, and differ.
    assert np.abs(model.apply(plain, x) - want).max() > 1e-3
    np.testing.assert_allclose(
      model.apply(deployed, x), want, rtol=1e-5, atol=1e-6
    )

  def test_hidden_layers_of_a_network_with_scaled_inputs(self):
    model = nn.binary_mlp(hidden=(4,), num_classes=3, use_bias=True)
    inputs = RNG.integers(0, 256, (5, 6), dtype=np.uint8)
    shapes = jax.eval_shape(model.init, KEY, inputs)
    variables = jax.tree.map(lambda a: normal(*a.shape), shapes)
    want = model.apply(variables, inputs)
    deployed = nn.deploy(model, variables, inputs)
    kernel = deployed['params']['Dense_0']['kernel']
    np.testing.assert_array_equal(np.abs(kernel), 1)
    np.testing.assert_array_equal(model.apply(deployed, inputs), want)
    folded = nn.deploy(model, variables, inputs, fold_scale=True)
    kernel = folded['params']['Dense_0']['kernel']
    np.testing.assert_allclose(np.abs(kernel), 6**-0.5, rtol=1e-6)
    np.testing.assert_allclose(
      model.apply(folded, inputs), want, rtol=1e-5, atol=1e-5
    )

  def test_sums_of_zero_keep_their_sign(self):
    # Three of six ±1 products cancel exactly; scaled one by one they may not.
    model = nn.binary_mlp(hidden=(64,), scaling='mean_abs')
    shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 6)))
    variables = jax.tree.map(lambda a: normal(*a.shape), shapes)
    x = jnp.asarray(RNG.choice([-1.0, 1.0], (64, 6)), jnp.float32)
    first = np.asarray(jnp.sign(variables['params']['Dense_0']['kernel']))
    assert (np.asarray(x) @ first == 0).mean() > 0.2
    want = model.apply(variables, x)
    got = model.apply(nn.deploy(model, variables, x), x)
    np.testing.assert_array_equal(got, want)
    other = model.apply(nn.deploy(model, variables, x, fold_scale=True), x)
    assert np.abs(other - want).max() > 0.1

  def test_needs_a_quantized_layer(self):
    plain = linen.Dense(2)
    variables = plain.init(KEY, self.x)
    with pytest.raises(
      types.BadInput, match='must call a QuantDense or QuantConv'
    ):
      nn.deploy(plain, variables, self.x)


X = np.ones((2, 5, 6, 3), np.float32)


@pytest.mark.parametrize(
  ('layer', 'x', 'message'),
  [
    (nn.QuantDense(2, scaling='max'), X, 'scaling must be one of none, fan_in'),
    (nn.QuantConv(2, (2, 2), scaling='max'), X, 'scaling must be one of none'),
    (nn.QuantDense(2, scaling=jnp.max), X, 'or a Scaling such as .* got <'),
    (
      nn.QuantConv(2, (2, 2), padding='FULL'),
      X,
      'padding must be one of SAME, SAME_LOWER, VALID, CIRCULAR, REFLECT, CAUSAL',
    ),
    (nn.QuantConv(2, (2, 2), padding='CAUSAL'), X, 'in 2 dimensions'),
    (nn.QuantConv(2, (2, 2), padding=(1, 1, 1)), X, 'for each of 2 dimensions'),
    (
      nn.QuantConv(2, (2, 2), strides=(1,)),
      X,
      'strides must be an integer or 2',
    ),
    (
      nn.QuantConv(4, (2, 2), feature_group_count=2),
      X,
      'feature_group_count must divide .* 3 and 4; got 2',
    ),
    (nn.QuantConv(2, (2, 2)), X[0, 0], r'x must have 3 axes or more'),
    (
      nn.QuantDense(2, input_quantizer=sign()),
      np.ones((2, 3), np.uint8),
      'needs a floating x; got dtype uint8',
    ),
    (
      nn.QuantConv(
        2, (2, 2), kernel_quantizer=quantizers.lsq(2, channel_axis=4)
      ),
      X,
      r'channel_axis must be in \[-4, 4\)',
    ),
  ],
)
def test_bad_input_is_refused(layer, x, message):
  with pytest.raises(types.BadInput, match=message):
    jax.eval_shape(layer.init, KEY, x)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: nn.MLP(hidden=8), 'hidden must be a tuple .* got 8'),
    (lambda: nn.QuantDense((2,)), r'features must be an integer .* \(2,\)'),
    (
      lambda: nn.QuantConv(2, (2, 2), strides=(None, 2)),
      'strides must be an integer >= 1; got None',
    ),
    (
      lambda: nn.QuantConv(2, ((2, 2),)),
      r'kernel_size must be an integer .* got \(2, 2\)',
    ),
  ],
)
def test_numbers_are_nested_as_they_should_be(make, message):
  with pytest.raises(types.BadInput, match=message):
    make()


def test_sizes_may_be_numbers_of_numpy():
  numpy = nn.QuantConv(2, np.int64(2), strides=np.array(2))
  python = nn.QuantConv(2, 2, strides=2)
  got, want = (layer._product() for layer in (numpy, python))
  assert got == want
  assert {type(size) for size in (*got.kernel_size, *got.strides)} == {int}
