"""gradient_passing, against NumPy and other ways to the same number."""

from flax import linen
import jax
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(12, 6)).astype(np.float32)
KEY = jax.random.key(0, impl='rbg')  # Compiles faster than threefry.
LABELS = RNG.integers(0, 3, 12)


def sign(estimator):
  return quantizers.attach(quantizers.sign(), estimator)


class TwoLayers(linen.Module):
  """Windows of 0.7 on inputs and 0.5 on kernels."""

  @linen.compact
  def __call__(self, x):
    def layer(units):
      return nn.QuantDense(
        units,
        kernel_quantizer=sign(quantizers.window(0.5)),
        input_quantizer=sign(quantizers.window(0.7)),
        scaling='fan_in',
        use_bias=False,
      )

    x = layer(5)(x)
    return layer(3)(x)


class Twice(linen.Module):
  """One layer, called two times; a shortcut around the second call."""

  @linen.compact
  def __call__(self, x, progress=1.0):
    layer = nn.QuantDense(6, input_quantizer=sign(quantizers.window(0.7)))
    x = layer(x, progress=progress)
    return x + layer(x, progress=progress)


def kernels(*shapes):
  return {
    'params': {
      f'QuantDense_{i}': {'kernel': RNG.normal(size=s).astype(np.float32)}
      for i, s in enumerate(shapes)
    }
  }


def signs(x):
  return np.where(x >= 0, 1.0, -1.0)


def softmax_error(logits, labels):
  weights = np.exp(logits - logits.max(axis=1, keepdims=True))
  weights /= weights.sum(axis=1, keepdims=True)
  return (weights - np.eye(logits.shape[1])[labels]) / len(labels)


def shares(passed, arrived):
  """l1 and squared l2."""
  return (
    np.abs(passed).sum() / np.abs(arrived).sum(),
    (passed**2).sum() / (arrived**2).sum(),
  )


def check(row, kind, **numbers):
  assert row.kind == kind
  for name, want in numbers.items():
    np.testing.assert_allclose(
      getattr(row, name), want, rtol=1e-4, atol=1e-6, err_msg=name
    )


@pytest.mark.parametrize('labels', [LABELS, None])
def test_two_layers_by_hand(labels):
  variables = kernels((6, 5), (5, 3))
  got = nn.gradient_passing(
    TwoLayers(), variables, INPUTS, labels, half_width=0.3
  )
  labels = np.arange(12) % 3 if labels is None else labels
  first, second = (
    np.float64(variables['params'][f'QuantDense_{i}']['kernel'])
    for i in range(2)
  )
  x = np.float64(INPUTS)
  z = signs(x) @ signs(first) / np.sqrt(6)
  logits = signs(z) @ signs(second) / np.sqrt(5)
  g = softmax_error(logits, labels) / np.sqrt(5)
  g_second, g_z = signs(z).T @ g, g @ signs(second).T
  z_bar = g_z * (np.abs(z) <= 0.7)
  g_first = signs(x).T @ (z_bar / np.sqrt(6))
  g_x = (z_bar / np.sqrt(6)) @ signs(first).T
  wanted = [(x, g_x, first, g_first), (z, g_z, second, g_second)]
  assert [row.path for row in got.layers] == ['QuantDense_0', 'QuantDense_1']
  for row, (entering, g_in, kernel, g_w) in zip(
    got.layers, wanted, strict=True
  ):
    x_mass, x_power = shares(g_in * (np.abs(entering) <= 0.7), g_in)
    w_bar = g_w * (np.abs(kernel) <= 0.5)
    w_mass, w_power = shares(w_bar, g_w)
    assert 0.1 < x_mass < 0.9 and 0.1 < w_mass < 0.9
    check(
      row,
      'QuantDense',
      input_mean=entering.mean(),
      input_std=entering.std(),
      input_share=(np.abs(entering) <= 0.3).mean(),
      input_mass=x_mass,
      input_power=x_power,
      saturated=(np.abs(kernel) > 1).mean(),
      kernel_mass=w_mass,
      kernel_power=w_power,
      kernel_norm=np.linalg.norm(w_bar),
    )
  logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
  want = -logits[np.arange(12), labels].mean()
  np.testing.assert_allclose(got.loss, want, rtol=1e-5)
  table = str(got).splitlines()
  assert len(table) == 4 and '|x|<=0.3' in table[0]
  assert f'{got.layers[1].input_mass:.1%}' in table[3]


def test_a_shortcut_does_not_count():
  variables = kernels((6, 6))
  variables['params']['QuantDense_0']['bias'] = np.zeros(6, np.float32)
  got = nn.gradient_passing(Twice(), variables, INPUTS, progress=0.5)
  assert [row.path for row in got.layers] == [
    'QuantDense_0',
    'QuantDense_0 (2)',
  ]
  x = np.float64(INPUTS)
  kernel = np.float64(variables['params']['QuantDense_0']['kernel'])
  z = signs(x) @ kernel
  logits = z + signs(z) @ kernel
  g = softmax_error(logits, np.arange(12) % 6) @ kernel.T
  mass, power = shares(g * (np.abs(z) <= 0.7), g)
  check(got.layers[1], 'QuantDense', input_mass=mass, input_power=power)
  assert got.layers[1].kernel_mass is None
  assert got.layers[1].saturated is None


def mean_square(outputs, targets):
  return ((outputs - targets) ** 2).mean()


def test_another_loss_and_one_program_for_many_batches():
  """The output's gradient by hand; the function is traced for new shapes only."""
  traced = []

  def loss(outputs, targets):
    traced.append(outputs.shape)
    return mean_square(outputs, targets)

  variables = kernels((6, 5), (5, 3))
  second = np.float64(variables['params']['QuantDense_1']['kernel'])
  count = 0
  for batch in (INPUTS, 2 * INPUTS):
    targets = RNG.normal(size=(12, 3)).astype(np.float32)
    got = nn.gradient_passing(TwoLayers(), variables, batch, targets, loss=loss)
    first = np.float64(variables['params']['QuantDense_0']['kernel'])
    z = signs(np.float64(batch)) @ signs(first) / np.sqrt(6)
    outputs = signs(z) @ signs(second) / np.sqrt(5)
    g = 2 * (outputs - targets) / outputs.size / np.sqrt(5)
    g_z = g @ signs(second).T
    mass, power = shares(g_z * (np.abs(z) <= 0.7), g_z)
    check(got.layers[1], 'QuantDense', input_mass=mass, input_power=power)
    np.testing.assert_allclose(
      got.loss, mean_square(outputs, targets), rtol=1e-5
    )
    count = count or len(traced)
  assert len(traced) == count  # Not traced again.


def test_mlp_is_taken_apart_by_its_stages():
  """Its activations are the input quantizers of layers."""
  model = nn.binary_mlp(
    quantizers.window(0.1),
    quantizers.window(0.6),
    hidden=(5,),
    num_classes=3,
  )
  variables = jax.jit(model.init)(KEY, INPUTS)

  class Layers(linen.Module):
    @linen.compact
    def __call__(self, x):
      options = {
        'kernel_quantizer': sign(quantizers.window(0.1)),
        'scaling': 'fan_in',
        'use_bias': False,
      }
      x = nn.QuantDense(5, name='Dense_0', **options)(x)
      return nn.QuantDense(
        3,
        name='Dense_1',
        input_quantizer=sign(quantizers.window(0.6)),
        **options,
      )(x)

  got = nn.gradient_passing(model, variables, INPUTS, LABELS)
  want = nn.gradient_passing(Layers(), variables, INPUTS, LABELS)
  first, activation, second = got.layers
  assert activation.path == 'activation_0'
  assert second.input_mass is None and activation.kernel_mass is None
  for field in ('kernel_mass', 'kernel_power', 'kernel_norm', 'saturated'):
    check(first, 'Dense', **{field: getattr(want.layers[0], field)})
    check(second, 'Dense', **{field: getattr(want.layers[1], field)})
  for field in ('input_mass', 'input_power', 'input_share', 'input_std'):
    check(activation, 'sign', **{field: getattr(want.layers[1], field)})
  assert 0.05 < activation.input_mass < 0.95
  assert first.kernel_mass < 0.95


@pytest.mark.slow
def test_resnet_and_its_hardtanh():
  images = RNG.normal(size=(4, 4, 4, 2)).astype(np.float32)
  model = nn.ResNet(
    stages=(1,),
    widths=(3,),
    num_classes=3,
    variant='bireal',
    kernel_quantizer=sign(quantizers.identity()),
    input_quantizer=sign(quantizers.window()),
    scaling='mean_abs',
  )
  variables = jax.jit(model.init)(KEY, images)
  got = nn.gradient_passing(model, variables, images, train=True)
  assert [(row.path, row.kind) for row in got.layers] == [
    ('Activation_0', 'hardtanh'),
    ('Block_0/Conv_0', 'QuantConv'),
    ('Block_0/Activation_0', 'hardtanh'),
    ('Block_0/Conv_1', 'QuantConv'),
    ('Block_0/Activation_1', 'hardtanh'),
  ]

  @jax.jit
  def normalised(variables):
    _, seen = model.apply(
      variables,
      images,
      train=True,
      mutable=['batch_stats', 'intermediates'],
      capture_intermediates=True,
    )
    return seen['intermediates']['BatchNorm_0']['__call__'][0]

  x = np.abs(normalised(variables))
  np.testing.assert_allclose(got.layers[0].input_share, (x <= 1).mean())
  for row in got.layers:
    if row.kind == 'hardtanh':
      assert 0.3 < row.input_mass < 0.95
    else:  # What a hardtanh has clipped is inside the window.
      assert row.input_share == row.input_mass == row.kernel_mass == 1


class Plain(linen.Module):
  """No layer of ours."""

  @linen.compact
  def __call__(self, x):
    return linen.Dense(3)(x)


@pytest.mark.parametrize(
  ('kwargs', 'message'),
  [
    ({'half_width': 0.0}, 'half_width must be > 0'),
    ({'labels': LABELS[:5]}, 'labels must be integers, one for each image'),
    ({'model': Plain()}, 'must call a layer with a quantizer'),
    ({'model': nn.full_precision_mlp()}, 'must call a layer with a quantizer'),
  ],
)
def test_bad_input(kwargs, message):
  model = kwargs.pop('model', TwoLayers())
  variables = kernels((6, 5), (5, 3))
  if not isinstance(model, TwoLayers):
    variables = jax.jit(model.init)(KEY, INPUTS)
  with pytest.raises(types.BadInput, match=message):
    nn.gradient_passing(model, variables, INPUTS, **kwargs)


def test_where_no_gradient_arrives_shares_are_nan():
  ones = {
    f'QuantDense_{i}': {'kernel': np.ones(shape, np.float32)}
    for i, shape in enumerate([(6, 5), (5, 3)])
  }
  # Sums of six ones over sqrt(6) are outside of the window.
  got = nn.gradient_passing(TwoLayers(), {'params': ones}, np.abs(INPUTS))
  first, second = got.layers
  assert second.input_share == second.kernel_mass == second.kernel_norm == 0
  assert np.isnan(first.input_mass) and np.isnan(first.kernel_power)
  assert first.kernel_norm == 0 and 'nan' in str(got)


def test_repeated_calls_share_a_program(loaded):
  """Whatever the weights, images and half-width are; not for another model."""

  def compiled(units=4, scale=1.0, **options):
    before = loaded.fresh
    variables = jax.tree.map(lambda leaf: scale * leaf, kernels((6, units)))
    got = nn.gradient_passing(One(units), variables, scale * INPUTS, **options)
    assert len(got.layers) == 1
    return loaded.fresh - before, got

  first, got = compiled()
  again, other = compiled(scale=-0.5, half_width=0.2)
  assert first > 0 and again == 0
  assert other.layers[0].input_share < got.layers[0].input_share
  assert compiled(units=3)[0] > 0


class One(linen.Module):
  """One layer; a list of windows cannot be hashed."""

  units: int
  windows: tuple[float, ...] | list[float] = (0.7,)

  @linen.compact
  def __call__(self, x, scale=1.0):
    x = scale * x
    for half_width in self.windows:
      x = nn.QuantDense(
        self.units,
        input_quantizer=sign(quantizers.window(half_width)),
        use_bias=False,
      )(x)
    return x


def test_a_model_or_keyword_that_cannot_be_hashed():
  variables = kernels((6, 4))
  want = nn.gradient_passing(One(4), variables, INPUTS)
  assert nn.gradient_passing(One(4, [0.7]), variables, INPUTS) == want
  halved = nn.gradient_passing(One(4), variables, INPUTS, scale=0.5)
  traced = nn.gradient_passing(One(4), variables, INPUTS, scale=np.array(0.5))
  assert halved == traced != want


def test_another_progress_of_the_context_is_another_program():
  layer = nn.QuantDense(3, input_quantizer=sign(quantizers.error_decay(0.1)))
  variables = {'params': kernels((6, 3))['params']['QuantDense_0']}
  variables['params']['bias'] = np.zeros(3, np.float32)

  def measured(progress):
    with nn.training_progress(progress):
      return nn.gradient_passing(layer, variables, INPUTS)

  early, late, again = (measured(progress) for progress in (0.2, 0.8, 0.2))
  assert early == again != late
