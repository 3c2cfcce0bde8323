"""complete: a checkpoint's layers go where they belong, or it says which do not."""

from flax import linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import nn
from bitjax import quantizers
from bitjax import types

KEY = jax.random.key(0, impl='rbg')
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6)).astype(np.float32)
LSQ = quantizers.lsq(2)
SHIFTED = {'QuantDense_0': 'Dense_1', 'Dense_1': 'Dense_2'}


def filled(model, *inputs):
  shapes = jax.eval_shape(model.init, KEY, *(inputs or (X,)))
  draw = lambda a: RNG.normal(size=a.shape).astype(np.float32)
  return jax.tree.map(draw, shapes)


class Net(linen.Module):
  """Three layers; the one in the middle may be quantized, which renames the last."""

  quantized: bool
  hidden: int = 6

  @linen.compact
  def __call__(self, x):
    x = linen.relu(linen.Dense(self.hidden)(x))
    if self.quantized:
      x = nn.QuantDense(self.hidden, kernel_quantizer=LSQ)(x)
    else:
      x = linen.Dense(self.hidden)(x)
    return linen.Dense(6)(linen.relu(x))


def completed(model, checkpoint, *inputs, **kwargs):
  return nn.complete(model, checkpoint, KEY, *(inputs or (X,)), **kwargs)


class TestShiftedNames:
  """A Dense becomes a QuantDense: flax renames it and the layers behind it."""

  checkpoint = filled(Net(quantized=False))

  def test_missing_and_unused_layers_are_named_and_a_mapping_is_proposed(self):
    with pytest.raises(types.BadInput) as error:
      completed(Net(quantized=True), self.checkpoint)
    message = str(error.value)
    assert 'it lacks QuantDense_0/kernel, QuantDense_0/bias' in message
    assert 'does not have its Dense_2/bias, Dense_2/kernel' in message
    assert message.endswith(f'By shapes and order, pass names={SHIFTED}.')
    assert '\n' not in message

  def test_names_put_every_layer_in_its_place(self):
    model = Net(quantized=True)
    got = completed(model, self.checkpoint, names=SHIFTED)['params']
    old = self.checkpoint['params']
    for ours, theirs in (SHIFTED | {'Dense_0': 'Dense_0'}).items():
      for name in ('kernel', 'bias'):
        np.testing.assert_array_equal(got[ours][name], old[theirs][name])
    step = got['QuantDense_0']['kernel_quantizer']['step']
    want = 2 * np.abs(old['Dense_1']['kernel']).mean()
    np.testing.assert_allclose(step, want, rtol=1e-5)

  def test_half_a_mapping_is_answered_with_the_whole(self):
    with pytest.raises(types.BadInput, match='it lacks Dense_1/') as error:
      completed(
        Net(quantized=True),
        self.checkpoint,
        names={'QuantDense_0': 'Dense_1'},
      )
    assert f'names={SHIFTED}.' in str(error.value)

  def test_no_mapping_is_proposed_where_shapes_do_not_fit(self):
    with pytest.raises(types.BadInput) as error:
      completed(Net(quantized=True, hidden=5), self.checkpoint)
    assert 'names=' not in str(error.value)

  @pytest.mark.parametrize(
    ('names', 'message'),
    [
      (
        {'Quant_0': 'Dense_0'},
        "layers of the model as keys; it has no 'Quant_0'",
      ),
      ({'Dense_0': 'dense'}, "checkpoint as values; it has no 'dense'"),
      (
        {'Dense_0': 'Dense_0', 'Dense_1': 'Dense_0'},
        'each layer of the checkpoint once',
      ),
      ({'Dense_0': 'Dense_2'}, 'every layer that moves; two would be Dense_0/'),
    ],
  )
  def test_wrong_names(self, names, message):
    with pytest.raises(types.BadInput, match=message):
      completed(Net(quantized=True), self.checkpoint, names=names)


class TestOtherTrees:
  """Shapes, collections, nested blocks, and a model that is a layer."""

  def test_another_shape_is_named_with_both(self):
    with pytest.raises(types.BadInput, match=r'is \[6, 6\] there and \[6, 5\]'):
      completed(Net(quantized=False, hidden=5), TestShiftedNames.checkpoint)

  def test_parameters_of_other_quantizers_and_statistics_are_not_dropped(self):
    model = nn.QuantDense(3, kernel_quantizer=LSQ)
    checkpoint = filled(linen.Dense(3))
    extra = {**checkpoint['params'], 'input_quantizer': {'alpha': np.ones(())}}
    with pytest.raises(types.BadInput, match='have its input_quantizer/alpha'):
      completed(model, {'params': extra})
    with pytest.raises(types.BadInput, match='have its batch_stats/mean'):
      completed(model, {**checkpoint, 'batch_stats': {'mean': np.ones(3)}})

  def test_statistics_of_a_trained_network_are_not_invented(self):
    class Normalised(linen.Module):
      @linen.compact
      def __call__(self, x):
        x = nn.QuantDense(3, kernel_quantizer=LSQ)(x)
        return linen.BatchNorm(use_running_average=True)(x)

    checkpoint = filled(Normalised())
    del checkpoint['params']['QuantDense_0']['kernel_quantizer']
    got = completed(Normalised(), checkpoint)
    old = checkpoint.pop('batch_stats')['BatchNorm_0']['var']
    np.testing.assert_array_equal(got['batch_stats']['BatchNorm_0']['var'], old)
    with pytest.raises(
      types.BadInput, match='it lacks batch_stats/BatchNorm_0/mean, batch_stats'
    ):
      completed(Normalised(), checkpoint)

  def test_counters_of_other_modules_are_not_invented(self):
    class Counted(linen.Module):
      @linen.compact
      def __call__(self, x):
        self.variable('counts', 'calls', lambda: jnp.zeros((), jnp.int32))
        return nn.QuantDense(3, kernel_quantizer=LSQ)(x)

    with pytest.raises(types.BadInput, match='it lacks counts/calls'):
      completed(Counted(), {'params': filled(Counted())['params']})

  def test_blocks_move_with_what_is_in_them(self):
    class Outer(linen.Module):
      name_of_block: str

      @linen.compact
      def __call__(self, x):
        return Net(quantized=False, name=self.name_of_block)(x)

    checkpoint = filled(Outer('old'))
    got = completed(Outer('new'), checkpoint, names={'new': 'old'})['params']
    jax.tree.map(
      np.testing.assert_array_equal, got['new'], checkpoint['params']['old']
    )

  def test_a_layer_taken_out_of_a_network(self):
    checkpoint = filled(linen.Sequential([linen.Dense(3)]))
    model = nn.QuantDense(3, kernel_quantizer=LSQ)
    with pytest.raises(types.BadInput, match=r"names=\{'': 'layers_0'\}"):
      completed(model, checkpoint)
    got = completed(model, checkpoint, names={'': 'layers_0'})['params']
    want = checkpoint['params']['layers_0']['kernel']
    np.testing.assert_array_equal(got['kernel'], want)

  def test_an_activation_that_learns_may_be_new_in_a_residual_network(self):
    make = lambda variant, quantizer: nn.ResNet(
      stages=(1,), widths=(2,), num_classes=2, variant=variant,
      input_quantizer=quantizer,
    )  # fmt: skip
    images = jnp.zeros((1, 4, 4, 1))
    old = filled(make('bireal', None), images)
    shapes = jax.eval_shape(
      lambda key, old: nn.complete(make('react', LSQ), old, key, images),
      KEY,
      old,
    )
    own = shapes['params']['Block_0']
    assert own['Threshold_0']['threshold'].shape == (2,)
    assert own['Conv_0']['input_quantizer']['step'].shape == ()
