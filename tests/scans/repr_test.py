"""Results print in one line what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import scans
from bitjax import types


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


@pytest.mark.parametrize('kind', ['step', 'optimum', 'pairs'])
def test_other_results_are_one_line(make, kind):
  view, _ = make()
  budget = types.Budget(0.5)
  result = {
    'step': lambda: scans.discrete_gradient(view, budget),
    'optimum': lambda: scans.exhaustive(
      view, budget, coordinates=jnp.arange(3)
    ),
    'pairs': lambda: scans.pair_gains(view, jax.random.key(0), 4),
  }[kind]()
  text = repr(result)
  assert text.startswith(type(result).__name__ + '(')
  assert '\n' not in text and len(text) < 200
  assert 'Array(' not in text
