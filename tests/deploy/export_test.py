"""Exported networks: what other programs compute of them is what they compute.

Sums of ±1 values and of bytes are exact everywhere, so networks of nothing else are equal
to the last bit. Others have products of floats, which onnxruntime sums in another order: their
logits differ by rounding, as long as no value in front of a sign is that close to 0. So
its optimisations are off here: they fuse products and sums, which turns ties.
"""

import functools

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import data
from bitjax import deploy
from bitjax import extras
from bitjax import nn
from bitjax import types
from bitjax.deploy import _network
from bitjax.deploy import _onnx
from bitjax.deploy import _ops
from tests.deploy import deploy_test
from tests.deploy import trained_test

DIGITS, IMAGES = deploy_test.DIGITS, deploy_test.IMAGES


class Padded(linen.Module):
  """A convolution of signs that is padded with -1."""

  @linen.compact
  def __call__(self, inputs):
    sign = deploy_test.SIGN
    layer = nn.QuantConv(
      4, (3, 3), kernel_quantizer=sign, input_quantizer=sign, pad_values=-1.0
    )
    return layer(inputs).reshape(len(inputs), -1)


EXACT = {
  'mlp': (nn.binary_mlp(hidden=(9, 8), batch_norm=True), DIGITS),
  'vgg': (deploy_test.vgg(**deploy_test.BINARY), IMAGES),
  'padded': (Padded(), IMAGES),
}
ROUNDED = {
  **{k: (model, IMAGES) for k, model in deploy_test.RESNETS.items()},
  'W1A32': (nn.binary_weights_mlp(hidden=(9, 8)), DIGITS),
}


def slowly(*names):
  return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@functools.cache
def network(name):
  model, images = (EXACT | ROUNDED)[name]
  return deploy_test.packed(model, images)[0]


def by_onnxruntime(network, path, images, optimised=False):
  onnx, runtime = map(pytest.importorskip, ('onnx', 'onnxruntime'))
  deploy.export_onnx(network, path, style='plain')
  onnx.checker.check_model(str(path), full_check=True)
  options = runtime.SessionOptions()
  levels = runtime.GraphOptimizationLevel
  if not optimised:
    options.graph_optimization_level = levels.ORT_DISABLE_ALL
  session = runtime.InferenceSession(str(path), options)
  return session.run(None, {'images': np.asarray(images)})[0]


def by_qonnx(network, path, images):
  pytest.importorskip('qonnx')
  from qonnx.core import modelwrapper
  from qonnx.core import onnx_exec
  from qonnx.transformation import infer_shapes

  deploy.export_onnx(network, path, batch=len(images))
  model = modelwrapper.ModelWrapper(str(path))
  model = model.transform(infer_shapes.InferShapes())
  found = onnx_exec.execute_onnx(model, {'images': np.asarray(images)})
  kinds = {node.op_type for node in model.graph.node if node.domain}
  return found['logits'], kinds


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['mlp', *slowly('vgg', 'padded')])
def test_integers_are_exact_in_onnx(tmp_path, name):
  images = EXACT[name][1]
  want = np.asarray(network(name)(images))
  path = tmp_path / 'graph.onnx'
  for optimised in (False, True):
    got = by_onnxruntime(network(name), path, images, optimised)
    np.testing.assert_array_equal(got, want)
  got = by_onnxruntime(network(name), path, images[:1])
  np.testing.assert_array_equal(got, want[:1])
  got, kinds = by_qonnx(network(name), path, images)
  np.testing.assert_array_equal(got, want)
  assert kinds == {'BipolarQuant'}


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ROUNDED)
def test_floats_are_equal_up_to_rounding_in_onnx(tmp_path, name):
  images = ROUNDED[name][1]
  want = np.asarray(network(name)(images))
  path = tmp_path / 'graph.onnx'
  got = by_onnxruntime(network(name), path, images)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
  got, kinds = by_qonnx(network(name), path, images)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
  wanted = {'floats': set(), 'ternary': {'Quant'}, 'lsq': {'Quant'}}
  assert kinds == wanted.get(name, {'BipolarQuant'})


@pytest.mark.parametrize(
  'name',
  ['mlp', *slowly('vgg', 'react')],
)
def test_programs_take_any_number_of_images(tmp_path, name):
  pytest.importorskip('flatbuffers')
  images = (EXACT | ROUNDED)[name][1]
  path = deploy.export_program(network(name), tmp_path / 'program')
  program = deploy.load_program(path)
  for count in (1, 3, 35):
    got = program(jnp.asarray(images[:count]))
    np.testing.assert_array_equal(got, network(name)(images[:count]))


def test_bad_input(tmp_path, monkeypatch):
  path = tmp_path / 'file'
  with pytest.raises(types.BadInput, match='style must be one of qonnx'):
    deploy.export_onnx(network('mlp'), path, style='onnx')
  with pytest.raises(types.BadInput, match='batch must be'):
    deploy.export_onnx(network('mlp'), path, batch=0)
  monkeypatch.setattr(extras.importlib.util, 'find_spec', lambda _: None)
  for export in (deploy.export_onnx, deploy.export_program):
    with pytest.raises(types.BadInput, match=r"'bitjax\[export\]'"):
      export(network('mlp'), path)
  with pytest.raises(types.BadInput, match=r"'bitjax\[export\]'"):
    deploy.load_program(path)
  assert not path.exists()


def test_bad_programs(tmp_path):
  pytest.importorskip('flatbuffers')
  path = tmp_path / 'file'
  with pytest.raises(types.BadInput, match='platforms must be one of cpu'):
    deploy.export_program(network('mlp'), path, platforms=('gpu',))
  path.write_bytes(b'no program at all')
  with pytest.raises(types.BadInput, match='is no exported program'):
    deploy.load_program(path)


@pytest.mark.parametrize(
  ('op', 'words'),
  [
    (_ops.Op('is_finite', (-1,)), 'does not know the operation is_finite'),
    (
      _ops.Op('pad', (-1, 0.0), (('edges', ((0, 0, 0), (0, 0, 1))),)),
      'does not know padding inside',
    ),
  ],
)
def test_what_a_graph_cannot_hold(op, words):
  pytest.importorskip('onnx')
  made = _network.Network({}, (op,), (4, 4), 'float32', 32)
  with pytest.raises(types.BadInput, match=words):
    _onnx.build(made, 'plain', None)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_ten_thousand_digits(tmp_path):
  test = trained_test.stored('mnist', 'test')
  train = data.load('mnist5k', split='train')
  model = trained_test.MLP(hidden=(256, 256))
  variables, _ = trained_test.trained(model, train, 150)
  images = jax.ShapeDtypeStruct((1, 28, 28, 1), np.uint8)
  made = deploy.pack_network(model, variables, images)  # Of bytes.
  want = np.asarray(made(jnp.asarray(test.images)))
  path = tmp_path / 'graph.onnx'
  got = by_onnxruntime(made, path, test.images)
  assert (got != want).sum() == 0
  got, _ = by_qonnx(made, path, test.images)
  assert (got != want).sum() == 0


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.filterwarnings('ignore')
def test_classes_of_natural_images(tmp_path):
  train, test = (trained_test.stored('cifar10', s) for s in ('train', 'test'))
  model = nn.resnet20(variant='bireal', **trained_test.BINARY)
  variables, prepare = trained_test.trained(model, train, 60)
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)
  made = deploy.pack_network(model, variables, images, prepare=prepare)
  path = tmp_path / 'graph.onnx'
  turned = classes = 0
  for start in range(0, 10_000, 1000):
    part = test.images[start : start + 1000]
    want = np.asarray(made(jnp.asarray(part)))
    got = by_onnxruntime(made, path, part)
    turned += int((np.abs(got - want).max(1) > 1e-4).sum())
    classes += int((got.argmax(1) != want.argmax(1)).sum())
  assert turned < 100 and classes < 10
