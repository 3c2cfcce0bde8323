"""The public surface under the modes that JAX can be set to.

A mode changes what JAX does, not what is computed: every computation of `surface`
gives the same numbers, to rounding, and the same dtypes as in the default mode; where
random bits are made in another way, the same shapes and dtypes. Modes that only object
to programs, such as strict promotion, mostly leave them as they are; such a cell
needs no compilation. The whole matrix is ``slow``; the fast suite has a few of its cells.
"""

import contextlib
import functools
import re
import types as python_types

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import deploy
from bitjax import descent
from bitjax import lanes
from bitjax import measures
from bitjax import nn
from bitjax import packed
from bitjax import quantizers
from bitjax import scans
from bitjax import searches
from bitjax import sums
from bitjax import training
from bitjax import transforms
from bitjax import tree
from bitjax import types
from tests import surface
from tests.training import tiny


@contextlib.contextmanager
def eager_nans():
  with jax.debug_nans(True), jax.disable_jit():
    yield


WIDE = surface.Given(np.float64)
# Mode -> a context manager. These modes only object to programs.
OBJECTING = {
  'strict promotion': functools.partial(jax.numpy_dtype_promotion, 'strict'),
  'rank promotion raises': functools.partial(jax.numpy_rank_promotion, 'raise'),
  'checking_leaks': jax.checking_leaks,
}
# These change the programs that draw.
DRAWING = {
  'rbg': functools.partial(jax.default_prng_impl, 'rbg'),
  'unsafe_rbg': functools.partial(jax.default_prng_impl, 'unsafe_rbg'),
  'threefry not partitionable': functools.partial(
    jax.threefry_partitionable, False
  ),
}
# Infinities are sentinels of scans and transforms, so jax_debug_infs holds for compiled
# functions, not op by op.
MODES = {
  'x64': functools.partial(jax.enable_x64, True),
  'debug_nans': functools.partial(jax.debug_nans, True),
  'debug_infs': functools.partial(jax.debug_infs, True),
  'disable_jit': jax.disable_jit,
  'debug_nans, disable_jit': eager_nans,
  'softmax without custom_jvp': functools.partial(
    jax.softmax_custom_jvp, False
  ),
  **OBJECTING,
  **DRAWING,
}
# These work with values between programs, so they cannot be traced as a whole.
UNTRACEABLE = ('training fit', 'training bop', 'sweep', 'nn reports')
TRACED = [name for name in surface.CASES if name not in UNTRACEABLE]
# Cells of the fast suite: those that are only traced, and those that are run.
QUICKLY_TRACED = [
  ('x64', 'scans multi_step'),
  ('x64', 'batches'),
  ('x64', 'measures'),
  ('strict promotion', 'bfloat16 transforms limit_flips'),
  ('strict promotion', 'training parts'),
  ('strict promotion', 'nn fp mlp'),
  ('strict promotion', 'packed convolutions'),
]
FAST = [
  ('x64', 'packed products'),
  ('debug_nans, disable_jit', 'transforms bop'),
  ('rbg', 'batches'),
]


@contextlib.contextmanager
def as_users_have_it():
  """Undoes the strictness of the suite."""
  with jax.numpy_rank_promotion('allow'), jax.debug_key_reuse(False):
    yield


@functools.cache
def reference(name):
  with as_users_have_it():
    return computed(name, surface.Given())


@functools.cache
def program(name, mode=None):
  """Returns the program of a computation as text."""
  how = MODES[mode] if mode else contextlib.nullcontext
  with as_users_have_it(), how():
    return str(
      jax.make_jaxpr(lambda: surface.CASES[name].run(surface.Given()))()
    )


def computed(name, given):
  return jax.tree.map(np.asarray, surface.CASES[name].run(given))


def traced(name, given):
  return jax.eval_shape(lambda: surface.CASES[name].run(given))


def flat(tree):
  found, _ = jax.tree.flatten_with_path(tree)
  return {jax.tree_util.keystr(path): leaf for path, leaf in found}


def check_dtypes(name, got, want, wide=False):
  got, want = flat(got), flat(want)
  assert got.keys() == want.keys()
  narrow = surface.CASES[name].narrow
  for path, leaf in want.items():
    dtype = leaf.dtype
    if wide and dtype == np.float32:
      kept = any(re.search(rf'\b{n}\b', path) for n in narrow)
      dtype = dtype if kept else np.float64
    assert got[path].shape == leaf.shape, path
    assert got[path].dtype == dtype, path


def check_values(got, want, rtol):
  want = flat(want)
  for path, leaf in flat(got).items():
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      np.testing.assert_array_equal(leaf, want[path], path)
      continue
    # A compiler may keep float32 where op by op every number is rounded to 16 bits.
    narrow = leaf.dtype.itemsize == 2
    within = 8 * float(jnp.finfo(leaf.dtype).eps) if narrow else rtol
    a, b = (np.float64(x) for x in (leaf, want[path]))
    np.testing.assert_allclose(
      a, b, rtol=within, atol=within / 10, err_msg=path
    )


def run(mode, name):
  """Runs a cell of the matrix."""
  draws = surface.CASES[name].draws
  if surface.CASES[name].mixed and mode == 'strict promotion':
    with MODES[mode](), pytest.raises(ValueError, match='implicit dtype'):
      traced(name, surface.Given())
    return
  same_program = mode in OBJECTING or (mode in DRAWING and not draws)
  if same_program and name in TRACED and program(name, mode) == program(name):
    return
  if surface.CASES[name].compiles and 'disable_jit' in mode:
    with MODES[mode](), pytest.raises(types.BadInput, match='must be off'):
      computed(name, surface.Given())
    return
  want = reference(name)
  with as_users_have_it(), MODES[mode]():
    got = computed(name, surface.Given())
  check_dtypes(name, got, want)
  if not (draws and mode in DRAWING):
    check_values(got, want, surface.CASES[name].rtol)


@pytest.mark.slow
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('name', surface.CASES)
def test_every_computation_is_the_same_in_every_mode(mode, name):
  run(mode, name)


@pytest.mark.parametrize(('mode', 'name'), QUICKLY_TRACED)
def test_some_programs_have_the_same_dtypes_in_some_modes(mode, name):
  with as_users_have_it():
    want = traced(name, surface.Given())
    with MODES[mode]():
      check_dtypes(name, traced(name, surface.Given()), want)


@pytest.mark.parametrize(('mode', 'name'), FAST)
def test_some_computations_are_the_same_in_some_modes(mode, name):
  run(mode, name)


CHECKED_WIDE = [
  name for name, case in surface.CASES.items() if case.widens or not case.draws
]
# These draw from seeds that they choose themselves.
SEEDED = ('lanes', 'training fit', 'training bop')
KEYED = [
  name
  for name, case in surface.CASES.items()
  if case.draws and name not in SEEDED
]


@pytest.mark.slow
@pytest.mark.parametrize('name', CHECKED_WIDE)
def test_float64_in_is_float64_out(name):
  want = reference(name)
  with as_users_have_it(), jax.enable_x64(True):
    got = computed(name, WIDE)
  if surface.CASES[name].widens:
    check_dtypes(name, got, want, wide=True)
  if not surface.CASES[name].draws:
    check_values(got, want, surface.CASES[name].rtol)


@pytest.mark.slow
@pytest.mark.parametrize('name', KEYED)
def test_raw_keys_draw_as_typed_keys(name):
  seeds = []

  def raw(seed):
    seeds.append(seed)
    return jax.random.PRNGKey(seed)

  given = surface.Given(key=raw)
  if surface.CASES[name].typed:
    with pytest.raises(types.BadInput, match='typed key'):
      computed(name, given)
    return
  want = reference(name)
  with as_users_have_it():
    got = computed(name, given)
  assert seeds
  check_dtypes(name, got, want)
  check_values(got, want, surface.CASES[name].rtol)


SCANS = [name for name in TRACED if name.startswith('scans')]


@pytest.mark.slow
@pytest.mark.parametrize('name', SCANS)
def test_scans_multiply_in_full_precision_whatever_the_default(name):
  with jax.default_matmul_precision('bfloat16'):
    text = str(
      jax.make_jaxpr(lambda: surface.CASES[name].run(surface.Given()))()
    )
  products = text.split('dot_general[')[1:]
  assert products
  for product in products:
    options = product.partition(']\n')[0][:500]
    assert 'Precision.HIGHEST' in options or 'precision=HIGHEST' in options


class Wide(linen.Module):
  """A binary layer between two others, all with float64 parameters."""

  @linen.compact
  def __call__(self, images, *, train=False, progress=1.0):
    del train
    x = images.reshape(images.shape[0], -1).astype(np.float64)
    x = nn.QuantDense(5, param_dtype=np.float64, name='Dense_0')(x)
    x = nn.QuantDense(
      4,
      kernel_quantizer=tiny.SIGN,
      input_quantizer=tiny.SOFT,
      scaling='mean_abs',
      param_dtype=np.float64,
      name='Block_0',
    )(x, progress=progress)
    return nn.QuantDense(3, param_dtype=np.float64, name='Dense_1')(x)


@pytest.mark.slow
def test_a_float64_network_is_trained_in_float64():
  with as_users_have_it(), jax.enable_x64(True):
    task = tiny.task(Wide(), average=0.9)
    state = tiny.train(task, until=2).state
    for path, leaf in flat((state.params, state.average)).items():
      assert leaf.dtype == np.float64, path


NAMESPACES = {
  'data': data,
  'deploy': deploy,
  'descent': descent,
  'lanes': lanes,
  'measures': measures,
  'nn': nn,
  'packed': packed,
  'quantizers': quantizers,
  'scans': scans,
  'searches': searches,
  'sums': sums,
  'training': training,
  'transforms': transforms,
  'tree': tree,
}
# Exports that compute nothing with arrays, or that other computations go through.
PLUMBING = {
  'data.bicubic_on_host',
  'data.check_batch_size',
  'data.check_name',
  'data.as_bytes',
  'data.from_arrays',
  'data.load',
  'data.load_pairs',
  'data.read_images',
  # Their threads read outside of any mode.
  'data.host_feed',
  'data.patch_host_feed',
  'deploy.export_onnx',
  'deploy.export_program',
  'deploy.load',
  'deploy.load_program',
  'deploy.pack_network',  # Of one dtype, float32, in any mode.
  'deploy.save',
  'lanes.fitting',
  'nn.binary_mlp',
  'nn.call_options',
  'nn.binary_weights_mlp',
  'nn.edsr_baseline',
  'nn.full_precision_mlp',
  'nn.light_sr',
  'nn.plain_convolutions',
  'nn.resnet18',
  'nn.resnet20',
  'nn.resnet32',
  'nn.srresnet',
  'nn.training_progress',
  'nn.vgg_small',
  'nn.warn_silent',
  'quantizers.at_progress',
  'quantizers.attach',
  'quantizers.ewgs_delta',
  'quantizers.initial_spread',
  'quantizers.initial_state',
  'quantizers.is_random',
  'quantizers.is_sign',
  'quantizers.is_stateful',
  'quantizers.named',
  'quantizers.spread_momentum',
  'quantizers.spread_of',
  'scans.plan',
  'searches.layer_optimum',  # NumPy and HiGHS.
  'training.check_batch_split',
  'training.check_fits',
  'training.describe',
  'training.description_of',
  # These take and return images on the host.
  'training.enlarge',
  'training.image_scores',
  'training.kernels',
  'training.layout',
  'training.load_variables',
  'training.outcome',
  'training.preparation',
  'training.reconstruction',
  'training.switch',
  'training.variables_of',
}


def test_every_function_is_in_a_computation():
  about = {export for case in surface.CASES.values() for export in case.about}
  exported = {
    f'{space}.{name}'
    for space, module in NAMESPACES.items()
    for name in module.__all__
    if isinstance(getattr(module, name), python_types.FunctionType)
  }
  assert exported - about - PLUMBING == set()
  assert exported >= PLUMBING
