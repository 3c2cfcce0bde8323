"""What stands on gains asks convolutions the same questions, and gets the same answers.

A view that is transparent takes fast paths; the same view made opaque takes forward
passes. Both must agree.
"""

import dataclasses
import itertools

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
  """The first and the last convolution of a block, and what is known of neither."""
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


FAST = {('discrete_gradient', 'Conv_1'), ('flip_descent', 'Conv_0')}
CASES = [
  pytest.param(*case, marks=() if case in FAST else pytest.mark.slow)
  for case in itertools.product(QUESTIONS, ('Conv_0', 'Conv_1'))
]


@pytest.mark.optimised
@pytest.mark.parametrize(('name', 'layer'), CASES)
def test_answers_are_those_of_forward_passes(views, name, layer):
  seen, unseen = (QUESTIONS[name](view) for view in views[layer])
  for fast, slow in zip(
    jax.tree.leaves(seen), jax.tree.leaves(unseen), strict=True
  ):
    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-6)
