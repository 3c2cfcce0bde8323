"""Estimators by name: what is read, and one line for what is not."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import types

SOURCE = """
import jax
import jax.numpy as jnp

class Kept:
  made = staticmethod(lambda *args, **kwargs: scaled(2.0))
  seen = []

def scaled(factor=1.0, *, name='x', flag=False, pair=()):
  Kept.seen.append((factor, name, flag, pair))
  return jax.tree_util.Partial(rule, factor)

def rule(factor, g, x, x_q, progress):
  return factor * g

def plain(g, x, x_q, progress):
  return g * progress

def summed():
  return lambda g, x, x_q, progress: jnp.sum(g)

def nothing():
  return lambda g, x, x_q, progress: None

def imaginary():
  return lambda g, x, x_q, progress: 1j * g

def truth():
  return lambda g, x, x_q, progress: abs(x) < 1

def failing():
  return lambda g, x, x_q, progress: g @ g

def textual():
  return jax.tree_util.Partial(lambda word, g, x, x_q, progress: g, 'word')

def lacking():
  return {}['key']

def silent():
  assert False

number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A module in the current directory, which is not on the path."""
  (tmp_path / 'named_module.py').write_text(SOURCE)
  (tmp_path / 'named_broken.py').write_text('raise RuntimeError("no luck")')
  (tmp_path / 'named_script.py').write_text('import sys; sys.exit(0)')
  (tmp_path / 'named_needy.py').write_text('import not_installed_at_all')
  (tmp_path / 'named_needy_too.py').write_text('import named_need')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [p for p in sys.path if p])
  yield tmp_path
  for name in [n for n in sys.modules if n.startswith('named_')]:
    del sys.modules[name]


def gradient(estimator):
  quantize = quantizers.attach(quantizers.sign(), estimator)
  return jax.grad(lambda x: jnp.sum(quantize(x, progress=0.5)))(jnp.ones(2))


def test_reads_arguments_as_they_are_written(here):
  text = (
    'named_module:scaled(-0.5, name="a, (b", flag=True, pair=(1, (None, 2)))'
  )
  np.testing.assert_array_equal(gradient(quantizers.named(text)), [-0.5, -0.5])
  seen = sys.modules['named_module'].Kept.seen
  assert seen == [(-0.5, 'a, (b', True, (1, (None, 2)))]
  first, second = (quantizers.named(text) for _ in range(2))
  assert jax.tree.structure(first) == jax.tree.structure(second)


@pytest.mark.parametrize(
  ('text', 'want'),
  [
    ('named_module:plain', 0.5),
    ('named_module:scaled()', 1.0),
    ('named_module:Kept.made(1)', 2.0),
    ('named_module:scaled(number)', 3.0),
    # In units of the spread, which is 1.
    ('bitjax.quantizers:relative(window(2, gain=3.0))', 3.0),
    (' bitjax.quantizers : window(2, gain=3.0) ', 3.0),
  ],
)
def test_names_of_rules_and_factories(here, text, want):
  np.testing.assert_array_equal(gradient(quantizers.named(text)), [want, want])


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('window(1)', 'must have the form MODULE:FACTORY'),
    ('named_module:scaled(', 'must have the form'),
    ('named_module:', 'must have the form'),
    ('named_module:scaled(1)(2)', 'must have the form'),
    ('named-module:scaled(1)', 'must have the form'),
    ('named_module:scaled(open("x"))', 'named_module has no open'),
    ('named_module:scaled((lambda: 1)())', 'arguments must be numbers'),
    ('named_module:scaled(1 + 1)', 'arguments must be numbers'),
    ('named_module:scaled(number(1))', 'a factory of estimators is needed'),
    ('named_module:scaled([1])', 'arguments must be numbers'),
    ('named_module:scaled(*(1,))', 'arguments must be numbers'),
    ('named_module:scaled(**{})', 'arguments must be numbers'),
    ('named_absent:scaled(1)', 'no module named_absent; looked in'),
    (
      'named_needy:f(1)',
      'importing named_needy failed: there is no module not_installed_at_all.',
    ),
    ('named_module.py:plain', 'without .py, as in named_module:rule'),
    ('named_absent.py:plain', 'no module named_absent; looked in'),
    ('named_script:f', 'importing named_script failed: SystemExit: 0.'),
    # What is absent is named like the beginning of what was asked for.
    ('named_needy_too:f(1)', 'no module named_need.'),
    (
      'named_broken:f(1)',
      'importing named_broken failed: RuntimeError: no luck',
    ),
    ('named_module:absent(1)', 'named_module has no absent'),
    (
      'named_module:number(1)',
      'factory of estimators is needed; got an object',
    ),
    ('named_module:number', 'must be a function (g, x, x_q, progress)'),
    ('named_module:scaled', 'Is it a factory that has yet to be called'),
    ('named_module:scaled(1, 2, 3)', 'positional arguments'),
    ('named_module:scaled(width=1)', "unexpected keyword argument 'width'"),
    ('bitjax.quantizers:window(-1)', "window(-1)': half_width must be > 0"),
    ('named_module:lacking()', "lacking()': KeyError: 'key'."),
    ('named_module:silent()', "silent()': AssertionError."),
    ('bitjax.quantizers:sign()', 'must be a function (g, x, x_q, progress)'),
    ('bitjax.quantizers:lsq(2)', 'learned Quantizer'),
    ('named_module:summed()', 'returns shape ()'),
    ('named_module:nothing()', 'returns an object of type NoneType'),
    ('named_module:imaginary()', 'real numbers; it returns complex64'),
    ('named_module:truth()', 'real numbers; it returns bool'),
    ('named_module:failing()', 'its call failed'),
    ('named_module:textual()', "hyperparameters must be numbers; got 'word'"),
  ],
)
def test_one_line_for_what_is_wrong(here, text, words):
  with pytest.raises(types.BadInput) as info:
    quantizers.named(text)
  assert words in str(info.value)
  assert len(str(info.value).splitlines()) == 1


def test_nothing_is_evaluated(here):
  text = 'named_module:scaled(__import__("os").mkdir("made"))'
  with pytest.raises(types.BadInput):
    quantizers.named(text)
  assert not os.path.exists('made')


def test_own_steps_of_the_learned_range():
  """A window of half-width 1 is the clipped identity, whatever the number of bits."""
  own = quantizers.learned_dsq(2, step=quantizers.window(1.0))
  x = jnp.linspace(-1.5, 2.0, 31)
  qparams = {'lower': jnp.float32(-1.0), 'upper': jnp.float32(1.4)}
  assert own.init(None, x).keys() == qparams.keys()
  usual = quantizers.learned_dsq(2, alpha_end=0.2, level='hard')
  zero = quantizers.learned_dsq(2, step=lambda g, x, x_q, progress: 0 * g)

  @jax.jit
  def both(x):
    pairs = {}
    for name, made in (('own', own), ('usual', usual), ('zero', zero)):
      y, pull = jax.vjp(lambda x, made=made: made.apply(qparams, x), x)
      pairs[name] = y, pull(jnp.ones_like(y))[0]
    return pairs

  found = both(x)
  np.testing.assert_array_equal(found['own'][0], found['usual'][0])
  inside = (x >= -1.0) & (x <= 1.4)
  np.testing.assert_allclose(found['own'][1], np.where(inside, 1, 0), atol=1e-6)
  np.testing.assert_allclose(found['zero'][1], 0, atol=1e-6)
