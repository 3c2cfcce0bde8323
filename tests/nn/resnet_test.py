"""ResNet: every variant and precision, with tiny networks.

That plain and Bi-Real networks compute what they should is the business of
`resnet_golden_test.py`.
"""

import functools
import itertools

from flax import linen
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types

KEY = jax.random.key(0, impl='rbg')  # Compiles faster than threefry.
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 8, 8, 3)).astype(np.float32)
LABELS = RNG.integers(0, 4, 5)
TINY = {'stages': (1, 1), 'widths': (4, 6), 'num_classes': 4}
VARIANTS = ('plain', 'bireal', 'react')
LEARNED = ('kernel_quantizer', 'input_quantizer')


def sign(estimator):
  return quantizers.attach(quantizers.sign(), estimator)


KINDS = {
  'fp': {},
  'binary': {
    'kernel_quantizer': sign(quantizers.identity()),
    'input_quantizer': sign(quantizers.polynomial()),
    'scaling': 'mean_abs',
  },
  'lsq': {
    'kernel_quantizer': quantizers.lsq(2, channel_axis=-1),
    'input_quantizer': quantizers.lsq(2, batch_axes=1),
  },
}


@functools.cache
def make(variant, kind, **kwargs):
  return nn.ResNet(**(TINY | KINDS[kind] | {'variant': variant} | kwargs))


def shapes(model, images=IMAGES):
  """Names and shapes of all variables."""
  found = jax.eval_shape(model.init, KEY, images)
  flat = traverse_util.flatten_dict(found, sep='/')
  return {name: leaf.shape for name, leaf in flat.items()}


def fill(model, seed=0):
  """Random variables; variances, scales and steps are positive."""
  rng = np.random.default_rng(seed)
  flat = {}
  for name, shape in shapes(model).items():
    value = 0.3 * rng.normal(size=shape)
    if name.endswith('kernel'):
      value *= 3 * np.sqrt(2 / np.prod(shape[:-1]))
    if name.endswith(('scale', 'var')):
      value = np.exp(value)
    if name.endswith('step'):  # About as large as what is quantized.
      value = np.exp(value) * (0.2 if 'kernel_quantizer' in name else 0.8)
    flat[name] = value.astype(np.float32)
  return traverse_util.unflatten_dict(flat, sep='/')


def cross_entropy(logits, labels):
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return jnp.mean(losses)


def step(model, variables, images, labels):
  """Gradients and running statistics of one step."""

  def loss(params):
    logits, new = model.apply(
      variables | {'params': params},
      images,
      train=True,
      mutable=['batch_stats'],
    )
    return cross_entropy(logits, labels), (logits, new['batch_stats'])

  grads, (logits, stats) = jax.grad(loss, has_aux=True)(variables['params'])
  return grads, logits, stats


@functools.cache
def programs(model):
  """A step and an evaluation, compiled once."""
  return jax.jit(functools.partial(step, model)), jax.jit(model.apply)


# Variant and kind; of the others, every shape is tested, but not every training.
TRAINED = [('plain', 'fp'), ('bireal', 'binary')]
MORE = sorted({*itertools.product(VARIANTS, KINDS)} - {*TRAINED})


class TestEveryKind:
  """Variants times precisions."""

  @pytest.mark.parametrize('kind', KINDS)
  @pytest.mark.parametrize('variant', VARIANTS)
  def test_names_and_shapes_are_those_of_full_precision(self, variant, kind):
    full, own = shapes(make(variant, 'fp')), shapes(make(variant, kind))
    learned = {n for n in own if any(part in n for part in LEARNED)}
    assert {n: s for n, s in own.items() if n not in learned} == full
    # Four convolutions with a step each way.
    assert len(learned) == (8 if kind == 'lsq' else 0)

  @pytest.mark.parametrize(
    ('variant', 'kind'),
    [*TRAINED, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in MORE)],
  )
  def test_trains_and_evaluates(self, variant, kind):
    # Two stages compile twice as long; the binary ones serve other tests too.
    small = {} if kind == 'binary' else {'stages': (1,), 'widths': (4,)}
    model = make(variant, kind, **small)
    train, evaluate = programs(model)
    variables = fill(model)
    grads, logits, stats = train(variables, IMAGES, LABELS)
    assert logits.shape == (5, 4) and logits.dtype == np.float32
    for name, grad in traverse_util.flatten_dict(grads, sep='/').items():
      assert np.isfinite(grad).all(), name
      assert np.abs(grad).max() > 1e-6, name
    old = traverse_util.flatten_dict(variables['batch_stats'], sep='/')
    for name, new in traverse_util.flatten_dict(stats, sep='/').items():
      assert np.isfinite(new).all()
      assert np.abs(new - old[name]).max() > 1e-3, name
    # An example's logits are its own in evaluation, and not in training.
    others = np.concatenate([IMAGES[:2], -IMAGES[2:]])
    alone, among = evaluate(variables, IMAGES), evaluate(variables, others)
    np.testing.assert_allclose(alone[:2], among[:2], rtol=1e-5, atol=1e-6)
    assert np.abs(alone[2:] - among[2:]).max() > 1e-3
    _, trained, _ = train(variables, others, LABELS)
    assert np.abs(trained[:2] - logits[:2]).max() > 1e-3


class TestStarts:
  """Checkpoints and seeds."""

  def test_complete_adds_what_learned_quantizers_need(self):
    model, checkpoint = make('react', 'lsq'), fill(make('react', 'fp'))
    complete = jax.jit(functools.partial(nn.complete, model))
    variables = complete(checkpoint, KEY, IMAGES)
    flat = traverse_util.flatten_dict(variables, sep='/')
    assert {name: x.shape for name, x in flat.items()} == shapes(model)
    for name, leaf in traverse_util.flatten_dict(checkpoint, sep='/').items():
      np.testing.assert_array_equal(flat[name], leaf)
    layer = 'params/Block_1/Conv_0'
    # Codes from -2 to 1: the largest is 1.
    want = 2 * np.abs(flat[f'{layer}/kernel']).mean(axis=(0, 1, 2))
    step_size = flat[f'{layer}/kernel_quantizer/step']
    np.testing.assert_allclose(step_size, want, rtol=1e-5)
    assert flat[f'{layer}/input_quantizer/step'] > 0

  @pytest.mark.slow
  def test_vmap_over_seeds_equals_one_by_one(self):
    model = make('react', 'binary')
    seeds = [fill(model, seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)
    train, _ = programs(model)
    got = jax.jit(jax.vmap(train, (0, None, None)))(stacked, IMAGES, LABELS)
    means = got[2]['Block_1']['BatchNorm_1']['mean']
    assert np.abs(means[0] - means[1]).max() > 1e-3

    def close(leaf, one):
      size = np.abs(one).max()
      np.testing.assert_allclose(leaf, one, rtol=1e-4, atol=1e-4 * size)

    for seed, variables in enumerate(seeds):
      want = train(variables, IMAGES, LABELS)
      jax.tree.map(lambda a, b, s=seed: close(a[s], b), got, want)


class TestVariants:
  """What distinguishes them."""

  def test_react_has_the_thresholds_of_rsign_and_rprelu(self):
    """As a Bi-Real network whose quantizers and activations are learned."""
    estimator = quantizers.polynomial()
    react = make('react', 'binary')
    bireal = make('bireal', 'binary', activation='rprelu').clone(
      input_quantizer=quantizers.rsign(estimator)
    )
    variables = fill(react)
    moved = {}
    for name, leaf in traverse_util.flatten_dict(variables, sep='/').items():
      place = name.replace('/Threshold_', '/Conv_')
      if place != name:
        place = place.replace('/threshold', '/input_quantizer/threshold')
      moved[place] = leaf
    assert set(moved) == set(shapes(bireal))
    moved = traverse_util.unflatten_dict(moved, sep='/')
    got = programs(react)[0](variables, IMAGES, LABELS)
    want = programs(bireal)[0](moved, IMAGES, LABELS)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-5)
    for block in ('Block_0', 'Block_1'):
      np.testing.assert_allclose(
        got[0][block]['Threshold_1']['threshold'],
        want[0][block]['Conv_1']['input_quantizer']['threshold'],
        rtol=1e-3,
        atol=1e-6,
      )

  @pytest.mark.parametrize(
    ('variant', 'kind', 'wanted'),
    [
      ('plain', 'fp', 'relu'),
      ('plain', 'lsq', 'relu'),
      ('plain', 'binary', 'hardtanh'),
      ('bireal', 'fp', 'hardtanh'),
      ('react', 'fp', 'rprelu'),
    ],
  )
  def test_activation(self, variant, kind, wanted):
    def kinds(model):
      seen = set()

      def look(next_fun, args, kwargs, context):
        if type(context.module).__name__ == 'Activation':
          seen.add(context.module.kind)
        return next_fun(*args, **kwargs)

      with linen.intercept_methods(look):
        jax.eval_shape(model.init, KEY, IMAGES)
      return seen

    assert kinds(make(variant, kind)) == {wanted}
    assert kinds(make(variant, kind, activation='identity')) == {'identity'}

  @pytest.mark.parametrize('shortcut', ['pad', 'projection'])
  def test_images_of_odd_sides(self, shortcut):
    model = make('bireal', 'fp', shortcut=shortcut)
    images = IMAGES[:, :7, :5]
    variables = jax.eval_shape(model.init, KEY, images)
    logits = jax.eval_shape(model.apply, variables, images)
    assert logits.shape == (5, 4)
    names = [name for name in shapes(model) if 'shortcut' in name]
    assert len(names) == (5 if shortcut == 'projection' else 0)

  def test_bfloat16(self):
    model = make('bireal', 'binary', dtype=jnp.bfloat16)

    def run(variables):
      return model.apply(variables, IMAGES, capture_intermediates=True)

    logits, seen = jax.eval_shape(run, fill(model))
    assert logits.dtype == np.float32
    flat = traverse_util.flatten_dict(seen['intermediates'], sep='/')
    inner = {n: x[0].dtype for n, x in flat.items() if n.startswith('Block')}
    norms = {n for n in inner if 'BatchNorm' in n}
    assert {inner[n] for n in set(inner) - norms} == {jnp.dtype('bfloat16')}


class TestViews:
  """Layers can be looked at, and checkpoints deployed."""

  def test_layer_view_and_deploy(self):
    model = make('bireal', 'binary')
    variables = fill(model)
    layer = 'Block_1/Conv_0'

    @jax.jit
    def run(variables):
      view = nn.layer_view(model, variables, IMAGES, LABELS, layer)
      deployed = nn.deploy(model, variables, IMAGES)
      return (
        view.inputs,
        view.loss(view.kernel),
        view.loss(-view.kernel),
        model.apply(deployed, IMAGES),
      )

    inputs, loss, flipped, deployed = run(variables)
    assert set(np.unique(inputs)) == {-1, 1}
    evaluate = programs(model)[1]
    logits = evaluate(variables, IMAGES)
    np.testing.assert_allclose(deployed, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loss, cross_entropy(logits, LABELS), rtol=1e-4)
    kernel = variables['params']['Block_1']['Conv_0']['kernel']
    kernel *= -1
    want = cross_entropy(evaluate(variables, IMAGES), LABELS)
    np.testing.assert_allclose(flipped, want, rtol=1e-4)
    assert abs(float(want - loss)) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('scaling', ['fan_in', 'mean_abs'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_deployed_networks_compute_the_same_to_the_bit(variant, scaling):
  # Untrained thresholds are at 0, where many sums of ±1 values are exactly.
  model = make(variant, 'binary', scaling=scaling)
  variables = model.init(KEY, IMAGES)
  deployed = nn.deploy(model, variables, IMAGES)
  folded = nn.deploy(model, variables, IMAGES, fold_scale=True)
  for apply in (model.apply, jax.jit(model.apply)):
    want = apply(variables, IMAGES)
    np.testing.assert_array_equal(apply(deployed, IMAGES), want)
    assert np.abs(apply(folded, IMAGES) - want).max() > 1e-3


class TestCosts:
  """Parameters by bits, worked out by hand."""

  images = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')

  @pytest.mark.parametrize(
    ('model', 'kernels', 'others'),
    [
      # 6 x 16 x 16, 16 x 32 + 5 x 32 x 32, 32 x 64 + 5 x 64 x 64, by 9.
      (
        nn.resnet20,
        9 * (6 * 256 + 512 + 5 * 1024 + 2048 + 5 * 4096),
        432 + 2 * (7 * 16 + 6 * 32 + 6 * 64) + 650,
      ),
      (
        nn.resnet32,
        9 * (10 * 256 + 512 + 9 * 1024 + 2048 + 9 * 4096),
        432 + 2 * (11 * 16 + 10 * 32 + 10 * 64) + 650,
      ),
      # One projection for each of the last three stages, normalised.
      (
        nn.resnet18,
        9 * 4096 * (4 + 2 + 3 * 4 + 8 + 3 * 16 + 32 + 3 * 64),
        1728
        + 2 * (5 * 64 + 5 * 128 + 5 * 256 + 5 * 512)
        + 4096 * (2 + 8 + 32)
        + 5130,
      ),
    ],
  )
  def test_parameters(self, model, kernels, others):
    got = nn.summary(model(**KINDS['binary']), self.images)
    assert got.total.parameters == {1: kernels, 32: others}
    total = {432: 269_722, 1728: 11_173_962}.get(got.layers[0].parameters[32])
    if model is not nn.resnet32:
      assert kernels + others == total

  @pytest.mark.slow
  def test_first_and_last_layer(self):
    def bits(**kwargs):
      model = make('bireal', 'lsq', **kwargs)
      rows = {row.path: row for row in nn.summary(model, IMAGES).layers}
      return [list(rows[name].macs) for name in ('Conv_0', 'Dense_0')]

    assert bits() == [[(32, 32)], [(32, 32)]]
    assert bits(quantize_first=True) == [[(32, 2)], [(32, 32)]]
    assert bits(quantize_last=True) == [[(32, 32)], [(2, 2)]]

  def test_a_scale_without_a_quantizer_is_none(self):
    """Else full-precision kernels would be scaled in staged training."""
    model = make('bireal', 'binary').clone(kernel_quantizer=None)
    plain = model.clone(scaling='none')
    variables = fill(model)
    np.testing.assert_array_equal(
      jax.jit(model.apply)(variables, IMAGES),
      jax.jit(plain.apply)(variables, IMAGES),
    )


class TestInitialisations:
  """Spreads and orthogonality of a kernel with fans of 144 and 288."""

  @pytest.mark.parametrize(
    ('name', 'variance'),
    [
      ('xavier', 2 / (144 + 288)),
      ('kaiming', 2 / 144),
      ('kaiming_normal', 2 / 144),
      ('kaiming_fan_out', 2 / 288),
      ('fan_in_uniform', 1 / 432),
      ('orthogonal', 1 / 144),
    ],
  )
  def test_variance(self, name, variance):
    model = nn.ResNet(stages=(1,), widths=(32,), init_name=name)
    images = np.zeros((1, 1, 1, 16), np.float32)
    kernel = jax.jit(model.init)(KEY, images)['params']['Conv_0']['kernel']
    kernel = np.float64(kernel)
    assert kernel.shape == (3, 3, 16, 32)
    assert abs(kernel.var() / variance - 1) < 0.08
    if name == 'orthogonal':
      matrix = kernel.reshape(-1, 32)
      np.testing.assert_allclose(matrix.T @ matrix, np.eye(32), atol=1e-5)
    if name == 'fan_in_uniform':
      assert 0.99 / 12 < np.abs(kernel).max() <= (1 + 1e-6) / 12

  @pytest.mark.parametrize(
    'make',
    [
      lambda **kwargs: nn.ResNet(stages=(1,), widths=(32,), **kwargs),
      lambda **kwargs: nn.VGG(stages=((32,),), **kwargs),
    ],
  )
  def test_the_classifier_may_have_its_own(self, make):
    images = np.zeros((1, 2, 2, 16), np.float32)
    same, own = (
      jax.jit(make(num_classes=50, last_init_name=name).init)(KEY, images)
      for name in (None, 'fan_in_uniform')
    )
    same, own = same['params'], own['params']
    ours, theirs = own.pop('Dense_0'), same.pop('Dense_0')
    jax.tree.map(np.testing.assert_array_equal, own, same)
    np.testing.assert_array_equal(ours['bias'], 0)
    limit = 1 / np.sqrt(32)
    assert 0.9 * limit < np.abs(ours['kernel']).max() <= limit * (1 + 1e-6)
    assert abs(theirs['kernel'].var() * 32 / 2 - 1) < 0.15


@pytest.mark.parametrize(
  ('bad', 'message'),
  [
    ({'variant': 'dense'}, 'variant must be one of plain, bireal, react'),
    ({'shortcut': 'b'}, 'shortcut must be one of pad, projection'),
    ({'activation': 'gelu'}, 'activation must be one of identity, relu'),
    ({'init_name': 'he'}, 'init_name must be one of xavier, kaiming'),
    ({'last_init_name': 'he'}, 'last_init_name must be one of xavier'),
    ({'scaling': 'sqrt'}, 'scaling must be one of none, fan_in'),
    ({'stages': (1, 1, 1)}, 'stages and widths must be as many'),
    ({'stages': (), 'widths': ()}, 'stages and widths must be as many'),
    ({'stages': (1, 0)}, 'stages must be an integer >= 1; got 0'),
    ({'stages': 2, 'widths': 2}, 'must be a tuple of .* got 2'),
    ({'stages': ((1, 1), 1)}, r'stages must be an integer .* got \(1, 1\)'),
    ({'widths': (6, 4)}, 'widths must not decrease'),
    ({'momentum': 1.5}, 'momentum must be in'),
    ({'epsilon': 0.0}, 'epsilon must be > 0'),
    ({'kernel_quantizer': 'sign'}, 'kernel_quantizer must be a function'),
    ({'input_quantizer': 3}, 'input_quantizer must be a function'),
    ({'input_quantizer': quantizers.window()}, 'must be a function'),
  ],
)
def test_bad_models(bad, message):
  with pytest.raises(types.BadInput, match=message):
    model = nn.ResNet(**(TINY | KINDS['binary'] | bad))
    jax.eval_shape(model.init, KEY, IMAGES)


@pytest.mark.parametrize(
  'images', [IMAGES[0], IMAGES[:, 0, 0], np.uint8(IMAGES), IMAGES[None]]
)
def test_bad_images(images):
  with pytest.raises(types.BadInput, match='images must be floating'):
    jax.eval_shape(make('plain', 'fp').init, KEY, images)
