"""Widths that are fitted while a network trains."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn as networks
from bitjax import quantizers
from bitjax import scans
from bitjax import training
from bitjax import types
from bitjax.training import _refit
from bitjax.training import _windows

SIGN = quantizers.attach(quantizers.sign(), quantizers.identity())
WIDTHS = (0.2, 0.5, 1.5)


def relative(width):
  return quantizers.relative(quantizers.gaussian(width))


FITTED = training.fitted_sign(relative, 0.7)


class Net(nn.Module):
  """Three binary layers with two signs between them."""

  inputs: Any = FITTED
  scaling: str = 'fan_in'

  @nn.compact
  def __call__(self, images, *, train=False, progress=1.0):
    x = images.reshape(images.shape[0], -1)
    for layer, units in enumerate((7, 5, 3)):
      x = networks.QuantDense(
        units,
        kernel_quantizer=SIGN,
        input_quantizer=self.inputs if layer else None,
        scaling=self.scaling,
        use_bias=False,
        name=f'Dense_{layer}',
      )(x, progress=progress)
    return x


@pytest.fixture(scope='module')
def posed(tiny):
  """A network, its variables and two batches."""
  part = tiny.dataset(40)
  halves = tuple(
    (tiny.prepare(jnp.asarray(part.images[i])), jnp.asarray(part.labels[i]))
    for i in (slice(20), slice(20, 40))
  )
  variables = Net().init(jax.random.key(1), halves[0][0])
  return Net(), variables, halves


def width_of(variables, layer):
  return variables['params'][layer]['input_quantizer']['width']


def test_no_gradient_moves_a_width_and_it_shapes_gradients():
  x, g = jnp.linspace(-2.0, 2.0, 9), jnp.arange(9.0)
  params = FITTED.init(None, x)
  assert params == {'width': 0.7} and FITTED.bits == 1
  y, pull = jax.vjp(lambda p, x: FITTED.apply(p, x), {'width': 0.4}, x)
  of_width, of_x = pull(g)
  np.testing.assert_array_equal(y, np.where(x >= 0, 1, -1))
  assert of_width == {'width': 0.0}
  np.testing.assert_allclose(of_x, relative(0.4)(g, x, y, 1.0), rtol=1e-6)


def test_fits_are_those_of_single_layers_from_the_last_to_the_first(posed):
  model, variables, halves = posed
  options = training.Refit(1, WIDTHS, sample=1000)
  found = _refit.refit(model, variables, halves, jax.random.key(0), options)
  chosen = [width_of(found, layer) for layer in ('Dense_1', 'Dense_2')]

  def fit(layer, behind):
    inputs = [quantizers.attach(quantizers.sign(), relative(w)) for w in behind]
    views = []
    for x, y in halves:
      view = networks.layer_view(model, variables, x, y, layer)
      tail, signs = [], iter(inputs)
      for stage in view.tail:
        if isinstance(stage, scans.Activation):
          stage = scans.Activation('sign', next(signs))
        tail.append(stage)
      views.append(
        scans.LayerView(
          x if layer == 'Dense_0' else view.inputs,
          view.kernel, view.labels, tuple(tail), view.quantizer,
          affine=view.affine,
        )
      )  # fmt: skip
    views = [
      v if v.inputs.ndim == 2 else
      scans.LayerView(
        v.inputs.reshape(len(v.labels), -1), v.kernel, v.labels, v.tail,
        v.quantizer, affine=v.affine,
      )
      for v in views
    ]  # fmt: skip
    return training.fit_width(*views, relative, jnp.float32(WIDTHS)).width

  last = fit('Dense_1', [0.7])
  first = fit('Dense_0', [0.7, last])
  np.testing.assert_array_equal(chosen, [first, last])
  before, after = (
    jax.tree.leaves_with_path(v['params']) for v in (variables, found)
  )
  for (path, old), (_, new) in zip(before, after, strict=True):
    if 'width' not in jax.tree_util.keystr(path):
      np.testing.assert_array_equal(old, new)


def test_scales_of_weights_are_held(posed, monkeypatch):
  """A flip keeps magnitudes, so it leaves a scale that is their mean."""
  _, variables, halves = posed
  coupled = networks.layer_view(
    Net(scaling='mean_abs'), variables, *halves[0], 'Dense_0'
  )
  assert coupled.coupling != 'none'
  seen = []

  def fit(view, other, families, widths, **options):
    seen.extend((view.coupling, other.coupling))
    return training.FittedWidth(widths[1], 0.0, widths, 0)

  monkeypatch.setattr(_windows, 'fit_width', fit)
  options = training.Refit(1, WIDTHS, sample=1000)
  found = _refit.refit(
    Net(scaling='mean_abs'), variables, halves, jax.random.key(0), options
  )
  assert seen == ['none'] * 4
  assert width_of(found, 'Dense_1') == np.float32(WIDTHS[1])


def test_what_cannot_be_judged_stays(posed, monkeypatch):
  _, _, halves = posed
  model = Net(inputs=SEVERAL)
  variables = model.init(jax.random.key(1), halves[0][0])
  scores = iter([-jnp.inf, 0.5])  # Of the last sign and of the first.

  def fit(view, other, families, widths, **options):
    del view, other, families, options
    return training.FittedWidth(widths[1], next(scores), widths, jnp.int32(1))

  monkeypatch.setattr(_windows, 'fit_width', fit)
  options = training.Refit(1, WIDTHS, sample=999)
  found = _refit.refit(model, variables, halves, jax.random.key(0), options)
  last, first = (
    found['params'][layer]['input_quantizer']
    for layer in ('Dense_2', 'Dense_1')
  )
  assert last['width'] == np.float32(0.7) and last['family'].tolist() == [1, 0]
  assert first['width'] == np.float32(0.5) and first['family'].tolist() == [
    0,
    1,
  ]


def test_training_fits_at_intervals_and_resumes_to_the_same_bits(
  tiny, same, tmp_path
):
  task = tiny.task(Net())
  options = {'refit': training.Refit(5, WIDTHS, sample=6), 'scored': False}
  whole = tiny.train(task, tmp_path / 'whole', seeds=(3, 4), **options)
  rows = [whole.history[f'width/Dense_{i}'] for i in (1, 2)]
  assert set(np.ravel(rows)) <= set(np.float32(WIDTHS))
  assert 0 < whole.refitting < 1

  def stop():
    raise KeyboardInterrupt

  folder = tmp_path / 'again'
  with pytest.raises(KeyboardInterrupt):
    tiny.train(task, folder, seeds=(3, 4), report=tiny.Stop(2, stop), **options)
  again = tiny.train(task, folder, seeds=(3, 4), **options)
  assert same(again.state, whole.state)
  assert same(again.history, whole.history)
  # Each seed is fitted by itself.
  alone = tiny.train(task, seeds=(4,), **options)
  for i in (1, 2):
    name = f'width/Dense_{i}'
    np.testing.assert_array_equal(
      alone.history[name][:, 0], whole.history[name][:, 1]
    )


def running(width):
  return quantizers.relative(quantizers.window(width), momentum=0.5)


SEVERAL = training.fitted_sign([relative, running], 0.7)


def test_a_family_is_a_parameter_that_no_gradient_moves():
  x, g = jnp.linspace(-2.0, 2.0, 9), jnp.arange(9.0)
  params = SEVERAL.init(None, x)
  np.testing.assert_array_equal(params['family'], [1, 0])
  spread = quantizers.next_spread(quantizers.initial_spread(x), 3 * x, 0.5)
  sign = quantizers.bind(SEVERAL, params)
  assert quantizers.spread_momentum(sign) == 0.5
  for family, wanted in (
    ([1.0, 0.0], relative(0.7)),
    ([0.2, 0.3], quantizers.with_spread(running(0.7), spread)),
  ):
    chosen = params | {'family': jnp.array(family)}
    bound = quantizers.with_spread(quantizers.bind(SEVERAL, chosen), spread)
    y, pull = jax.vjp(lambda q, bound=bound: bound(q), x)
    np.testing.assert_array_equal(y, np.where(x >= 0, 1, -1))
    np.testing.assert_allclose(
      pull(g)[0], wanted(g, x, y, 1.0), rtol=1e-6, atol=1e-7
    )
  plain = quantizers.with_spread(sign, spread).quantizer.apply
  moved = jax.grad(lambda p: jnp.sum(g * plain(p, x)))(params)
  assert all(not leaf.any() for leaf in jax.tree.leaves(moved))


@pytest.mark.slow
def test_families_and_running_spreads_resume_to_the_same_bits(
  tiny, same, tmp_path
):
  task = tiny.task(Net(inputs=SEVERAL))
  options = {'refit': training.Refit(5, WIDTHS, sample=1000), 'scored': False}
  whole = tiny.train(task, tmp_path / 'whole', **options)
  for layer in ('Dense_1', 'Dense_2'):
    own = whole.state.params[layer]['input_quantizer']
    assert own['width'][0] in np.float32(WIDTHS)
    assert sorted(own['family'][0].tolist()) == [0, 1]
    chosen = whole.history[f'family/{layer}']
    assert set(chosen.ravel().tolist()) <= {0, 1}
    assert np.argmax(own['family'][0]) == chosen[-1, 0]
    weight = whole.state.collections['spreads'][layer]['input_quantizer'][
      'weight'
    ]
    np.testing.assert_allclose(weight, 1 - 0.5**tiny.STEPS, rtol=1e-6)

  def stop():
    raise KeyboardInterrupt

  folder = tmp_path / 'again'
  with pytest.raises(KeyboardInterrupt):
    tiny.train(task, folder, report=tiny.Stop(2, stop), **options)
  again = tiny.train(task, folder, **options)
  assert same(again.state, whole.state) and same(again.history, whole.history)


@pytest.mark.slow
def test_the_family_is_that_of_the_layer_by_itself(posed):
  _, _, halves = posed
  model = Net(inputs=SEVERAL)
  variables = model.init(jax.random.key(1), halves[0][0])
  _, moved = model.apply(variables, halves[0][0], mutable=['spreads'])
  variables = {**variables, **moved}
  options = training.Refit(1, WIDTHS, sample=1000)
  found = _refit.refit(model, variables, halves, jax.random.key(0), options)
  views = [
    networks.layer_view(model, variables, x, y, 'Dense_1') for x, y in halves
  ]
  kept = moved['spreads']['Dense_2']['input_quantizer']

  def of_kept(width):
    return quantizers.with_spread(running(width), kept)

  each = [
    training.fit_width(*views, make, jnp.float32(WIDTHS))
    for make in (relative, of_kept)
  ]
  best = int(np.argmax([one.score for one in each]))
  own = found['params']['Dense_2']['input_quantizer']
  assert np.argmax(own['family']) == best and own['width'] == each[best].width


def test_without_a_refit_widths_stay(tiny):
  found = tiny.train(tiny.task(Net()), scored=False)
  assert width_of({'params': found.state.params}, 'Dense_1') == np.float32(0.7)
  assert not any('width' in name for name in found.history)
  assert found.refitting == 0


@pytest.mark.slow
def test_convolutions_with_shortcuts():
  net = networks.ResNet(
    stages=(1, 1), widths=(4, 8), variant='bireal', num_classes=3,
    kernel_quantizer=SIGN, input_quantizer=FITTED,
  )  # fmt: skip
  draw = jax.random.normal(jax.random.key(1), (24, 8, 8, 3))
  halves = tuple(
    (x, jnp.arange(12) % 3) for x in (draw[:12], jnp.flip(draw[12:]))
  )
  variables = net.init(jax.random.key(0), draw[:1])
  options = training.Refit(1, WIDTHS, sample=16)
  found = [
    _refit.refit(net, variables, halves, jax.random.key(5), options)
    for _ in range(2)
  ]
  params = [f['params'] for f in found]
  fitted = []
  for block in ('Block_0', 'Block_1'):
    for conv in params[0][block]:
      own = params[0][block][conv].get('input_quantizer')
      if own is not None:
        fitted.append(float(own['width']))
        assert (
          own['width'] == params[1][block][conv]['input_quantizer']['width']
        )
  # Nothing quantized is in front of the first sign.
  assert fitted[0] == np.float32(0.7)
  assert len(fitted) > 2 and set(fitted[1:]) <= set(np.float32(WIDTHS).tolist())


def test_widths_may_be_a_list_or_an_array():
  wanted = training.Refit(1, (0.25, 1.0))
  for widths in ([0.25, 1], np.float32([0.25, 1.0])):
    found = training.Refit(1, widths)
    assert found == wanted and hash(found) == hash(wanted)


def test_bad_input(tiny, posed):
  _, _, halves = posed
  plain = Net(inputs=SIGN)
  variables = plain.init(jax.random.key(1), halves[0][0])
  for call, words in (
    (lambda: training.Refit(0), 'every must be an integer >= 1'),
    (lambda: training.Refit(1, ()), 'widths must be numbers, at least one'),
    (lambda: training.Refit(1, 0.5), 'widths must be numbers, at least one'),
    (lambda: training.Refit(1, (0.5, -1.0)), 'widths must be'),
    (lambda: training.Refit(1, ('wide',)), 'widths must be'),
    (lambda: training.Refit(1, sample=0), 'sample must be an integer >= 1'),
    (lambda: training.fitted_sign(0.5), 'estimator must be a function'),
    (lambda: training.fitted_sign(relative, 0.0), 'width must be'),
    (
      lambda: _refit.refit(
        plain, variables, halves, jax.random.key(0), training.Refit(1)
      ),
      r'training\.fitted_sign\(\.\.\.\) behind a quantized layer',
    ),
    (
      lambda: tiny.train(
        tiny.task(Net()),
        refit=training.Refit(1),
        mesh=jax.make_mesh((1,), ('lanes',)),
      ),
      'refit needs one device',
    ),
    (
      lambda: tiny.train(
        dataclasses.replace(
          tiny.task(Net()), num_classes=None, problem=training.Reconstruction()
        ),
        refit=training.Refit(1),
      ),
      r'refit needs tasks of classes.* got Reconstruction\(',
    ),
  ):
    with pytest.raises(types.BadInput, match=words):
      call()
