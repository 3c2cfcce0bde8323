"""Fast line scans equal brute force, and a float64 oracle.

Inputs are integers; kernels, directions and rates are real: whether the last rate
before a breakpoint or the first one behind it decides is a matter of rounding, and
grids hold the breakpoints themselves.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

FAN_IN, HIDDEN, CLASSES = 11, (9, 8), 4
SIGN = quantizers.attach(quantizers.sign(), quantizers.identity())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ternary:
  """A staircase that says how many levels it has."""

  threshold: float
  num_levels: int = dataclasses.field(default=3, metadata={'static': True})

  def __call__(self, x):
    up, down = x > self.threshold, x < -self.threshold
    return up.astype(x.dtype) - down.astype(x.dtype)


def make_view(seed=0, *, examples=37, weights='sign', tail='sign', layer=0):
  """A network of integer inputs, seen by one of its layers."""
  rng = np.random.default_rng(seed)
  sizes = (FAN_IN, *HIDDEN, CLASSES)[layer:]
  activation = scans.Activation(tail, SIGN if tail == 'sign' else None)
  stages = []
  for fan_in, units in itertools.pairwise(sizes[1:]):
    kernel = rng.choice([-1.0, 1.0], (fan_in, units))
    affine = scans.Affine(
      np.float32(fan_in**-0.5), rng.choice([-0.5, 0.5], units)
    )
    stages += [activation, scans.Dense(jnp.float32(kernel), affine=affine)]
  kernel = rng.normal(size=sizes[:2])
  kernel[rng.random(kernel.shape) < 0.1] = 0
  return jax.tree.map(
    jnp.float32,
    scans.LayerView(
      inputs=rng.integers(-3, 4, (examples, sizes[0])),
      kernel=kernel,
      labels=rng.integers(0, CLASSES, examples),
      tail=tuple(stages),
      quantizer={
        'sign': SIGN,
        'ternary': quantizers.attach(Ternary(0.5), quantizers.identity()),
        'real': None,
      }[weights],
      affine=scans.Affine(sizes[0] ** -0.5, rng.choice([0, 0.25], sizes[1])),
    ),
  )


def with_labels(view):
  return dataclasses.replace(view, labels=view.labels.astype(jnp.int32))


def make_case(seed=0, num_rates=60, **kwargs):
  """View, direction and rates: unsorted, signed, ties, breakpoints, zero."""
  view = with_labels(make_view(seed, **kwargs))
  rng = np.random.default_rng(seed + 100)
  direction = rng.normal(size=view.kernel.shape).astype(np.float32)
  direction[rng.random(direction.shape) < 0.1] = 0
  # Duplicate breakpoints: weight and direction of some entries are equal.
  kernel = np.array(view.kernel)
  kernel[1], direction[1] = kernel[0], direction[0]
  moving = (direction != 0) & (kernel != 0)
  breakpoints = kernel[moving] / direction[moving]
  near = breakpoints[np.abs(breakpoints) < 2][: num_rates // 2]
  rates = rng.uniform(-2, 2, num_rates - near.size - 4)
  rates = np.concatenate([rates, near, [0, -0.0, 0.5, 0.5]])
  rates = np.float32(rng.permutation(rates))
  view = dataclasses.replace(view, kernel=jnp.asarray(kernel))
  return view, jnp.asarray(direction), jnp.asarray(rates)


def oracle(view, direction, rates):
  """A loop in NumPy, float64 but for the kernel, which is that of the scan."""
  quantizer = view.quantizer or (lambda kernel: kernel)
  move = jax.jit(lambda w, e, d: quantizer(w - e * d))
  losses = []
  for rate in rates:
    x = np.float64(view.inputs) @ np.float64(move(view.kernel, rate, direction))
    for stage in (view.affine, *view.tail):
      if isinstance(stage, scans.Activation):
        sign = np.where(x >= 0, 1.0, -1.0)
        x = sign if stage.kind == 'sign' else np.maximum(x, 0)
        continue
      if isinstance(stage, scans.Dense):
        x, stage = x @ np.float64(stage.kernel), stage.affine
      x = x * np.float64(stage.scale) + np.float64(stage.shift)
    top = x.max(axis=1)
    total = np.log(np.exp(x - top[:, None]).sum(axis=1)) + top
    losses.append(np.mean(total - x[np.arange(len(x)), view.labels]))
  return np.array(losses)


@pytest.mark.parametrize(
  ('weights', 'tail', 'layer', 'examples'),
  [
    ('sign', 'sign', 0, 37),
    ('sign', 'relu', 2, 1),  # No next product, one example.
    ('ternary', 'relu', 0, 5),
  ],
)
def test_steps_equal_brute_force_and_oracle(weights, tail, layer, examples):
  case = make_case(weights=weights, tail=tail, layer=layer, examples=examples)
  fast = scans.line_scan(*case)
  slow = scans.line_scan(*case, path='brute_force')
  assert (fast.path, slow.path) == ('steps', 'brute_force')
  assert fast.uncertain == 0
  assert np.unique(slow.losses.round(4)).size > 5  # There is something to see.
  np.testing.assert_allclose(fast.losses, slow.losses, rtol=3e-6)
  np.testing.assert_allclose(fast.losses, oracle(*case), rtol=3e-6)


@pytest.mark.parametrize(('layer', 'examples'), [(0, 37), (2, 1)])
def test_affine_equals_brute_force_and_oracle(layer, examples):
  case = make_case(weights='real', tail='relu', layer=layer, examples=examples)
  fast = scans.line_scan(*case, width=7)
  slow = scans.line_scan(*case, path='brute_force')
  assert (fast.path, slow.path) == ('affine', 'brute_force')
  np.testing.assert_allclose(fast.losses, slow.losses, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(fast.losses, oracle(*case), rtol=1e-5, atol=1e-5)


def test_kernels_are_those_of_brute_force_to_the_bit():
  """Two classes, one input: the logits of an example show one weight's sign."""
  rng = np.random.default_rng(3)
  units = 500
  kernel = jnp.float32(rng.normal(size=(1, units)))
  direction = jnp.float32(rng.normal(size=(1, units)))
  view = scans.LayerView(
    inputs=jnp.ones((1, 1)),
    kernel=kernel,
    labels=jnp.zeros(1, jnp.int32),
    tail=(scans.Dense(jnp.float32(rng.normal(size=(units, 2)))),),
    quantizer=SIGN,
  )
  exact = (kernel / direction).ravel()
  rates = jnp.concatenate(
    [exact, jnp.nextafter(exact, 9.0), jnp.nextafter(exact, -9.0)]
  )
  fast = scans.line_scan(view, direction, rates)
  slow = scans.line_scan(view, direction, rates, path='brute_force')
  np.testing.assert_allclose(fast.losses, slow.losses, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_batched_over_directions_and_seeds():
  cases = [make_case(seed) for seed in (0, 1)]
  batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
  both = jax.vmap(scans.line_scan)(*batch)
  assert both.path == 'steps'
  for losses, case in zip(both.losses, cases, strict=True):
    expected = scans.line_scan(*case, path='brute_force').losses
    np.testing.assert_allclose(losses, expected, rtol=3e-6)


@pytest.mark.parametrize(
  ('weights', 'tail'), [('sign', 'sign'), ('real', 'relu')]
)
def test_several_views_in_one_call(weights, tail):
  a, direction, rates = make_case(weights=weights, tail=tail)
  b = with_labels(make_view(5, weights=weights, tail=tail))
  both = scans.line_scan([a, b], direction, rates)
  index, rate, loss = both.best()
  for n, view in enumerate((a, dataclasses.replace(b, kernel=a.kernel))):
    one = scans.line_scan(view, direction, rates)
    assert one.path == both.path != 'brute_force'
    np.testing.assert_array_equal(both.losses[n], one.losses)
    assert (index[n], rate[n], loss[n]) == one.best()
  slow = scans.line_scan([a, b], direction, rates, path='brute_force')
  np.testing.assert_allclose(both.losses, slow.losses, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_one_start_serves_many_directions():
  view, direction, rates = make_case()
  views = [view, with_labels(make_view(5))]
  start = scans.line_start(views)
  scan = jax.jit(scans.line_scan)
  rates = jnp.abs(rates)
  for along in (direction, direction[::-1]):
    fast = scan(views, along, rates, start=start)
    slow = scans.line_scan(views, along, rates, path='brute_force')
    assert fast.path == 'steps'
    np.testing.assert_allclose(fast.losses, slow.losses, rtol=3e-6)
  # The line begins at rate 0: what lies before it is not known.
  holes = scan(views, direction, rates.at[3].set(-0.5), start=start)
  assert jnp.isnan(holes.losses[0]).nonzero()[0].tolist() == [3]
  with pytest.raises(types.BadInput, match=r'learning_rates must be >= 0'):
    scans.line_scan(views, direction, -rates, start=start)
  with pytest.raises(
    types.BadInput, match=r'that of the 1 views; got one of 2'
  ):
    scans.line_scan(view, direction, rates, start=start)
  with pytest.raises(
    types.BadInput, match=r'not piecewise constant: .*staircase'
  ):
    scans.line_start(make_view(weights='real'))


def test_uncertain_counts_what_rounding_may_decide():
  view, direction, rates = make_case()
  rng = np.random.default_rng(0)
  flat = jnp.zeros(view.kernel.shape[1])
  view = dataclasses.replace(
    view,
    inputs=jnp.float32(rng.normal(size=view.inputs.shape)),
    affine=scans.Affine(view.affine.scale, flat),
  )
  fast = scans.line_scan(view, direction, rates)
  slow = scans.line_scan(view, direction, rates, path='brute_force')
  assert fast.uncertain == 0
  np.testing.assert_allclose(fast.losses, slow.losses, rtol=3e-6)
  # Sums of +-0.1 are often zero but for rounding.
  ties = np.float32(rng.choice([-0.1, 0.1], (20, FAN_IN)))
  ties[:, -1] = 0
  view = dataclasses.replace(view, inputs=view.inputs.at[:20].set(ties))
  assert 15 <= scans.line_scan(view, direction, rates).uncertain <= 22


@pytest.mark.parametrize(
  ('weights', 'tail', 'path', 'width'),
  [
    ('real', 'relu', 'affine', 7),
    ('sign', 'sign', 'steps', 7),
    ('sign', 'sign', 'brute_force', 7),
    *(
      pytest.param(*rest, marks=pytest.mark.slow)
      for rest in (
        ('real', 'relu', 'affine', None),
        ('real', 'relu', 'brute_force', 7),
        ('real', 'relu', 'brute_force', None),
        ('sign', 'sign', 'steps', None),
        ('sign', 'sign', 'brute_force', None),
      )
    ),
  ],
)
def test_equal_rates_have_equal_losses(weights, tail, path, width):
  view, direction, _ = make_case(weights=weights, tail=tail, examples=101)
  rng = np.random.default_rng(5)
  distinct = np.append(rng.uniform(-2, 2, 150), [0, 0.25]).astype(np.float32)
  repeated = rng.integers(0, distinct.size, 600)
  rates = distinct[repeated]
  rates[rates == 0] *= rng.choice([-1, 1], (rates == 0).sum())
  losses = np.asarray(
    scans.line_scan(view, direction, rates, path=path, width=width).losses
  )
  for index in range(distinct.size):
    assert len({*losses[repeated == index].tolist()}) <= 1
  assert np.unique(losses).size > 20


def test_profile_is_the_loss_at_every_rate():
  view, direction, rates = make_case()
  low, high = jnp.min(rates), jnp.max(rates)
  profile = scans.line_profile(view, direction, low, high)
  slow = scans.line_scan(view, direction, rates, path='brute_force')
  np.testing.assert_allclose(profile.at(rates), slow.losses, rtol=3e-6)
  ratio = np.array(view.kernel / direction)
  inside = (ratio > low) & (ratio < high)
  assert abs(profile.num_breakpoints - inside.sum()) <= 2  # The edges.
  assert np.isnan(profile.at(high + 1))
  # The first rate of each interval has its loss, the one before has not.
  starts = profile.starts[1:10]
  before = jnp.nextafter(starts, low)
  some = jnp.concatenate([starts, before])
  slow = scans.line_scan(view, direction, some, path='brute_force').losses
  np.testing.assert_allclose(profile.at(some), slow, rtol=3e-6)
  assert (profile.at(starts) != profile.at(before)).any()


@pytest.mark.slow
def test_profile_best_interval():
  view, direction, _ = make_case()
  profile = scans.line_profile(view, direction, -2.0, 2.0)
  assert np.unique(profile.losses).size <= profile.num_breakpoints + 1
  grid = scans.line_scan(view, direction, jnp.linspace(-2, 2, 300))
  start, end, loss = profile.best()
  assert loss <= grid.best()[2] * (1 + 1e-6)
  last = jnp.nextafter(end, start)
  np.testing.assert_array_equal(profile.at(jnp.stack([start, last])), loss)
  assert profile.at(end) != loss


@pytest.mark.slow
def test_profiles_of_several_views_and_without_breakpoints():
  a, direction, _ = make_case()
  profile = scans.line_profile((a, a), direction, 0.0, 1.0)
  np.testing.assert_array_equal(profile.losses[0], profile.losses[1])
  assert [x.shape for x in profile.best()] == [(2,)] * 3
  constant = scans.line_profile(a, jnp.zeros_like(direction), 0.0, 1.0)
  assert constant.num_breakpoints == 0
  np.testing.assert_allclose(constant.losses, a.loss(a.kernel), rtol=1e-6)
  assert constant.best()[:2] == (0, 1)


@pytest.mark.parametrize(
  ('weights', 'tail'), [('sign', 'sign'), ('real', 'relu')]
)
def test_degenerate_lines(weights, tail):
  view, direction, rates = make_case(weights=weights, tail=tail)
  still = scans.line_scan(view, 0 * direction, rates)
  np.testing.assert_allclose(still.losses, view.loss(view.kernel), rtol=1e-6)
  # float32 merges these rates into one, which has one loss.
  merged = jnp.float32(0.5 + np.arange(60) * 1e-10)
  fine = scans.line_scan(view, direction, merged)
  assert np.unique(fine.losses).size <= np.unique(merged).size == 1
  scan = jax.jit(scans.line_scan)
  wrong = scan(view, direction.at[0, 0].set(jnp.inf), rates)
  assert jnp.isnan(wrong.losses).all()
  holes = scan(view, direction, rates.at[3].set(jnp.inf))
  assert jnp.isnan(holes.losses).nonzero()[0].tolist() == [3]


def bent(kernel):
  return jnp.clip(kernel, -1, 1)


def change_view(view, name):
  if name == 'coupled':
    return dataclasses.replace(view, scaling=quantizers.mean_abs())
  stage = {
    'opaque': scans.Opaque(jax.tree_util.Partial(jnp.tanh)),
    'statistics': scans.BatchNorm(jnp.ones(9), jnp.zeros(9)),
  }[name]
  return dataclasses.replace(view, tail=(stage, *view.tail))


@pytest.mark.parametrize(
  ('weights', 'name'),
  [('sign', 'coupled'), ('real', 'opaque')],
)
def test_brute_force_for_the_rest(weights, name):
  view, direction, rates = make_case(weights=weights, tail='relu')
  path = 'steps' if weights == 'sign' else 'affine'
  view = change_view(view, name)
  assert scans.line_scan(view, direction, rates).path == 'brute_force'
  for asked in (path, 'distinct'):
    with pytest.raises(types.BadInput, match=r'does not apply: .* Use one of'):
      scans.line_scan(view, direction, rates, path=asked)


@pytest.mark.parametrize('name', ['statistics', 'opaque'])
def test_kernels_of_any_quantized_layer_are_evaluated_once(name):
  view, direction, rates = make_case(tail='relu')
  view, passes = change_view(view, name), []

  def count(x):
    jax.debug.callback(lambda: passes.append(1))
    return x

  counted = scans.Opaque(jax.tree_util.Partial(count))
  view = dataclasses.replace(view, tail=(*view.tail, counted))
  kernels = jax.jit(jax.vmap(lambda eta: view.kernel - eta * direction >= 0))
  distinct = len(np.unique(np.asarray(kernels(rates)), axis=0))
  rates = jnp.repeat(rates, 2)[::-1]
  found = scans.line_scan(view, direction, rates)
  jax.effects_barrier()
  assert found.path == 'distinct' and len(passes) == distinct < rates.size / 2
  slow = scans.line_scan(view, direction, rates, path='brute_force')
  np.testing.assert_allclose(found.losses, slow.losses, rtol=1e-6)
  wide = scans.line_scan(view, direction, rates, width=7)
  np.testing.assert_allclose(wide.losses, slow.losses, rtol=1e-6)


def test_demanded_paths_say_why_they_do_not_apply():
  view, direction, rates = make_case()
  real, _, _ = make_case(weights='real', tail='sign')
  scan = scans.line_scan
  assert scan(view, direction, rates[:15]).path == 'brute_force'
  assert scan(view, direction, rates[:15], path='steps').path == 'steps'
  assert scan(view, direction, rates, constrain=bent).path == 'brute_force'
  assert scan(real, direction, rates).path == 'brute_force'
  with pytest.raises(types.BadInput, match='bends'):
    scan(view, direction, rates, constrain=bent, path='steps')
  with pytest.raises(types.BadInput, match='kernel is quantized'):
    scan(view, direction, rates, path='affine')
  with pytest.raises(types.BadInput, match='piecewise linear'):
    scan(real, direction, rates, path='affine')
  with pytest.raises(types.BadInput, match='staircase'):
    scan(real, direction, rates, path='steps')
  with pytest.raises(
    types.BadInput, match=r'not piecewise constant: .*staircase'
  ):
    scans.line_profile(real, direction, 0.0, 1.0)
  others = dataclasses.replace(
    view,
    quantizer=jax.tree_util.Partial(lambda q, x: q(x) * x.std(), SIGN),
  )
  with pytest.raises(types.BadInput, match='staircase'):
    scan(others, direction, rates, path='steps')


def test_bad_input():
  view, direction, rates = make_case()
  with pytest.raises(types.BadInput, match='direction must be finite'):
    scans.line_scan(view, direction.at[0, 0].set(jnp.nan), rates)
  with pytest.raises(types.BadInput, match='at least one view'):
    scans.line_scan([], direction, rates)
  with pytest.raises(types.BadInput, match='share one kernel'):
    other = make_view(layer=1)
    scans.line_scan([view, other], direction, rates)
  with pytest.raises(types.BadInput, match='width must be an integer >= 1'):
    scans.line_scan(view, direction, rates, path='steps', width=0)
  with pytest.raises(types.BadInput, match='low must not exceed high'):
    scans.line_profile(view, direction, 1.0, 0.0)
  with pytest.raises(types.BadInput, match='high must be finite'):
    scans.line_profile(view, direction, 0.0, jnp.inf)
