"""The public surface as small computations, which `modes_test.py` runs in every mode.

A computation is a function of what is `Given`: the dtype of its floating inputs, and
how random keys are made. Quantizers are those of `everything_test.py`, and the other
tables are written out by name; `modes_test.py` says which export they lack.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import data
from bitjax import descent
from bitjax import lanes
from bitjax import measures
from bitjax import nn
from bitjax import packed
from bitjax import quantizers
from bitjax import scans
from bitjax import searches
from bitjax import sums
from bitjax import sweeps
from bitjax import training
from bitjax import transforms
from bitjax import tree
from bitjax import types
from tests.quantizers import everything_test as everything
from tests.training import tiny

RNG = np.random.default_rng(5)
SIGN = quantizers.attach(quantizers.sign(), quantizers.window())
PICTURES = np.random.default_rng(8).integers(
  0, 256, (2, 12, 13, 3), dtype=np.uint8
)
BUDGETS = {'l2': 0.5, 'linf': 0.1, 'l1': 1.0, 'flips': 2}


@dataclasses.dataclass(frozen=True)
class Given:
  """What a mode may choose: the dtype of floats, and how keys are made."""

  dtype: Any = np.float32
  key: Callable[[int], Any] = lambda seed: jax.random.key(seed)

  def floats(self, tree):
    """Casts the floating leaves of a tree."""
    return jax.tree.map(
      lambda x: (
        jnp.asarray(x, self.dtype)
        if jnp.issubdtype(jnp.result_type(x), jnp.floating)
        else x
      ),
      tree,
    )


@dataclasses.dataclass(frozen=True)
class Case:
  """A computation, and which exports it is about.

  Attributes:
    run: what is given -> a pytree of arrays.
    about: names of exports, such as ``'transforms.bop'``.
    draws: whether results depend on how random bits are made.
    narrow: names of results that are float32 whatever the inputs are.
    typed: whether only typed keys are accepted.
    widens: whether all results that are not `narrow` are float64 where the inputs are.
    compiles: whether it cannot run without compilation.
    mixed: whether it mixes dtypes, which JAX refuses where it promotes strictly.
    rtol: tolerance of results that amplify rounding.
  """

  run: Callable[[Given], Any]
  about: tuple[str, ...] = ()
  draws: bool = False
  narrow: tuple[str, ...] = ()
  typed: bool = False
  widens: bool = True
  compiles: bool = False
  mixed: bool = False
  rtol: float = 1e-4


CASES: dict[str, Case] = {}


def case(name, *about, **facts):
  """Registers a computation."""

  def add(run):
    CASES[name] = Case(run, about, **facts)
    return run

  return add


# Quantizers: value and gradient, by kind.

X = RNG.normal(size=(8, 4)).astype(np.float32)
G = RNG.normal(size=(8, 4)).astype(np.float32)


def quantized(subjects, x, g, given):
  """Returns value and gradients of each subject, each in a program of its own."""
  found = {}
  for name, subject in subjects.items():
    try:
      if isinstance(subject, quantizers.Quantizer):
        # At its initial range the smallest x is clipped or not, by rounding.
        qparams = jax.tree.map(lambda p: 1.03 * p, subject.init(None, x))
        found[name] = learned(subject, qparams, x, g)
        continue
      key = given.key(1) if quantizers.is_random(subject) else None
      run = jax.jit(functools.partial(everything.pull_back, subject))
      found[name] = run(x, g, key, 0.5)
    except Exception as error:
      error.add_note(f'This was {name}.')
      raise
  return found


@jax.jit
def learned(subject, qparams, x, g):
  run = functools.partial(subject.apply, progress=0.5)
  y, pull = jax.vjp(run, qparams, x)
  return y, *pull(g.astype(y.dtype))


def of_kind(kind, given):
  names = {n for n, (_, k) in everything.FACTORIES.items() if k == kind}
  subjects = {
    name: subject
    for name, subject in everything.SUBJECTS.items()
    if name in names or name.rsplit(' ', 1)[0] in names
  }
  return quantized(subjects, *given.floats((X, G)), given)


for KIND in sorted({kind for _, kind in everything.FACTORIES.values()}):
  case(
    f'quantizers {KIND}',
    *(
      f'quantizers.{n}' for n, f in everything.FACTORIES.items() if f[1] == KIND
    ),
    draws=KIND in ('Quantize', 'Staircase'),
  )(functools.partial(of_kind, KIND))


@case('bfloat16 quantizers', draws=True, widens=False)
def _(given):
  x, g = (jnp.asarray(a, jnp.bfloat16) for a in (X, G))
  return quantized(everything.FIRST, x, g, given)


@case(
  'quantizers by other means',
  'quantizers.bind',
  'quantizers.freeze_scale',
  'quantizers.staircase',
  'quantizers.observed',
  draws=True,
)
def _(given):
  x = given.floats(X)
  with quantizers.observed(lambda quantize, progress, x, apply: -apply(x)):
    observed = SIGN(x)
  lsq = quantizers.lsq(2)
  bound = quantizers.bind(lsq, lsq.init(given.key(0), x))
  swept = jax.vmap(
    lambda c: quantizers.attach(quantizers.sign(), quantizers.window(c))(x)
  )
  return {
    'bind': bound(x),
    'frozen': quantizers.freeze_scale(CALIBRATED, x)(x / 2),
    'staircase': quantizers.staircase(SIGN)(x),
    'at_progress': quantizers.at_progress(
      quantizers.attach(quantizers.sign(), quantizers.error_decay()), 0.5
    )(x),
    'observed': observed,
    'swept': swept(given.floats(np.float32([0.5, 1.0]))),
  }


# Transforms: two updates from init, in every norm.

PARAMS = {
  'a': np.float32([[0.5, -0.25, 0.125], [-0.75, 0.0, 1.0]]),
  'b': np.float32([0.3, -0.3]),
}
UPDATES = {
  'a': np.float32([[-0.75, 0.5, 0.0], [0.25, -0.5, -3.0]]),
  'b': np.float32([-0.5, 0.01]),
}


def _mirrored(key, params):
  del key
  return jax.tree.map(jnp.negative, params)


TRANSFORMS = {
  'admm': [
    {'rho': 1.0, 'levels': levels, 'tx': optax.sgd(0.1)}
    for levels in (quantizers.sign(), (-1, 0, 1))
  ],
  'bop': [{'threshold': 0.1, 'gamma': 0.5}],
  'clip_latent': [{'limit': 0.5}],
  'flip_ratio': [{}],
  'limit_flips': [{'max_flips': 2}],
  'normalize': [{'norm': n} for n in ('l2', 'linf', 'l1')],
  'perturb': [{'move': _mirrored, 'every': 2, 'key': jax.random.key(0)}],
  'project_budget': [
    {'radius': factor * r, 'norm': n}
    for n, r in BUDGETS.items()
    for factor in (1, 100)
  ],
  'proximal_steps': [
    {
      'rule': quantizers.parq(),
      'progress': lambda count: 0.5,
      'tx': optax.sgd(0.1),
      'latent': latent,
    }
    for latent in (True, False)
  ],
  'steepest': [{'norm': n} for n in ('l2', 'linf', 'l1')],
}


def transformed(name, cast, given):
  params, updates = cast(given, (PARAMS, UPDATES))
  found = {}

  for number, options in enumerate(TRANSFORMS[name]):
    tx = getattr(transforms, name)(**options)

    @jax.jit
    def steps(params, updates, tx=tx):
      state = tx.init(params)
      for _ in range(2):
        moved, state = tx.update(updates, state, params)
        params = optax.apply_updates(params, moved)
      return params, moved, state

    found[f'{number}'] = steps(params, updates)
    if name == 'project_budget':  # Eagerly too, and from shapes.
      shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params
      )
      state = jax.eval_shape(tx.init, shapes)
      assert jax.tree.map(lambda x: x.dtype, state.anchor) == jax.tree.map(
        lambda x: x.dtype, params
      )
      moved, _ = tx.update(updates, tx.init(params), params)
      found[f'{number} eager'] = moved
  return found


def _floats(given, trees):
  return given.floats(trees)


def _bfloat16(given, trees):
  del given
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), trees)


for NAME in TRANSFORMS:
  case(
    f'transforms {NAME}',
    f'transforms.{NAME}',
    narrow=('flip_ratio', 'mean_flip_ratio'),
  )(functools.partial(transformed, NAME, _floats))
  case(f'bfloat16 transforms {NAME}', widens=False)(
    functools.partial(transformed, NAME, _bfloat16)
  )


@case(
  'transforms levels',
  'transforms.project_levels',
  'transforms.admm_weights',
  'transforms.admm_lagrangian',
)
def _(given):
  params = given.floats(PARAMS)
  tx = transforms.admm(1.0, (-1, 0, 1), optax.sgd(0.1), channel_axis=-1)
  state = tx.init(params)
  return {
    'weights': transforms.admm_weights(params, state),
    'lagrangian': transforms.admm_lagrangian(params['a'][0, 0], params, state),
    'levels': [
      transforms.project_levels(params['a'], (-1, 0, 1), method=method)
      for method in ('exact', 'alternate')
    ],
  }


@case('transforms project', 'transforms.project')
def _(given):
  params, updates = given.floats((PARAMS, UPDATES))
  moved = jax.tree.map(jnp.add, params, updates)
  found = {}
  for norm, radius in BUDGETS.items():

    def run(moved, radius, norm=norm):
      return transforms.project(moved, params, types.Budget(radius, norm))

    found[norm] = run(moved, radius), jax.jit(run)(moved, float(radius))
    size = lambda m, run=run, r=radius: tree.norm(run(m, r), 'l2')
    found[f'{norm} gradient'] = jax.grad(size)(moved)
  return found


@case('sums', 'sums.check', 'sums.unrounded', narrow=('z',))
def _(given):
  x, w = given.floats((X, G.T))
  arithmetic = sums.Arithmetic('default', 'bfloat16')
  sums.check(arithmetic.precision, arithmetic.dtype)
  return {
    'z': arithmetic.matmul(x, w),
    'gradient': jax.grad(lambda x: jnp.sum(arithmetic.matmul(x, w)))(x),
    'unrounded': sums.unrounded(jnp.sign(x)),
  }


@case(
  'packed products',
  'packed.matmul',
  'packed.matmul_bytes',
  'packed.pack',
  'packed.threshold',
  'packed.thresholds',
  'packed.unpack',
  narrow=('unpacked',),
)
def _(given):
  x = given.floats(X)
  words, w = packed.pack(x), packed.pack(x.T, 0)
  found = packed.thresholds(lambda sums: sums - 1, -4, 4, 8)
  sums = packed.matmul(words, w, 4)
  return {
    'thresholds': found,
    'sums': sums,
    'signs': packed.threshold(sums, *found),
    'bytes': packed.matmul_bytes((x > 0).astype(np.uint8), w, 4),
    'many': packed.matmul_bytes(jnp.ones((16, 4), np.int8), w, 4),
    'unpacked': packed.unpack(words, 4),
  }


@case(
  'packed convolutions',
  'packed.conv',
  'packed.conv_nhwc',
  'packed.map_images',
  'packed.max_pool',
  'packed.pack_images',
  'packed.unpack_images',
  narrow=('unpacked',),
)
def _(given):
  x = given.floats(X).reshape(2, 2, 2, 4)
  kernel = x.reshape(2, 2, 4, 2)
  words, w = packed.pack_images(x), packed.pack(kernel, 2)
  padding = ((0, 1), (1, 0))
  return {
    'sums': packed.conv(words, w, 4, padding=padding),
    'chunks': packed.conv_nhwc(x, kernel, padding=padding, chunk=1),
    'pooled': packed.map_images(
      lambda words: packed.max_pool(words, (2, 1)), words, chunk=1
    ),
    'unpacked': packed.unpack_images(words, 4),
  }


@case(
  'tree',
  'tree.centred',
  'tree.count',
  'tree.deviation',
  'tree.flips',
  'tree.in_units',
  'tree.label',
  'tree.mask_by_name',
  'tree.norm',
  'tree.power_of_two',
  'tree.share',
  'tree.total',
  'tree.whole',
  narrow=('share',),
)
def _(given):
  params, updates = given.floats((PARAMS, UPDATES))
  positive = jax.tree.map(jnp.abs, params)
  return {
    **{n: tree.norm(params, n, updates) for n in BUDGETS},
    'flips': tree.flips(params, updates),
    'count': tree.count(jax.tree.map(lambda x: x > 0, params)),
    'label': tree.count(
      jax.tree.map(
        lambda label: np.array(label == 'binary'),
        tree.label(params, lambda path: path == 'a'),
      )
    ),
    'masked': optax.masked(
      optax.scale(2.0), tree.mask_by_name(params, 'b')
    ).update(updates, optax.MaskedState(optax.EmptyState()))[0],
    'centred': tree.centred(params['a'], axis=0),
    'deviation': tree.deviation(params['a'], axis=0),
    'units': tree.in_units(params),
    'share': tree.share(jax.tree.map(lambda x: x > 0, params)),
    'whole': tree.whole(updates['b'][0] + 3, 7),
    'total': tree.total(positive, 1.0),
    'power': tree.power_of_two(params['b'][0]),
    'gradient': jax.grad(lambda p: tree.norm(p, 'l2'))(params),
  }


# Scans: every question on every path, on a network of integers.

INPUTS = RNG.integers(-2, 3, size=(10, 5)).astype(np.float32)
LABELS = RNG.integers(0, 3, 10).astype(np.int32)
KERNEL = (RNG.integers(-64, 65, size=(5, 4)) / 256).astype(np.float32)
MATRIX = RNG.integers(-2, 3, size=(4, 3)).astype(np.float32)
STEEP = RNG.integers(-8, 9, size=(5, 4)).astype(np.float32)
RATES = np.linspace(0, 0.5, 5).astype(np.float32)
CALIBRATED = quantizers.calibrated(SIGN, quantizers.mean_abs())
GRID = quantizers.attach(
  quantizers.uniform(2, step=0.25), quantizers.identity()
)


def view_of(given, *, quantizer=SIGN, kind='sign', scaling=None, swap=False):
  x, kernel, matrix = given.floats((INPUTS, KERNEL, MATRIX))
  return scans.LayerView(
    inputs=x[::-1] if swap else x,
    kernel=kernel,
    labels=jnp.asarray(LABELS),
    tail=(
      scans.Activation(kind, SIGN if kind == 'sign' else None),
      scans.Dense(matrix),
    ),
    quantizer=quantizer,
    scaling=scaling,
    affine=scans.Affine(0.5, 0.25),
  )


def opaque_view(given):
  view = view_of(given)
  return dataclasses.replace(
    view,
    tail=(scans.Opaque(jax.tree_util.Partial(_tail, view.tail[1].kernel)),),
  )


def _tail(matrix, x):
  return jnp.matmul(jnp.maximum(x, 0), matrix, precision='highest')


def conv_view(given, tail):
  """A convolution of signs, 3 x 3 with 2 and 3 channels, on the first images."""
  rng = np.random.default_rng(1)
  x, kernel = given.floats(
    (rng.choice([-1.0, 1.0], (3, 4, 4, 2)), rng.normal(size=(3, 3, 2, 3)))
  )
  conv = nn.QuantConv(3, (3, 3), use_bias=False)
  params = {'params': {'kernel': kernel}}
  _, _, product = conv.apply(params, x, method='parts')
  return scans.LayerView(
    inputs=x,
    kernel=kernel,
    labels=jnp.asarray(LABELS[:3]),
    tail=tail,
    quantizer=SIGN,
    product=product,
    input_quantizer=SIGN,
  )


@case(
  'scans flip_gains of a convolution',
  'scans.flip_gains',
  'scans.Add',
  'scans.Mean',
  'scans.Pointwise',
)
def _(given):
  matrix, value = given.floats(
    (np.eye(3), np.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3))
  )
  pooled = conv_view(
    given,
    (
      scans.Affine(0.25, 0.5),
      scans.Add(value),
      scans.Pointwise(jax.tree_util.Partial(jnp.tanh)),
      scans.Mean(),
      scans.Dense(matrix),
    ),
  )
  weights = given.floats(
    np.sign(np.sin(1 + np.arange(81.0))).reshape(3, 3, 3, 3)
  )
  masks = conv_view(
    given,
    (
      scans.Affine(0.25, 0.5),
      scans.Activation('sign', SIGN),
      scans.Conv(scans.Dense(weights), pooled.product),
      *pooled.tail[2:],
    ),
  )
  return {
    'masks': scans.flip_gains(masks),
    'some masks': scans.flip_gains(masks, coordinates=np.int32([0, 3, 7])),
    'masks by brute force': scans.flip_gains(masks, path='brute_force'),
    'pooled': scans.flip_gains(pooled),
    'any inputs': scans.flip_gains(
      dataclasses.replace(pooled, input_quantizer=None)
    ),
    'brute force': scans.flip_gains(pooled, path='brute_force'),
  }


@case(
  'scans flip_gains',
  'scans.flip_gains',
  'scans.moves',
  'scans.merge_gains',
  'scans.flip_certificate',
  'scans.stream_gains',
  narrow=(
    *('improving', 'significant', 'mirrored'),
    *('holds', 'significant_holds', 'random_holds'),
  ),
)
def _(given):
  view, grid = view_of(given), view_of(given, quantizer=GRID, kind='relu')
  found = {
    path: scans.flip_gains(
      view, path=path, count_near_ties=path != 'brute_force'
    )
    for path in ('auto', 'sign', 'rank_one', 'brute_force')
  }
  found |= {
    f'grid {path}': scans.flip_gains(grid, path=path)
    for path in ('auto', 'rank_one', 'brute_force')
  }
  scaled = view_of(given, scaling=quantizers.mean_abs())
  found['scaled'] = scans.flip_gains(scaled)
  found['opaque'] = scans.flip_gains(opaque_view(given))
  found['real'] = scans.flip_gains(
    view_of(given, quantizer=None, kind='relu'), step=0.125
  )
  found['some'] = scans.flip_gains(view, coordinates=np.int32([0, 3, 7]))
  found['moves'] = scans.moves(grid)
  found['merged'] = scans.merge_gains(found['auto'], found['auto'])
  found['certificate'] = scans.flip_certificate(
    found['auto'], found['sign'], num_errors=0.0
  )
  found['streamed'] = scans.stream_gains(
    lambda x, y: dataclasses.replace(view, inputs=x, labels=y),
    view.inputs,
    view.labels,
    5,
  )
  return found


@case('scans flip_factorial', 'scans.flip_factorial')
def _(given):
  grid = dataclasses.replace(view_of(given), quantizer=GRID)
  return {
    'flips': scans.flip_factorial(view_of(given)),
    'grid': scans.flip_factorial(grid),
  }


@case('scans smoothed_gains', 'scans.smoothed_gains', draws=True)
def _(given):
  view, key = view_of(given), given.key(0)
  return {
    path: scans.smoothed_gains(view, key, 0.2, 4, together=2, path=path)
    for path in ('factors', 'gains')
  }


@case('scans averaged_factorial', 'scans.averaged_factorial', draws=True)
def _(given):
  return scans.averaged_factorial(view_of(given), given.key(0), 0.2, 3)


@case('scans mixed dtypes', mixed=True)
def _(given):
  # A narrow kernel: its inputs, or what follows it, decide the dtype of the gains.
  view = view_of(given)
  view = dataclasses.replace(view, kernel=view.kernel.astype(jnp.bfloat16))
  integers = dataclasses.replace(view, inputs=jnp.asarray(INPUTS, jnp.int32))
  found = {
    path: scans.flip_gains(view, path=path)
    for path in ('sign', 'rank_one', 'brute_force')
  }
  found['integers'] = scans.flip_gains(integers, path='rank_one')
  found['losses'] = scans.flip_descent(view, 2).losses
  return found


@case('scans brute_force_gains', 'scans.brute_force_gains')
def _(given):
  view = view_of(given)
  return scans.brute_force_gains(
    lambda p: view.losses(p['k']),
    {'k': view.kernel},
    'k',
    scans.moves(view).destinations,
  )


@case('scans report')
def _(given):
  view, shares = view_of(given), []
  options = {'path': 'brute_force', 'coordinates': np.int32([0, 3, 7])}
  found = scans.flip_gains(view, **options, report=shares.append)
  if not isinstance(found.loss, jax.core.Tracer):
    assert np.round(shares, 2).tolist() == [0.33, 0.66, 1.0]
  return found


@case('scans network', 'scans.network_view', 'nn.network_view', 'nn.layer_view')
def _(given):
  model = nn.binary_mlp(hidden=(4, 4), num_classes=3, scaling='none')
  images = RNG_IMAGES[:, :2, :2]
  variables = given.floats(filled(model, images))
  network = nn.network_view(model, variables, images, LABELS[:4])
  layer = nn.layer_view(model, variables, images, LABELS[:4], 'Dense_1')
  found = {
    'network': [
      scans.flip_gains(network),
      scans.flip_gains(network, path='brute_force'),
    ],
    'layer': scans.flip_gains(layer),
    'descent': scans.flip_descent(network, 2),
  }
  plain = scans.network_view(
    given.floats(INPUTS),
    LABELS,
    (
      scans.Dense(given.floats(KERNEL), SIGN),
      scans.Activation('sign', SIGN),
      scans.Dense(given.floats(MATRIX), SIGN),
    ),
  )
  found['plain'] = scans.flip_gains(plain)
  return found


@case('scans line', 'scans.line_scan', 'scans.line_start', 'scans.line_profile')
def _(given):
  view = view_of(given)
  direction, rates = given.floats((STEEP, RATES))
  real = view_of(given, quantizer=None, kind='relu')
  found = {
    path: scans.line_scan(view, direction, rates, path=path)
    for path in ('auto', 'steps', 'brute_force')
  }
  found |= {
    f'real {path}': scans.line_scan(real, direction, rates, path=path)
    for path in ('affine', 'brute_force')
  }
  found['two'] = scans.line_scan([view, view], direction, rates)
  start = scans.line_start(view)
  found['started'] = scans.line_scan(view, direction, rates, start=start)
  found['clipped'] = scans.line_scan(
    real, direction, rates, constrain=lambda w: jnp.clip(w, -0.3, 0.3)
  )
  found['profile'] = scans.line_profile(view, direction, 0.0, 0.5)
  found['center'] = scans.central_difference(view, 0.25)
  return found


@case('scans central_difference', 'scans.central_difference')
def _(given):
  real = view_of(given, quantizer=None, kind='relu')
  return [
    scans.central_difference(real, 0.125, path=path)
    for path in ('auto', 'rank_one', 'brute_force')
  ]


@case('scans discrete_gradient', 'scans.discrete_gradient', 'scans.prefix_scan')
def _(given):
  view, other = view_of(given), view_of(given, swap=True)
  found = {}
  for norm, radius in BUDGETS.items():
    budget = types.Budget(radius, norm)
    for overflow in ('stop', 'skip'):
      found[f'{norm} {overflow}'] = scans.discrete_gradient(
        view,
        budget,
        rank_by='gain_per_cost',
        holdout=other,
        overflow=overflow,
      )
  budget = types.Budget(0.5)
  step = found['l2 stop']
  found['linear'] = scans.discrete_gradient(view, budget, signal='linear')
  found['cost'] = scans.discrete_gradient(view, budget, signal='cost')
  given_signal = given.floats(np.abs(STEEP))
  found['given'] = scans.discrete_gradient(view, budget, signal=given_signal)
  grid = view_of(given, quantizer=GRID, kind='relu')
  found['grid'] = scans.discrete_gradient(grid, budget)
  for path in ('auto', 'steps', 'incremental', 'brute_force'):
    found[f'prefix {path}'] = scans.prefix_scan(
      view, step, [0, 1, 2], path=path
    )
  return found


@case('scans multi_step', 'scans.multi_step_discrete_gradient')
def _(given):
  view = view_of(given)
  found = {}
  for norm, radius in BUDGETS.items():
    for split in ('even', 'cumulative'):
      found[f'{norm} {split}'] = scans.multi_step_discrete_gradient(
        view, types.Budget(radius, norm), 2, split, overflow='skip'
      )
  return found


@case(
  'scans coordinate',
  'scans.coordinate_discrete_gradient',
  'scans.exhaustive',
  'scans.flip_descent',
)
def _(given):
  view = view_of(given)
  found = {
    norm: scans.coordinate_discrete_gradient(
      view, types.Budget(radius, norm), order='exact', num_candidates=5
    )
    for norm, radius in BUDGETS.items()
  }
  found['exhaustive'] = [
    scans.exhaustive(view, types.Budget(r, n), coordinates=np.int32([0, 1, 6]))
    for n, r in BUDGETS.items()
  ]
  found['descent'] = [
    scans.flip_descent(view, 2, path=path)
    for path in ('auto', 'incremental', 'recompute')
  ]
  return found


@case('scans with keys', 'scans.pair_gains', 'scans.draw_sample', draws=True)
def _(given):
  view, budget = view_of(given), types.Budget(0.5)
  sample = scans.draw_sample(view, 8, given.key(4))
  values = view.kernel.reshape(-1)[sample.coordinates]

  def square(weights, x):
    return jnp.square(jnp.sum(weights * x) / jnp.sum(weights))

  return [
    scans.pair_gains(view, given.key(0), 3),
    scans.discrete_gradient(view, budget, signal='random', key=given.key(1)),
    scans.multi_step_discrete_gradient(
      view, budget, 2, signal='random', key=given.key(2)
    ),
    scans.coordinate_discrete_gradient(view, budget, key=given.key(3)),
    scans.multi_step_discrete_gradient(
      view, budget, 2, signal='smoothed', draws=2, key=given.key(5)
    ),
    sample,
    sample.mean(values),
    sample.estimate(square, values),
    sample.agreement(values, values[::-1]),
    scans.flip_gains(view, coordinates=sample, path='brute_force'),
  ]


@case('scans sets', 'scans.set_gains', 'scans.flip_walk')
def _(given):
  view = view_of(given)
  walk, decrease, made = scans.flip_walk(view).attempt(np.int32(3), -np.inf)
  return {
    'kernel': walk.kernel,
    'decrease': decrease,
    'made': made,
    'sets': [
      scans.set_gains(view, np.int32([[0, 3], [7, -1]]), path=path)
      for path in ('incremental', 'brute_force')
    ],
  }


@case(
  'searches',
  'searches.anneal',
  'searches.annealing_start',
  'searches.evolve',
  'searches.flip_signs',
  'searches.genetic_start',
  draws=True,
)
def _(given):
  view = view_of(given)
  chain = searches.annealing_start(view, given.key(0))
  chain, losses = searches.anneal(view, chain, 3, 0.1)
  population = searches.genetic_start(view, given.key(1), 2)
  population, lowest = searches.evolve(view, population, 2, num_children=4)
  return {
    'chain': chain[1:],
    'losses': losses,
    'population': population[1:],
    'lowest': lowest,
    'flipped': searches.flip_signs(
      view.kernel, given.key(2), 3, gains=view.kernel
    ),
  }


# Descent and measures.


@case(
  'descent',
  'descent.descend',
  'descent.distance',
  'descent.reach',
  'descent.reachable_flips',
)
def _(given):
  view = view_of(given)
  found = {}
  for norm, radius in BUDGETS.items():
    budget = types.Budget(radius, norm)
    value_and_grad = jax.value_and_grad(view.loss)
    gradient = value_and_grad(view.kernel)[1]
    rate = descent.reach(view.kernel, gradient, budget)

    @jax.jit
    def run(rate, view=view, budget=budget):
      return descent.descend(
        jax.value_and_grad(view.loss),
        optax.sgd(rate, momentum=0.9),
        view.kernel,
        2,
        budget=budget,
        monitor=lambda w: w.sum(),
      )

    found[norm] = {
      'rate': rate,
      'path': run(rate),
      'fits': descent.reachable_flips(view.kernel, budget),
      'distance': descent.distance(view.kernel, gradient, norm),
    }
  return found


@case('noise', 'descent.noise', draws=True)
def _(given):
  params = given.floats(PARAMS)
  return [
    descent.noise(given.key(0), params, types.Budget(radius, norm), 0.5)
    for norm, radius in BUDGETS.items()
  ]


@case(
  'measures',
  'measures.agreement',
  'measures.correlation',
  'measures.entering',
  'measures.gradient_statistics',
  'measures.ranked',
  'measures.ranks',
  'measures.split_half',
  narrow=('shares', 'sparsity'),
)
def _(given):
  a, b = given.floats((X, G))
  many = jnp.stack([a, b, a + b, a - b])
  return {
    'agreement': jax.jit(functools.partial(measures.agreement, top=0.1))(a, b),
    'correlation': measures.correlation(a, b),
    'entering': measures.entering(a, np.float32([0.5, 1])),
    'statistics': measures.gradient_statistics(many, b),
    'ranked': measures.ranked(a),
    'ranks': measures.ranks(a.ravel()),
    'halves': measures.split_half(many),
  }


# Networks.

RNG_IMAGES = RNG.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def filled(model, images, seed=0):
  """Variables of any model, independent of how random bits are made."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  shapes = jax.eval_shape(
    lambda key: model.init({'params': key, 'quantizer': key}, images), key
  )
  draw = np.random.default_rng(seed)

  def leaf(path, x):
    value = draw.normal(size=x.shape)
    if path[-1].key in ('var', 'scale') or 'quantizer' in str(path):
      value = np.exp(value / 4)
    return value.astype(np.float32)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


MODELS = {
  'fp mlp': lambda: nn.full_precision_mlp(hidden=(5,), num_classes=3),
  'binary mlp': lambda: nn.binary_mlp(
    hidden=(5,),
    num_classes=3,
    batch_norm=True,
    use_bias=True,
    scaling='mean_abs',
  ),
  'binary weights mlp': lambda: nn.binary_weights_mlp(
    hidden=(5,), num_classes=3
  ),
  'resnet': lambda: nn.ResNet(
    stages=(1,),
    widths=(2,),
    num_classes=3,
    kernel_quantizer=SIGN,
    input_quantizer=SIGN,
    scaling='mean_abs',
  ),
  'react': lambda: nn.ResNet(
    stages=(1, 1),
    widths=(2, 4),
    num_classes=3,
    variant='react',
    kernel_quantizer=quantizers.lsq(2, channel_axis=-1),
    input_quantizer=quantizers.lsq(2, batch_axes=1),
  ),
}


def network(name, given):
  model = MODELS[name]()
  images = RNG_IMAGES
  if 'mlp' not in name:
    images = images / np.float32(128) - 1
  images = given.floats(images)
  variables = given.floats(filled(model, images))
  rest = {k: v for k, v in variables.items() if k != 'params'}

  @jax.jit
  def loss(params, images):
    logits, moved = model.apply(
      {'params': params, **rest}, images, train=True, mutable=list(rest)
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[:4])
    return losses.mean(), (logits, moved)

  found = {
    'train': jax.value_and_grad(loss, has_aux=True)(
      variables['params'], images
    ),
    'apply': jax.jit(model.apply)(variables, images),
    'deployed': nn.deploy(model, variables, images),
  }
  return found


for NAME in MODELS:
  case(f'nn {NAME}', 'nn.deploy')(functools.partial(network, NAME))


@case('nn superres', 'nn.pixel_shuffle')
def _(given):
  model = nn.SuperResolution(
    blocks=1,
    width=4,
    norm=True,
    shortcut='each',
    base='bicubic',
    kernel_quantizer=SIGN,
    input_quantizer=SIGN,
    scaling='mean_abs',
    quantize_upsampler=True,
    thresholds=True,
  )
  images = given.floats(PICTURES[:, :4, :5] / np.float32(255))
  variables = given.floats(filled(model, images))
  rest = {k: v for k, v in variables.items() if k != 'params'}

  @jax.jit
  def loss(params, images):
    found, moved = model.apply(
      {'params': params, **rest}, images, train=True, mutable=list(rest)
    )
    return jnp.mean(jnp.abs(found)), moved

  return {
    'train': jax.value_and_grad(loss, has_aux=True)(
      variables['params'], images
    ),
    'apply': jax.jit(model.apply)(variables, images),
    'shuffled': nn.pixel_shuffle(given.floats(np.ones((1, 2, 2, 8))), 2),
  }


@case('nn init', 'nn.complete', 'nn.init_quietly', draws=True, widens=False)
def _(given):
  model = MODELS['react']()
  images = given.floats(RNG_IMAGES / np.float32(128) - 1)
  variables = model.init(
    {'params': given.key(0), 'quantizer': given.key(1)}, images
  )
  plain = jax.tree.map(lambda x: x, dict(variables))
  quietly = nn.init_quietly(MODELS['fp mlp'](), given.key(3), images)
  return variables, nn.complete(model, plain, given.key(2), images), quietly


@case(
  'nn reports',
  'nn.summary',
  'nn.energy',
  'nn.gradient_passing',
  'nn.input_ranges',
)
def _(given):
  model = MODELS['resnet']()
  images = given.floats(RNG_IMAGES / np.float32(128) - 1)
  variables = given.floats(filled(model, images))
  passing = nn.gradient_passing(model, variables, images, LABELS[:4])
  ranges = jax.jit(lambda *args: nn.input_ranges(model, *args))(
    variables, images
  )
  assert str(nn.energy(nn.summary(model, images)))
  view = nn.layer_view(model, variables, images, LABELS[:4], 'Block_0/Conv_0')
  found = jax.jit(jax.value_and_grad(view.loss))(view.kernel)
  return (
    found,
    [
      [getattr(layer, f) for f in ('input_mean', 'saturated', 'kernel_mass')]
      for layer in passing.layers
    ],
    passing.loss,
    ranges,
  )


# Training.


@case(
  'training fit',
  'training.fit',
  'training.create',
  draws=True,
  widens=False,
  rtol=1e-3,  # Variances of gradients, after two updates.
)
def _(given):
  del given
  made = tiny.task(
    smoothing=0.1,
    average=0.9,
    tx=training.optimizer(
      'adam',
      training.learning_rate('cosine', 0.02, 4, warmup=1),
      weight_decay=0.1,
      clip_latent=1.0,
      binary=['Block'],
    ),
  )
  with tempfile.TemporaryDirectory() as folder:
    tiny.train(made, folder, until=1, seeds=(3, 4))
    resumed = tiny.train(made, folder, until=2, seeds=(3, 4), period=1)
    loaded = training.load_variables(folder + '/checkpoints')
  whole = tiny.train(made, until=2, seeds=(3, 4), period=1)
  for a, b in zip(
    jax.tree.leaves(whole.state.params),
    jax.tree.leaves(resumed.state.params),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  return whole.state._replace(key=()), whole.history, loaded


@case('training bop', 'training.optimizer', draws=True, widens=False)
def _(given):
  del given
  made = tiny.task(
    tx=training.optimizer('bop', 0.02, binary=['Block'], frozen=['Dense_1'])
  )
  return tiny.train(made, until=1, scored=False).state._replace(key=())


@case('training fit_width', 'training.fit_width')
def _(given):
  halves = view_of(given), view_of(given, swap=True)
  widths = given.floats(np.float32([0.5, 2.0]))
  return training.fit_width(*halves, quantizers.gaussian, widths)


@case('quantizers spreads', 'quantizers.next_spread', 'quantizers.with_spread')
def _(given):
  x = given.floats(X)
  rule = quantizers.relative(quantizers.gaussian(0.5), momentum=0.75)
  state = quantizers.initial_spread(x)
  state = quantizers.next_spread(state, x, 0.75)
  sign = quantizers.with_spread(
    quantizers.attach(quantizers.sign(), rule), state
  )
  y, pull = jax.vjp(sign, x)
  return state, y, pull(given.floats(G))


@case('training signals', 'training.CoFlips', draws=True)
def _(given):
  model = nn.binary_mlp(hidden=(2,), num_classes=3)
  images, labels = given.floats(X[:2]), np.array([0, 2])
  variables = given.floats(model.init(given.key(0), images))
  return training.CoFlips(0.2, 2)(
    variables['params'], model, variables, images, labels, given.key(1)
  )


@case('training fitted_sign', 'training.fitted_sign')
def _(given):
  sign = training.fitted_sign(quantizers.gaussian, 0.5)
  x = given.floats(X)
  params = sign.init(None, x)
  y, pull = jax.vjp(lambda x: sign.apply(params, x), x)
  return params, y, pull(given.floats(G))


@case(
  'training parts',
  'training.cross_entropy',
  'training.divergence',
  'training.learning_rate',
  'training.restarts',
  'training.progress',
  narrow=('rates', 'progress'),
  draws=True,
)
def _(given):
  logits, other = given.floats((X, G))
  targets = jax.nn.softmax(other)
  return {
    'entropy': jax.value_and_grad(training.cross_entropy)(logits, targets),
    'divergence': training.divergence(logits, other, 2.0),
    'rates': [
      training.learning_rate(kind, 0.1, 10, warmup=2)(jnp.int32(5))
      for kind in training.SCHEDULES
    ]
    + [training.restarts(0.1, 10, 2, given.key(0))(jnp.int32(5))],
    'progress': [
      training.progress(kind, 10)(jnp.int32(5)) for kind in training.PROGRESS
    ],
  }


@case('training problems')
def _(given):
  problem = training.Reconstruction(border=1)
  outputs = given.floats(PICTURES / np.float32(251))
  targets = given.floats(problem.targets(PICTURES))
  return {
    'loss': problem.loss(outputs, targets),
    'total': problem.total(outputs, targets),
    'each': problem.each(outputs, PICTURES),
    'summary': problem.summary(given.floats(np.float32([1, 2]))),
  }


# Lanes, sweeps, data.


@case(
  'lanes',
  'lanes.each',
  'lanes.grid',
  'lanes.keys',
  'lanes.product',
  draws=True,
  widens=False,
)
def _(given):
  def fn(rate, seed, batch):
    return {'wave': jnp.sin(rate * batch), 'seed': seed}

  axes = {'rate': np.float32([0.5, 1, 2]), 'seed': np.arange(2, dtype=np.int32)}
  batch = given.floats(X)
  return [
    lanes.grid(fn, axes, width=width, shared={'batch': batch})
    for width in (1, 4, 6)
  ] + [
    jax.random.uniform(k, (), np.float32)
    for k in lanes.keys(jax.random.key(0), np.arange(2))
  ]


@case('sweep', compiles=True)
def _(given):
  def fn(kind, seed, rate, batch):
    wave = {'sin': jnp.sin, 'cos': jnp.cos}[kind]
    curve = wave(rate.astype(batch.dtype) * batch).sum(1)
    return {'curve': curve + seed.astype(curve.dtype), 'best': rate > 0.3}

  table = sweeps.Sweep(chunk=3)(
    fn,
    name='waves',
    static={'kind': ('sin', 'cos')},
    lanes={'seed': np.arange(2), 'rate': np.float32([0.1, 0.5])},
    shared={'batch': given.floats(X)},
    dims={'curve': ('step',)},
  )
  return {name: table[name].values for name in table.data_vars}


IMAGES = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
TARGETS = np.eye(6, dtype=np.float32)


@case(
  'augmentation',
  'data.chain',
  'data.cutmix',
  'data.mixup',
  'data.random_crop',
  'data.random_flip',
  'data.standard',
  widens=False,
  draws=True,
)
def _(given):
  targets = given.floats(TARGETS)
  floats = given.floats(IMAGES / np.float32(255))
  return [
    jax.jit(data.standard(names, pad=1))(given.key(n), images, targets)
    for n, names in enumerate([('crop', 'flip', 'mixup'), ('flip', 'cutmix')])
    for images in (IMAGES, floats)
  ]


@case('bicubic', 'data.bicubic', widens=False)
def _(given):
  floats = given.floats(PICTURES / np.float32(255))
  return [
    data.bicubic(images, 0.4, edges=edges)
    for images in (PICTURES, floats)
    for edges in data.EDGES
  ] + [data.bicubic(floats, shape=(5, 30))]


@case(
  'patches',
  'data.make_pairs',
  'data.padded_tiles',
  'data.patch_feeds',
  'data.random_symmetry',
  widens=False,
  draws=True,
)
def _(given):
  pairs = data.make_pairs(
    {'a': PICTURES[0, :, :12], 'b': PICTURES[1, 2:, :8]}, 2
  )
  feed, _ = data.patch_feeds(pairs, 3, [0, 4], side=3)
  fed = jax.tree.map(lambda leaf: leaf[0], feed.chunk(0, 1))
  batch = feed.take(feed.arrays, fed)
  return {
    'batch': batch,
    'turned': data.random_symmetry(given.key(0), *batch),
    'tiles': data.padded_tiles(pairs, 2, side=2),
  }


@case(
  'images',
  'measures.luma',
  'measures.psnr',
  'measures.squared_error',
  'measures.ssim',
)
def _(given):
  images, truth = given.floats((PICTURES[0] / np.float32(1), PICTURES[1]))
  return [measures.luma(images)] + [
    measure(images, truth, channels=channels)
    for measure in (measures.psnr, measures.squared_error, measures.ssim)
    for channels in measures.CHANNELS
  ]


@case(
  'batches', 'data.remainder', 'data.search_and_holdout', draws=True, typed=True
)
def _(given):
  labels = np.arange(6, dtype=np.int32)
  return [
    data.search_and_holdout(given.key(0), IMAGES, labels, 2),
    data.search_and_holdout(given.key(0), IMAGES, labels, 8, augment='shift'),
    data.remainder(given.key(0), 6, 2),
  ]


@case(
  'feeds',
  'data.device_feed',
  'data.device_feeds',
  'data.normalize',
  'data.padded_batches',
  'data.channel_statistics',
  'data.split_validation',
  'data.reduced',
  'data.smooth',
  widens=False,
)
def _(given):
  part = tiny.dataset()
  feed = data.device_feed(part, 4, 0)
  _, other = data.device_feeds(part, 4, [0, 1])
  statistics = data.channel_statistics(part.images, part.scale)
  return {
    'batch': feed.take(feed.arrays, feed.chunk(0, 1)[0]),
    'other': other.take(other.arrays, other.chunk(0, 1)[0]),
    'split': [part.images for part in data.split_validation(part, 6, 0)],
    'normal': data.normalize(part.images, *statistics, part.scale),
    'padded': data.padded_batches(part, 8),
    'reduced': data.reduced(part, examples=5, side=1).images,
    'statistics': list(statistics),
    'smooth': data.smooth(given.floats(TARGETS), 0.1),
  }
