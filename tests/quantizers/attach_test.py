"""The straight-through construction is the only overridden derivative."""

import ast
import pathlib

import jax

import bitjax
from bitjax import quantizers

OVERRIDES = {'custom_vjp', 'custom_jvp', 'custom_gradient', 'stop_gradient'}


def overrides(source):
  """Names of the derivative overrides that a source mentions."""
  for node in ast.walk(ast.parse(source)):
    name = getattr(node, 'attr', getattr(node, 'id', None))
    if isinstance(node, ast.ImportFrom):
      yield from (a.name for a in node.names if a.name in OVERRIDES)
    elif name in OVERRIDES:
      yield name


def test_library_has_one_custom_vjp():
  root = pathlib.Path(bitjax.__file__).parent
  places = {
    (str(path.relative_to(root)), name)
    for path in root.rglob('*.py')
    for name in overrides(path.read_text())
    if name != 'stop_gradient'
  }
  assert places == {('quantizers/_attach.py', 'custom_vjp')}
  source = (root / 'quantizers/_attach.py').read_text()
  assert list(overrides(source)) == ['custom_vjp']


def test_planted_overrides_are_found():
  for source in (
    'import jax\n@jax.custom_vjp\ndef f(x): pass',
    'from jax import custom_vjp as c',
    'import jax\ng = jax.custom_derivatives.custom_jvp(f)',
    'def f(x):\n  return custom_gradient(x)',
  ):
    assert len(list(overrides(source))) == 1, source


def test_quantizer_is_a_pytree_of_its_parts():
  quantize = quantizers.attach(quantizers.sign(), quantizers.window(0.5, 2.0))
  assert jax.tree.leaves(quantize) == [0.5, 2.0]
