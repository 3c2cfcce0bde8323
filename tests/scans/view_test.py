"""A view of a layer is the network: same logits, losses and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types

KINDS = {
  'full precision': nn.full_precision_mlp,
  'binary': nn.binary_mlp,
  'binary weights': nn.binary_weights_mlp,
}
OPTIONS = {
  'plain': {},
  'bias': {'use_bias': True, 'scaling': 'mean_abs'},
  'norm': {'batch_norm': True, 'scaling': 'none'},
}
HIDDEN, CLASSES = (6, 5), 3
RNG = np.random.default_rng(0)
INPUTS = RNG.integers(0, 256, (9, 4, 3), dtype=np.uint8)
LABELS = RNG.integers(0, CLASSES, 9)

every_kind = pytest.mark.parametrize('kind', KINDS)
every_option = pytest.mark.parametrize('option', OPTIONS)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


def network(kind, option='plain'):
  """A model with random variables."""
  model = KINDS[kind](hidden=HIDDEN, num_classes=CLASSES, **OPTIONS[option])
  shapes = jax.eval_shape(model.init, jax.random.key(0), INPUTS)
  rng = np.random.default_rng(1)

  def leaf(path, x):
    value = rng.normal(size=x.shape).astype(np.float32)
    return np.exp(value) if path[-1].key == 'var' else value

  return model, jax.tree_util.tree_map_with_path(leaf, shapes)


def view_of(kind, option='plain', layer='Dense_0', **kwargs):
  model, variables = network(kind, option)
  view = nn.layer_view(model, variables, INPUTS, LABELS, layer, **kwargs)
  return view, model, variables


class TestEqualsModel:
  """Every layer of every kind."""

  @every_option
  @every_kind
  def test_every_layer(self, kind, option):
    model, variables = network(kind, option)

    def model_loss(params):
      logits = model.apply({**variables, 'params': params}, INPUTS)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
      return jnp.mean(losses), (logits, losses)

    def view_loss(kernel, view):
      logits, losses = view.logits(kernel), view.losses(kernel)
      return view.loss(kernel), (logits, losses)

    @jax.jit
    def run(variables):
      results = []
      for layer in range(len(HIDDEN) + 1):
        name = f'Dense_{layer}'
        view = nn.layer_view(model, variables, INPUTS, LABELS, name)
        grad = jax.value_and_grad(view_loss, has_aux=True)
        results.append(grad(view.kernel, view))
      grad = jax.value_and_grad(model_loss, has_aux=True)
      return grad(variables['params']), results

    (values, grads), results = run(variables)
    for layer, result in enumerate(results):
      want = (values, grads[f'Dense_{layer}']['kernel'])
      jax.tree.map(close, result, want)

  @every_kind
  def test_another_kernel_equals_the_model_with_it(self, kind):
    model, variables = network(kind, 'bias')
    params = variables['params']

    @jax.jit
    def run(kernel):
      view = nn.layer_view(model, variables, INPUTS, LABELS, 'Dense_1')
      moved = {**params, 'Dense_1': {**params['Dense_1'], 'kernel': kernel}}
      return view.logits(kernel), model.apply({'params': moved}, INPUTS)

    kernel = params['Dense_1']['kernel']
    before, want = run(kernel)
    close(before, want)
    got, want = run(RNG.normal(size=kernel.shape).astype(np.float32))
    close(got, want)
    assert np.abs(got - before).max() > 0.01

  def test_training_mode_normalises_by_the_batch(self):
    model, variables = network('binary', 'norm')

    @jax.jit
    def run():
      view = nn.layer_view(
        model, variables, INPUTS, LABELS, 'Dense_0', train=True
      )
      assert view.couples_examples
      logits, _ = model.apply(
        variables, INPUTS, train=True, mutable=['batch_stats']
      )
      return view.logits(view.kernel), logits

    got, want = run()
    close(got, want)
    assert np.abs(want - jax.jit(model.apply)(variables, INPUTS)).max() > 0.01

  def test_progress_reaches_the_quantizers(self):
    def estimator(g, x, x_q, progress):
      return g * progress

    partial = jax.tree_util.Partial(estimator)
    model = nn.binary_mlp(partial, hidden=HIDDEN, num_classes=CLASSES)
    _, variables = network('binary')

    @jax.jit
    def grad(progress):
      view = nn.layer_view(
        model, variables, INPUTS, LABELS, 'Dense_0', progress=progress
      )
      return jax.grad(view.loss)(view.kernel)

    whole, half = grad(1.0), grad(0.5)
    close(half, 0.5 * whole)
    assert np.abs(whole).max() > 1e-3


class TestFacts:
  """What a view says of itself."""

  @every_kind
  def test_tail_is_transparent(self, kind):
    view, _, variables = view_of(kind, 'norm', 'Dense_0')
    names = [type(stage).__name__ for stage in view.tail]
    assert names == 2 * ['Affine', 'Activation', 'Dense']
    kinds = {s.kind for s in view.tail if isinstance(s, scans.Activation)}
    assert kinds == {'sign' if kind == 'binary' else 'relu'}
    kernel = variables['params']['Dense_1']['kernel']
    if kind != 'full precision':
      kernel = np.where(kernel >= 0, 1, -1)
    np.testing.assert_array_equal(view.tail[2].kernel, kernel)
    assert view.tail[2].quantizer is None
    assert not view.couples_examples

  @pytest.mark.parametrize(
    ('option', 'coupling'),
    [('plain', 'none'), ('norm', 'none'), ('bias', 'column')],
  )
  def test_coupling(self, option, coupling):
    assert view_of('binary', option)[0].coupling == coupling

  @pytest.mark.parametrize('coupling', ['column', 'tensor'])
  def test_coupling_says_what_one_move_changes(self, coupling):
    view = view_of('binary')[0]
    scaling = quantizers.mean_abs(coupling)
    view = scans.LayerView(
      view.inputs, view.kernel, LABELS, view.tail, view.quantizer, scaling
    )
    assert view.coupling == coupling
    moved = np.array(view.kernel)
    moved[0, 2] += np.sign(moved[0, 2])  # Same sign, larger magnitude.
    change = np.any(
      view.pre_activations(moved) != view.pre_activations(view.kernel), axis=0
    )
    want = [u == 2 or coupling == 'tensor' for u in range(HIDDEN[0])]
    np.testing.assert_array_equal(change, want)
    frozen = view.freeze_scale()
    assert frozen.coupling == 'none'
    np.testing.assert_array_equal(
      frozen.pre_activations(moved), frozen.pre_activations(view.kernel)
    )
    close(
      frozen.pre_activations(view.kernel), view.pre_activations(view.kernel)
    )

  def test_freezing_what_has_no_scale_changes_nothing(self):
    view = view_of('binary')[0]
    frozen = view.freeze_scale()
    assert jax.tree.structure(frozen) == jax.tree.structure(view)
    jax.tree.map(np.testing.assert_array_equal, frozen, view)

  def test_frozen_layer_computes_the_same_and_holds_no_quantizer(self):
    view = view_of('binary', 'bias')[0]
    layer = scans.Dense(view.kernel, view.quantizer, view.scaling, view.affine)
    frozen = layer.freeze()
    assert frozen.quantizer is None and frozen.scaling is None
    assert set(np.unique(frozen.kernel)) == {-1, 1}
    x = np.float32(view.inputs)
    close(frozen(x), layer(x))

  @pytest.mark.parametrize('kind', ['tanh', '', 'RELU'])
  def test_unknown_activation_is_an_error(self, kind):
    with pytest.raises(types.BadInput, match='identity, relu, sign; got'):
      scans.Activation(kind)

  def test_sign_needs_a_quantizer(self):
    with pytest.raises(types.BadInput, match='needs a quantizer'):
      scans.Activation('sign')

  def test_identity_activation(self):
    x = np.float32([-1, 0, 2])
    np.testing.assert_array_equal(scans.Activation('identity')(x), x)
    np.testing.assert_array_equal(scans.Activation('relu')(x), [0, 0, 2])


class TestPytree:
  """Views are arguments: of jit, of vmap, stacked."""

  def test_two_views_share_one_trace_and_stack(self):
    model, variables = network('binary', 'bias')
    other = jax.tree.map(lambda leaf: leaf[::-1], variables)
    views = [
      nn.layer_view(model, v, INPUTS, LABELS, 'Dense_0')
      for v in (variables, other)
    ]
    traces = []

    @jax.jit
    def loss_and_grad(view):
      traces.append(None)
      return jax.value_and_grad(view.loss)(view.kernel)

    alone = [loss_and_grad(view) for view in views]
    assert len(traces) == 1
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *views)
    with jax.checking_leaks():
      together = jax.jit(
        jax.vmap(lambda view: jax.value_and_grad(view.loss)(view.kernel))
      )(stacked)
    for lane, want in enumerate(alone):
      jax.tree.map(lambda x, y, lane=lane: close(x[lane], y), together, want)
    assert abs(alone[0][0] - alone[1][0]) > 1e-3

  def test_window_width_of_a_view_is_a_leaf(self):
    """The activation's window, deep inside of the tail, swept by vmap."""
    _, variables = network('binary')

    def view_at(width):
      model = nn.binary_mlp(
        activation_estimator=quantizers.window(width),
        hidden=HIDDEN,
        num_classes=CLASSES,
      )
      return nn.layer_view(model, variables, INPUTS, LABELS, 'Dense_0')

    def grad(view):
      return jax.grad(view.loss)(view.kernel)

    views = [view_at(width) for width in (0.5, 2.0)]
    structures = [jax.tree.structure(view) for view in views]
    assert structures[0] == structures[1]
    leaves = zip(*map(jax.tree.leaves, views), strict=True)
    assert sum(np.any(a != b) for a, b in leaves) == 2  # One per hidden layer.
    with jax.checking_leaks():
      got = jax.jit(jax.vmap(lambda width: grad(view_at(width))))(
        np.float32([0.5, 2.0])
      )
    alone = jax.jit(grad)
    for lane, view in enumerate(views):
      close(got[lane], alone(view))
    assert np.abs(got[0] - got[1]).max() > 1e-3

  def test_bad_arguments(self):
    model, variables = network('binary')
    with pytest.raises(
      types.BadInput, match=r"has no layer 'Dense_3'.*'Dense_0'"
    ):
      nn.layer_view(model, variables, INPUTS, LABELS, 'Dense_3')
    with pytest.raises(types.BadInput, match="has no layer 'activation_0'"):
      nn.layer_view(model, variables, INPUTS, LABELS, 'activation_0')
    with pytest.raises(
      types.BadInput, match=r'got 9 examples and labels of shape \(8,\)'
    ):
      nn.layer_view(model, variables, INPUTS, LABELS[:-1], 'Dense_0')
    with pytest.raises(types.BadInput, match='labels must be integers'):
      nn.layer_view(model, variables, INPUTS, np.eye(9), 'Dense_0')
    quantizer = quantizers.attach(quantizers.sign(), quantizers.identity())
    with pytest.raises(types.BadInput, match="bring the kernel's quantizer"):
      nn.layer_view(
        model, variables, INPUTS, LABELS, 'Dense_0', quantizer=quantizer
      )
