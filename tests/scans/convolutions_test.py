"""What stands on gains asks convolutions and networks, and gets the same answers.

A view that is transparent takes fast paths; the same view made opaque takes forward
passes. Both must agree.
"""

import dataclasses
import itertools

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import types

SIGN = quantizers.attach(quantizers.sign(), quantizers.window())
EXAMPLES = 5


def apply_tail(tail, x):
  for stage in tail:
    x = stage(x)
  return x


def multiply(product, x, kernel):
  return product(x, kernel)


def hidden(view):
  """The same view, of which only the values are known."""
  product = jax.tree_util.Partial(multiply, view.product)
  tail = (scans.Opaque(jax.tree_util.Partial(apply_tail, view.tail)),)
  return dataclasses.replace(view, product=product, tail=tail)


@pytest.fixture(scope='module')
def views():
  """Two convolutions of a block and all of it, and the same of which nothing is known."""
  model = nn.ResNet(
    stages=(1,),
    widths=(4,),
    variant='bireal',
    num_classes=3,
    kernel_quantizer=SIGN,
    input_quantizer=SIGN,
  )
  images = jax.random.normal(jax.random.key(0), (EXAMPLES, 5, 5, 3))
  labels = jnp.arange(EXAMPLES) % 3
  variables = jax.jit(model.init)(jax.random.key(1), images)
  found = {}
  for name in ('Conv_0', 'Conv_1'):
    view = nn.layer_view(
      model, variables, images, labels, f'Block_0/{name}', train=False
    )
    found[name] = view, hidden(view)
  view = nn.network_view(
    model, variables, images, labels, layers='quantized', freeze_scale=True
  )
  found['network'] = view, hidden(view)
  return found


BUDGET = types.Budget(0.3)
QUESTIONS = {
  'line_scan': lambda v: scans.line_scan(
    v, jnp.sin(jnp.arange(1.0 * v.kernel.size)).reshape(v.kernel.shape),
    jnp.linspace(0, 0.5, 40),
  ).losses,
  'discrete_gradient': lambda v: scans.discrete_gradient(v, BUDGET).displacement,
  'multi_step_discrete_gradient': lambda v: (
    scans.multi_step_discrete_gradient(v, BUDGET, 3).displacement
  ),
  'coordinate_discrete_gradient': lambda v: (
    scans.coordinate_discrete_gradient(
      v, BUDGET, key=jax.random.key(0)
    ).displacement
  ),
  'flip_descent': lambda v: scans.flip_descent(v, 4).losses,
  'pair_gains': lambda v: scans.pair_gains(v, jax.random.key(0), 6),
  'flip_certificate': lambda v: scans.flip_certificate(scans.flip_gains(v))[:6],
  'prefix_scan': lambda v: scans.prefix_scan(
    v, scans.discrete_gradient(v, BUDGET), (0, 1, 3)
  ).decreases(),
}  # fmt: skip


FAST = {
  ('discrete_gradient', 'Conv_1'),
  ('flip_descent', 'Conv_0'),
  ('pair_gains', 'Conv_1'),
  ('flip_certificate', 'network'),
}
CASES = [
  pytest.param(*case, marks=() if case in FAST else pytest.mark.slow)
  for case in itertools.product(QUESTIONS, ('Conv_0', 'Conv_1', 'network'))
]


@pytest.mark.optimised
@pytest.mark.parametrize(('name', 'layer'), CASES)
def test_answers_are_those_of_forward_passes(views, name, layer):
  seen, unseen = (QUESTIONS[name](view) for view in views[layer])
  for fast, slow in zip(
    jax.tree.leaves(seen), jax.tree.leaves(unseen), strict=True
  ):
    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-6)


def test_coordinates_of_a_network_take_the_paths_of_its_layers(views):
  view, unseen = views['network']
  chosen = np.array([200, 3, 143, 144, 3, view.kernel.size - 1])
  found = scans.flip_gains(view, coordinates=jnp.asarray(chosen))
  assert found.path.startswith('layers: ')
  slow = scans.flip_gains(unseen, coordinates=jnp.asarray(chosen))
  assert slow.path == 'brute_force'
  np.testing.assert_allclose(found.gains, slow.gains, atol=1e-6)
  first = scans.flip_gains(view, coordinates=jnp.asarray([5]))
  assert first.path == 'layers: tail'  # No other layer is looked at.
  traced = jax.jit(lambda c: scans.flip_gains(view, coordinates=c).gains)
  np.testing.assert_allclose(traced(chosen), slow.gains, atol=1e-6)


@pytest.mark.parametrize(
  ('coordinates', 'message'),
  [
    ([0, 10**6], r'coordinates must be in \[0, .*got 1000000 among 2'),
    ([-1], r'coordinates must be in \[0, .*got -1'),
    ([], 'at least one; got'),
    ([[1, 2]], r'\[coordinates\].*shape \(1, 2\)'),
    ([1.0], 'must be an array of indices of weights.*float32'),
  ],
)
def test_coordinates_must_be_indices(views, coordinates, message):
  view, _ = views['Conv_0']
  kind = 'i4' if not coordinates else None
  with pytest.raises(types.BadInput, match=message):
    scans.flip_gains(view, coordinates=jnp.asarray(coordinates, kind))
  with pytest.raises(types.BadInput, match=r'must be an array.*got list'):
    scans.flip_gains(view, coordinates=coordinates)


@pytest.mark.parametrize(
  ('name', 'path'),
  [
    ('Conv_0', 'tail'),
    pytest.param('Conv_1', 'pooled', marks=pytest.mark.slow),
    pytest.param('Conv_0', 'brute_force', marks=pytest.mark.slow),
  ],
)
def test_traced_coordinates_that_are_no_indices_are_nan(views, name, path):
  """No path counts them from the end, or takes them for the last weight."""
  view, _ = views[name]
  size = view.kernel.size
  gains = jax.jit(
    lambda coordinates: scans.flip_gains(
      view, coordinates=coordinates, path=path
    )
  )
  found = gains(jnp.asarray([3, -1, size, 2 * size, 3]))
  there = np.array([True, False, False, False, True])
  for array in (found.gains, found.second_moments):
    np.testing.assert_array_equal(np.isfinite(array), there)
  wanted = scans.flip_gains(view, coordinates=jnp.asarray([3]), path=path)
  np.testing.assert_allclose(found.gains[there], wanted.gains[0], atol=1e-6)


def test_coordinates_of_few_bits_name_weights_of_wide_layers():
  """256 channels are more than an index of 8 bits can count."""
  model = linen.Sequential(
    [linen.Conv(300, (1, 1)), linen.relu, lambda x: x.mean((1, 2))]
  )
  images = jax.random.normal(jax.random.key(0), (2, 2, 2, 1))
  variables = model.init(jax.random.key(1), images)
  labels = jnp.arange(2)
  view = nn.layer_view(model, variables, images, labels, 'layers_0')
  places = np.array([1, 200], np.uint8)
  found = scans.flip_gains(view, step=0.5, coordinates=places, path='tail')
  loss = jax.jit(view.loss)
  for place, gain in zip(places, found.gains[0], strict=True):
    moved = view.kernel.at[0, 0, 0, int(place)].add(0.5)
    np.testing.assert_allclose(loss(view.kernel) - loss(moved), gain, atol=1e-6)


@pytest.mark.parametrize(
  ('name', 'path'),
  [
    pytest.param('Conv_0', 'tail', marks=pytest.mark.slow),
    ('Conv_1', 'pooled'),
  ],
)
def test_samples_of_streams_are_those_of_forward_passes(views, name, path):
  view, unseen = views[name]
  sample = scans.draw_sample(view, 12, jax.random.key(0))
  cuts = slice(0, 2), slice(2, 4), slice(4, 5)
  parts = [
    scans.flip_gains(
      view.map_examples(lambda x, cut=cut: x[cut]), coordinates=sample
    )
    for cut in cuts
  ]
  found = scans.merge_gains(*parts)
  assert found.path == path and found.num_examples == EXAMPLES
  slow = scans.flip_gains(unseen, coordinates=sample)
  assert slow.path == 'brute_force'
  np.testing.assert_allclose(found.gains, slow.gains, atol=1e-6)
  np.testing.assert_allclose(
    found.second_moments, slow.second_moments, rtol=1e-4, atol=1e-6
  )
  errors = [
    scans.flip_certificate(gains).sampling_errors for gains in (found, slow)
  ]
  np.testing.assert_allclose(*(list(e.values()) for e in errors), rtol=1e-5)
  assert errors[0]['improving'] > 0


def test_a_network_has_no_channels_to_sample(views):
  view, _ = views['network']
  with pytest.raises(types.BadInput, match='the view of each, as'):
    scans.draw_sample(view, 8, jax.random.key(0))


SCANS = {
  'flip_gains': scans.flip_gains,
  'discrete_gradient': lambda v: scans.discrete_gradient(v, BUDGET),
  'coordinate_discrete_gradient': lambda v: scans.coordinate_discrete_gradient(
    v, BUDGET, key=jax.random.key(0)
  ),
  'flip_descent': lambda v: scans.flip_descent(v, 4),
  'pair_gains': lambda v: scans.pair_gains(v, jax.random.key(0), 6),
  'smoothed_gains': lambda v: scans.smoothed_gains(
    v, jax.random.key(0), 0.1, 2
  ),
  'exhaustive': lambda v: scans.exhaustive(
    v, BUDGET, coordinates=jnp.arange(3)
  ),
}


@pytest.mark.parametrize('name', SCANS)
def test_a_loss_that_is_not_finite_is_found_before_the_work(
  views, monkeypatch, name
):
  view, _ = views['Conv_0']
  broken = dataclasses.replace(view, inputs=view.inputs.at[3].set(jnp.nan))
  begun = []
  monkeypatch.setattr(
    scans._flips_moves, 'moves', lambda *a, **k: begun.append(a)
  )
  with pytest.raises(types.BadInput, match='The loss must be finite; got nan'):
    SCANS[name](broken)
  assert not begun


LINES = {
  'line_scan': lambda v: scans.line_scan(v, v.kernel, jnp.arange(3.0)),
  'prefix_scan': lambda v: scans.prefix_scan(
    v, scans.discrete_gradient(v, BUDGET, signal='cost'), (0, 1)
  ),
  'set_gains': lambda v: scans.set_gains(v, jnp.array([[0, 1]])),
}


@pytest.mark.parametrize('name', LINES)
def test_lines_and_sets_of_moves_begin_at_a_finite_loss(
  views, monkeypatch, name
):
  view, _ = views['Conv_0']
  LINES[name](view)
  broken = dataclasses.replace(view, inputs=view.inputs.at[3].set(jnp.nan))
  step = scans.discrete_gradient(view, BUDGET, signal='cost')
  monkeypatch.setattr(scans, 'discrete_gradient', lambda *a, **k: step)
  monkeypatch.setattr(scans._flip_sets, '_gains', None)
  with pytest.raises(types.BadInput, match='The loss must be finite; got nan'):
    LINES[name](broken)


@pytest.mark.parametrize('examples', [5, 601])
def test_losses_are_looked_at_some_images_at_a_time(views, examples):
  view, _ = views['Conv_1']
  many = view.map_examples(lambda x: jnp.resize(x, (examples, *x.shape[1:])))
  scans._view.check_loss(many)
  last = many.map_examples(
    lambda x: x.at[-1].set(jnp.nan) if x.dtype.kind == 'f' else x
  )
  with pytest.raises(types.BadInput, match='The loss must be finite'):
    scans._view.check_loss(last)
  jax.jit(lambda view: scans._view.check_loss(view))(last)  # Not yet known.


def test_explicit_shardings_are_refused(views):
  """A compiler would ask for the placement of each gather."""
  view, _ = views['Conv_0']
  spec = jax.sharding.PartitionSpec('images')
  mesh = jax.make_mesh((1,), ('images',))
  sharding = jax.sharding.NamedSharding(mesh, spec)
  placed = view.map_examples(lambda x: jax.device_put(x, sharding))
  with pytest.raises(types.BadInput, match=r'not be split explicitly.*images'):
    scans.flip_gains(placed)
  mesh = jax.sharding.Mesh(mesh.devices, mesh.axis_names)
  sharding = jax.sharding.NamedSharding(mesh, spec)
  placed = view.map_examples(lambda x: jax.device_put(x, sharding))
  assert scans.plan(placed, timed=False).scans
