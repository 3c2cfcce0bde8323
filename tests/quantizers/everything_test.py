"""Checks what all quantizers have in common, whatever their kind.

Everything that `bitjax.quantizers` exports is made a quantizer: an estimator is
attached to a sign, a window to a staircase, and a scaling multiplies a sign. A new
export is tested without a row of its own; `ARGUMENTS` lists arguments that have no
default, and options that select another rule. Other files compare each quantizer with
its formula. These tests check that it is the same function under every
transformation, shape and sharding, and that it refuses bad input.
"""

import functools
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import types

SIGN, WINDOW = quantizers.sign(), quantizers.window(1.0)
BINARY = quantizers.attach(SIGN, WINDOW)
DRAWING = quantizers.attach(quantizers.stochastic_sign(), WINDOW)
REMEMBERING = quantizers.attach(quantizers.hysteretic_sign(0.25), WINDOW)
XNOR = quantizers.mean_abs(detached=False)
GRID = quantizers.attach(quantizers.uniform(3, step='unit'), WINDOW)

ARGUMENTS = {
  'calibrated': [
    {'quantize': GRID, 'scaling': quantizers.max_abs()},
    {'quantize': DRAWING, 'scaling': XNOR},
  ],
  'clip': [{'limit': 0.25}],
  'dorefa_activations': [{'bits': 2}],
  'dorefa_weights': [
    {'bits': 1},
    *({'bits': 2, 'variant': v} for v in quantizers.DOREFA_VARIANTS),
  ],
  'dsq': [{'alpha_end': 0.1}, {'step': 'hardtanh'}],
  'hysteretic_sign': [{'margin': 0.25}],
  'hysteretic_uniform': [{'bits': 2, 'step': 0.5}],
  'learned_dsq': [{'bits': 2}],
  'lsq': [
    {'bits': 2, 'offset': True},
    {'bits': 3, 'channel_axis': -1, 'batch_axes': 1},
  ],
  'magnitude_aware': [{}, {'unit_axis': None, 'mean_share': True}],
  'max_abs': [
    {},
    {'coupling': 'tensor', 'detached': False, 'factor': 0.75},
    {'power_of_two': True},
  ],
  'mean_abs': [{}, {'coupling': 'tensor', 'detached': False}],
  'pact': [{'bits': 2, 'alpha': 1.0}, {'bits': 3, 'through_step': True}],
  'proximal': [
    {'staircase': SIGN},
    {'staircase': SIGN, 'distance': 'l1', 'schedule': 'linear'},
  ],
  'rbnn': [{}, {'activations': True}],
  'relative': [
    {'estimator': quantizers.gaussian(0.5)},
    {'estimator': WINDOW, 'spread': 0.5, 'keep': 'height'},
  ],
  'residual_sign': [{'bits': 2}, {'bits': 1, 'channel_axis': -1}],
  'rsign': [{'estimator': WINDOW}],
  'scaled': [
    {'quantize': DRAWING, 'scaling': XNOR},
    {'quantize': lambda x: 2 * x, 'scaling': XNOR},
  ],
  'shifted_sign': [
    {'threshold': 0.25},
    {'threshold': np.float32([0, 0.5, 1, -1]), 'channel_axis': -1},
  ],
  'standardized': [
    {'quantize': quantizers.scaled(DRAWING, quantizers.power_of_two())},
    {'quantize': REMEMBERING, 'detached': True},
  ],
  'ternary': [
    {},
    {'threshold': 0.5, 'scaled': True},
    {'threshold': 'max_abs', 'factor': 0.2, 'channel_axis': 0},
    {'threshold': 0.5},
  ],
  'ttq': [{}, {'channel_axis': -1}],
  'uniform': [
    {'bits': 3, 'step': 0.5},
    {'bits': 2, 'signed': False},
    {'bits': 3, 'step': 'unit'},
  ],
  'window': [{}, {'inclusive': False}],
}
AS_QUANTIZER = {
  'Annealed': lambda made: quantizers.attach(made, WINDOW),
  'Estimator': lambda made: quantizers.attach(SIGN, made),
  'Grid': lambda made: quantizers.attach(made, WINDOW),
  'Quantize': lambda made: made,
  'Quantizer': lambda made: made,
  'Scaling': lambda made: quantizers.scaled(BINARY, made),
  'Staircase': lambda made: quantizers.attach(made, WINDOW),
}
PLUMBING = {'at_progress', 'attach', 'bind', 'named', 'staircase'}


def factories():
  """Maps the name of every exported factory to the factory and its kind."""
  found = {}
  for name in set(quantizers.__all__) - PLUMBING:
    make = getattr(quantizers, name)
    if inspect.isfunction(make):
      kind = make.__annotations__.get('return', '').split('.')[-1]
      if kind in AS_QUANTIZER:
        found[name] = make, kind
  return dict(sorted(found.items()))


FACTORIES = factories()
SUBJECTS = {
  f'{name} {index}'.removesuffix(' 0'): AS_QUANTIZER[kind](make(**given))
  for name, (make, kind) in FACTORIES.items()
  for index, given in enumerate(ARGUMENTS.get(name, [{}]))
}
# One rule of each factory: a program with all of them would compile for long.
FIRST = {name: made for name, made in SUBJECTS.items() if name in FACTORIES}
# These need an axis, of channels or of weights: they refuse scalars.
NO_SCALARS = {
  'lsq 1',
  'residual_sign 1',
  'rprelu',
  'rsign',
  'shifted_sign 1',
  'ternary 2',
}
NO_SCALARS |= {'ttq 1', 'standardized', 'standardized 1'}
STAIRCASES = [
  name
  for name, (_, kind) in FACTORIES.items()
  if kind in ('Annealed', 'Grid', 'Staircase')
]
every_subject = pytest.mark.parametrize('name', SUBJECTS)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4)).astype(np.float32)
G = RNG.normal(size=(8, 4)).astype(np.float32)


def bound(subject, x, key):
  """Returns ``(qparams, x, progress) -> y`` and qparams; fills key and state in."""
  if isinstance(subject, quantizers.Quantizer):
    return subject.apply, subject.init(None, x)
  given = {
    'key': key if quantizers.is_random(subject) else None,
    'state': quantizers.initial_state(subject, x),
  }
  given = {k: v for k, v in given.items() if v is not None}
  return lambda _, x, **progress: subject(x, **progress, **given), {}


def pull_back(subject, x, g, key, progress):
  apply, qparams = bound(subject, x, key)
  run = functools.partial(apply, progress=progress)
  y, pull = jax.vjp(run, qparams, x)
  return y, *pull(g.astype(y.dtype))


def for_all(function, subjects, *args):
  """Calls `function` for all subjects, each with a key of its own."""
  # Programs with rbg keys compile faster than with threefry keys.
  keys = jax.random.split(jax.random.key(7, impl='rbg'), len(subjects))
  return {
    name: function(subject, *args, key)
    for key, (name, subject) in zip(keys, subjects.items(), strict=True)
  }


@jax.jit
def pull_backs(subjects, x, g, progress):
  return for_all(
    lambda subject, key: pull_back(subject, x, g, key, progress), subjects
  )


def close(got, want, name, rtol=1e-5):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol / 10, err_msg=name)


class TestText:
  """A quantizer is written as the code that makes it, whatever its leaves are."""

  @every_subject
  def test_its_repr_makes_it(self, name):
    text = repr(SUBJECTS[name])
    assert '\n' not in text and ' at 0x' not in text
    assert len(text) < 100
    if 'float32[' in text or 'lambda' in text:  # No code makes these.
      return
    again = eval(text, vars(quantizers))
    assert repr(again) == text
    assert jax.tree.structure(again) == jax.tree.structure(SUBJECTS[name])
    assert jax.tree.leaves(again) == jax.tree.leaves(SUBJECTS[name])

  def test_texts(self):
    grid = quantizers.uniform(3, narrow=True, step='unit')
    quantize = quantizers.calibrated(
      quantizers.attach(grid, quantizers.window(0.5)), XNOR
    )
    inside = (
      "attach(uniform(3, narrow=True, step='unit'), window(half_width=0.5))"
    )
    assert repr(quantize) == f'calibrated({inside}, mean_abs(detached=False))'
    frozen = quantizers.freeze_scale(quantize, X)
    assert repr(frozen) == f'calibrated({inside}, Constant(float32[4]))'
    bound = quantizers.bind(
      quantizers.lsq(2, channel_axis=0), {'step': np.ones(8, np.float32)}
    )
    assert repr(bound) == "bind(lsq(2, channel_axis=0), {'step': float32[8]})"
    step = quantizers.learned_dsq(2, step=quantizers.window(0.5))
    assert repr(step) == 'learned_dsq(2, step=window(half_width=0.5))'
    given = quantizers.at_progress(DRAWING, 0.5, key=jax.random.key(0))
    assert repr(given) == (
      'at_progress(attach(stochastic_sign(), window()), 0.5, key=key<fry>[])'
    )
    own = quantizers.Quantizer(lambda key, x: {}, lambda q, x: x, 2)
    assert repr(own) == 'Quantizer(<lambda>, <lambda>, 2)'
    own = quantizers.Annealed(lambda x, *, progress: x, bits=2)
    assert repr(own) == 'Annealed(<lambda>, bits=2)'
    assert repr(quantizers.proximal(SIGN)) == 'proximal(sign())'

  def test_leaves_are_those_of_the_object_not_of_its_factory(self):
    window = quantizers.window(0.5)
    assert repr(jax.tree.map(lambda leaf: 2 * leaf, window)) == (
      'window(gain=2.0)'
    )
    texts = []
    jax.eval_shape(lambda made: texts.append(repr(made)), window)
    lanes = jax.tree.map(lambda leaf: np.full(3, leaf, np.float32), window)
    texts += [repr(lanes), repr(pickle.loads(pickle.dumps(window)))]
    assert texts == [
      'window(half_width=float32[], gain=float32[])',
      'window(half_width=float32[3], gain=float32[3])',
      'window(half_width=0.5)',
    ]


def test_integers_of_any_kind_are_static():
  """An array of JAX as an axis would be a tracer under `jit`, or could not be hashed."""
  found = 0
  for name, (make, _) in FACTORIES.items():
    for given in ARGUMENTS.get(name, [{}]):
      axes = [k for k in inspect.signature(make).parameters if 'axis' in k]
      axes += ['bits'] * ('bits' in given)
      for parameter in axes:
        value = given.get(parameter, -1)
        given = {**given, parameter: value}
        if value is None:
          continue
        for cast in (np.int64, jnp.int32):
          made = make(**{**given, parameter: cast(value)})
          want = make(**given)
          assert jax.tree.structure(made) == jax.tree.structure(want)
          assert repr(made) == repr(want)
        found += 1
  assert found > 20


class TestTransformations:
  """Quantizers are the same functions however they are run."""

  @pytest.mark.slow
  def test_sweeps_nested_in_everything_equal_a_loop(self):
    """Sweeps every leaf in scan(vmap(grad(checkpoint(jit)))).

    `contract_test.py` has such a test of estimators.
    """
    subjects = {
      name: subject
      for name, subject in FIRST.items()
      if FACTORIES[name][1] != 'Estimator'
      and jax.tree.leaves(subject) not in ([], jax.tree.leaves(BINARY))
    }
    factors, progresses = np.float32([1, 0.75]), np.float32([0.25, 1])

    def scaled_by(factor, subject):
      return jax.tree.map(lambda leaf: factor * leaf, subject)

    def swept(subject, key):
      @jax.checkpoint
      def loss(subject, qparams, x, progress, g):
        apply, _ = bound(subject, x, key)
        run = jax.jit(lambda q, x: apply(q, x, progress=progress))
        y = run(qparams, x)
        return jnp.sum(y * g), y

      def lane(subject, progress, g):
        _, qparams = bound(subject, X, None)
        grad = jax.grad(loss, argnums=(1, 2), has_aux=True)
        grads, y = grad(subject, qparams, X, progress, g)
        return y, *grads

      def step(carry, progress):
        subjects, g = carry
        return carry, jax.vmap(lane, (0, None, 0))(subjects, progress, g)

      lanes = jax.tree.map(
        lambda leaf: jnp.stack([f * jnp.asarray(leaf) for f in factors]),
        subject,
      )
      gs = jnp.stack([f * G for f in factors])
      return jax.lax.scan(step, (lanes, gs), progresses)[1]

    # Every step of the scan uses the same key, as the loop below does.
    with jax.debug_key_reuse(False):
      got = jax.jit(lambda subjects: for_all(swept, subjects))(subjects)
    for p, progress in enumerate(progresses):
      for f, factor in enumerate(factors):
        want = pull_backs(scaled_by(factor, subjects), X, factor * G, progress)
        for name in subjects:
          mine = jax.tree.map(lambda a, p=p, f=f: a[p, f], got[name])
          close(mine, want[name], f'{name}, {factor}, {progress}')


def compare_sharded():
  """Compares with ``x`` sharded over four devices; `device_checks` calls it."""
  auto = 2 * (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((2, 2), ('examples', 'units'), axis_types=auto)
  sharding = jax.NamedSharding(mesh, jax.P('examples', 'units'))
  want = pull_backs(FIRST, X, G, 0.5)
  got = pull_backs(FIRST, *jax.device_put((X, G), sharding), 0.5)
  for name, (y, *_) in got.items():
    close(got[name], want[name], name)
    assert y.sharding.is_equivalent_to(sharding, 2), (name, y.sharding)


class TestShapes:
  """Empty arrays, arrays without axes, and many axes."""

  def outputs(self, shape, evaluate):
    of_four = shape[-1:] == (4,)  # Some thresholds are for four channels.
    subjects = {
      name: subject
      for name, subject in SUBJECTS.items()
      if (shape or name not in NO_SCALARS)
      and (of_four or name != 'shifted_sign 1')
    }

    def run(subjects):
      x = jnp.full(shape, 0.75)
      return for_all(
        lambda subject, key: pull_back(subject, x, x, key, 0.5), subjects
      )

    return evaluate(run, subjects)

  @pytest.mark.parametrize(
    'shape',
    [
      pytest.param((0,), marks=pytest.mark.slow),
      pytest.param((2, 3, 4), marks=pytest.mark.slow),
      (0, 4),
    ],
  )
  def test_any_shape(self, shape):
    for name, (y, _, x_bar) in self.outputs(shape, jax.eval_shape).items():
      assert y.shape == x_bar.shape == shape, name

  def test_scalars(self):
    outputs = self.outputs((), lambda run, subjects: jax.jit(run)(subjects))
    for name, (y, *bars) in outputs.items():
      assert y.shape == ()
      assert all(np.isfinite(a).all() for a in jax.tree.leaves((y, bars))), name

  @pytest.mark.parametrize('name', sorted(NO_SCALARS))
  def test_channels_need_an_axis(self, name):
    message = 'channel_axis must be in|at least 2 weights'
    with pytest.raises(types.BadInput, match=message):
      bound(SUBJECTS[name], jnp.ones(()), None)[0]({}, jnp.ones(()))


class TestBadInput:
  """A `ValueError` that names the argument, the value and what is valid."""

  @every_subject
  def test_integers(self, name):
    apply, qparams = bound(SUBJECTS[name], X, jax.random.key(0))
    with pytest.raises(
      types.BadInput, match='needs a floating x; got dtype int'
    ):
      apply(qparams, np.ones((8, 4), np.int32))

  @every_subject
  def test_progress(self, name):
    apply, qparams = bound(SUBJECTS[name], X, jax.random.key(0))
    for progress in (-0.5, 1.5, float('nan')):
      with pytest.raises(
        types.BadInput, match=r'progress must be in \[0.*; got '
      ):
        apply(qparams, X, progress=progress)

  @pytest.mark.parametrize('name', STAIRCASES)
  def test_integers_for_staircases_that_are_not_attached(self, name):
    staircase = FACTORIES[name][0](**ARGUMENTS.get(name, [{}])[0])
    given = {'key', 'state'} & parameters(staircase)
    with pytest.raises(
      types.BadInput, match='needs a floating x; got dtype int'
    ):
      staircase(np.arange(3), **dict.fromkeys(given))

  @pytest.mark.parametrize('bits', [0, -1, 17, 2.0, True, '2'])
  def test_bits(self, bits):
    found = 0
    for make, _ in FACTORIES.values():
      if 'bits' in parameters(make):
        found += 1
        with pytest.raises(types.BadInput, match=r'bits must be .*; got'):
          make(bits)
    assert found >= 6

  @pytest.mark.parametrize('axis', [2, -3, 9])
  def test_channel_axis(self, axis):
    found = 0
    for name, (make, kind) in FACTORIES.items():
      for keyword in {'channel_axis', 'unit_axis'} & parameters(make):
        found += 1
        given = {**ARGUMENTS.get(name, [{}])[-1], keyword: axis}
        if 'step' in parameters(make):
          given['step'] = np.ones(4, np.float32)
        if name == 'ternary':
          given['threshold'] = 'mean_abs'
        if name == 'shifted_sign':
          given['threshold'] = np.ones(4, np.float32)
        subject = AS_QUANTIZER[kind](make(**given))
        with pytest.raises(
          types.BadInput, match=rf'{keyword} must be in .*-2, .* got {axis}'
        ):
          pull_back(subject, X, G, None, 1.0)
    assert found >= 7


def parameters(function):
  return set(inspect.signature(function).parameters)


BAD = [np.inf, -np.inf, np.nan]
INF = np.inf
# Outputs for each of [inf, -inf, nan], and those for [1, -2] in the same array or
# None. These quantizers are not elementwise, or no other table has their formula.
NOT_FINITE = {
  'heaviside': ([1, 0, 0], None),
  'sign': ([1, -1, -1], None),
  'shifted_sign': ([1, -1, -1], None),
  'stochastic_sign': ([1, -1, -1], None),
  'stochastic_round': (BAD, None),
  'uniform': ([1.5, -2, np.nan], None),
  'hysteretic_sign': ([1, -1, -1], None),
  'hysteretic_uniform': ([0.5, -1, np.nan], None),
  'ternary': ([0, 0, 0], [0, 0]),
  'ternary 3': ([1, -1, 0], [1, -1]),
  'mean_abs': ([INF, -INF, np.nan], [INF, -INF]),
  'power_of_two': ([INF, -INF, np.nan], [INF, -INF]),
  'standardized 1': ([-1, -1, -1], [-1, -1]),
  'dorefa_activations': ([1, 0, np.nan], [1, 0]),
  'dorefa_weights 1': ([1, -1, np.nan], None),
  'dorefa_weights': ([INF, -INF, np.nan], [INF, -INF]),
  'pact': ([1, 0, np.nan], [1, 0]),
  'rsign': ([1, -1, -1], [1, -1]),
  'ttq': ([0, 0, 0], [0, 0]),
  'rprelu': ([INF, -INF, np.nan], [1, -0.5]),
}


@pytest.mark.parametrize('name', [n for n, v in NOT_FINITE.items() if v[0]])
def test_infinite_and_nan_become_what_is_documented(name):
  others, others_q = np.float32([1, -2]), NOT_FINITE[name][1]
  subject, key = SUBJECTS[name], jax.random.key(0)
  for bad, want in zip(BAD, NOT_FINITE[name][0], strict=True):
    x = np.float32([bad, *others])[:, None]
    if isinstance(subject, quantizers.Quantizer):
      qparams = subject.init(None, np.ones_like(x))
      y = subject.apply(qparams, x)
    else:
      apply, qparams = bound(subject, x, jax.random.clone(key))
      y = apply(qparams, x)
    y = np.asarray(y)[:, 0]
    np.testing.assert_array_equal(y[0], np.float32(want), f'{bad} to {y}')
    if others_q is not None:
      expected = np.full(2, np.nan) if np.isnan(want) else others_q
      if name in ('dorefa_activations', 'pact', 'rprelu'):
        expected = others_q
      np.testing.assert_array_equal(y[1:], np.float32(expected))


def test_low_precision_is_that_of_the_dtype():
  """Values and gradients are those of float32, but for the dtype's rounding."""
  linear = {
    name: subject
    for name, subject in SUBJECTS.items()
    if name.startswith(('scaled 1', 'mean_abs 1', 'power', 'dorefa'))
  }
  linear['ternary'] = SUBJECTS['ternary 1']
  linear['standardized'] = quantizers.standardized(
    quantizers.scaled(lambda x: 2 * x, XNOR)
  )
  x, g = RNG.normal(size=(2, 400, 3))

  @jax.jit
  def run(subjects, x, g):
    return for_all(lambda s, key: pull_back(s, x, g, key, 1.0), subjects)

  for dtype in ('float16', 'bfloat16'):
    low = jnp.asarray(x, dtype), jnp.asarray(g, dtype)
    wide = (a.astype(jnp.float32) for a in low)
    got, want = run(linear, *low), run(linear, *wide)
    eps = float(jnp.finfo(dtype).eps)
    for name in linear:
      for a, b in zip(
        jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True
      ):
        assert a.dtype == dtype
        a, b = np.float64(a.astype(jnp.float32)), np.float64(b)
        scale = np.abs(b).max()
        np.testing.assert_allclose(
          a, b, rtol=4 * eps, atol=4 * eps * scale, err_msg=f'{name} {dtype}'
        )
