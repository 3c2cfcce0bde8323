"""Results print in one line what they are."""

import inspect
import types as python_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax.scans import _text


def test_gains_say_path_size_and_best(make):
  view, _ = make()
  gains = scans.flip_gains(view)
  text = repr(gains)
  assert "path='sign'" in text and 'float32[6, 4]' in text
  assert f'best={np.max(gains.gains):.4g}' in text and 'near_ties' not in text
  assert '\n' not in text and len(text) < 160
  seen = []
  jax.eval_shape(lambda g: seen.append(repr(g)), gains)
  assert 'best=float32[6, 4]' in seen[0]


RESULTS = {
  name: kind
  for name, kind in vars(scans).items()
  if isinstance(kind, type)
  and isinstance(vars(kind).get('__repr__'), python_types.FunctionType)
  and '_text' in inspect.getsource(kind)
}
VALUES = {
  'numbers': jnp.linspace(-1.0, 1.0, 24).reshape(6, 4),
  'NaN': jnp.full((6, 4), jnp.nan),
  'nothing': jnp.zeros((0, 4)),
  'bfloat16': jnp.ones((6, 4), jnp.bfloat16),
}


def made(name, value):
  kind = RESULTS[name]
  fields = getattr(kind, '_fields', None) or kind.__dataclass_fields__
  facts = {'path': 'sign', 'num_examples': 3, 'draws': 4, 'together': 2}
  return kind(**{field: facts.get(field, value) for field in fields})


def test_these_are_the_results():
  assert len(RESULTS) == 14
  assert {'FlipGains', 'DiscreteStep', 'LineScan', 'Certificate'} < {*RESULTS}


@pytest.mark.parametrize('name', RESULTS)
@pytest.mark.parametrize('values', VALUES)
def test_every_result_is_one_line(name, values):
  text = repr(made(name, VALUES[values]))  # Warnings are errors.
  assert text.startswith(name + '(') and text.endswith(')')
  assert '\n' not in text and len(text) < 320
  assert 'Array(' not in text


@pytest.mark.parametrize('name', RESULTS)
def test_results_whose_arrays_are_gone_say_their_shapes(name):
  gone = jnp.ones((6, 4)) + 1
  gone.delete()
  text = repr(made(name, gone))
  assert 'float32[6, 4]' in text


def test_extremes_ignore_nan():
  assert _text.reduce(np.fmin, jnp.array([jnp.nan, 2.0, 1.0])) == 1
  assert _text.reduce(np.fmax, jnp.array([jnp.nan, 2.0, 1.0])) == 2
  assert np.isnan(_text.reduce(np.fmin, jnp.array([jnp.nan])))
