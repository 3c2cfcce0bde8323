"""Trainings from the command line: refused flags, and one with all options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import cli
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies import train_cifar

SMOKE = '--preset=smoke'


def launch(*flags):
  return cli.launch(train_cifar.STUDY, flags)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
  """Returns a folder with a checkpoint of an untrained, full-precision resnet4."""
  model = recipes.build(
    'resnet4',
    'plain',
    'none',
    'none',
    num_classes=10,
    init_name='kaiming_normal',
  )
  tx = training.optimizer('sgd', 0.1)

  def create():
    state = training.create(model, tx, [0], jnp.zeros((1, 8, 8, 1)))
    return state._replace(key=state.step)

  draw = np.random.default_rng(0)
  state = jax.tree.map(
    lambda leaf: np.abs(0.1 * draw.normal(size=leaf.shape)).astype(leaf.dtype),
    jax.eval_shape(create),
  )
  state = state._replace(
    key=jax.vmap(jax.random.key)(jnp.arange(1)), step=np.ones(1, np.int32)
  )
  folder = tmp_path_factory.mktemp('full')
  keeper = training.Checkpoints(folder)
  keeper.save(state, {})
  return folder


PLAIN = ('--variant=plain', '--weights=none', '--activations=none')


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--network=resnet21'], 'network must be one of resnet20, resnet32'),
    (['--weights=sgn'], 'weights must be one of none, sign'),
    (['--activations=sgn'], 'activations must be one of none, sign'),
    (['--optimizer=lamb'], 'optimizer must be one of sgd, adam, adamw, bop'),
    (['--dataset=imagenet'], 'dataset must be one of'),
    (['--dataset=cifar10'], 'data_dir'),
    (['--dataset=cifar10', '--data_dir=/nowhere'], '/nowhere'),
    (['--batch_size=5000'], 'batch_size must be at most 1242'),
    (['--validation_examples=5000'], 'validation part of 5000'),
    (['--augmentation=mixup', '--alpha=0'], 'alpha must be > 0'),
    (['--augmentation=mixup', '--alpha=-1'], 'alpha must be > 0'),
    (['--augmentation=mixup,cutmix'], 'one of mixup and cutmix'),
    (['--augmentation=crop,crop'], 'augmentation lists crop twice'),
    (['--warmup=1'], 'warmup must be < 1'),
    (['--warmup=-0.1'], 'warmup must be >= 0'),
    (['--epochs=0'], 'epochs must be > 0'),
    (['--smoothing=1'], 'smoothing must be < 1'),
    (['--average=1'], 'average must be < 1'),
    (['--seeds=0,0'], 'seeds lists 0 twice'),
    (['--half_width=0'], 'half_width must be > 0'),
    (['--optimizer=bop', *PLAIN], 'optimizer=bop needs weights of 1 bit'),
    (['--clip_latent=1', *PLAIN], 'clip_latent needs weights of 1 bit'),
    (['--weights=lsq2', '--optimizer=bop'], 'needs weights of 1 bit; got lsq2'),
    (['--staged=0.5', '--weights=none'], 'staged needs quantized weights and'),
    (['--staged=0.5', '--activations=none'], 'staged needs quantized weights'),
    (['--staged=0.99'], 'every phase needs an update'),
    (['--network=vgg_small'], 'vgg_small has no variant but plain; got bireal'),
    (['--frozen=Conv_77'], "contains 'Conv_77'"),
    (['--frozen=Conv_('], "'Conv_(' is no regular expression"),
    (['--pretrained=/nowhere'], '/nowhere is not a folder with checkpoints'),
    (['--teacher=/nowhere'], '/nowhere is not a folder with checkpoints'),
  ],
)
def test_bad_input(refused, flags, words):
  refused(train_cifar.STUDY, [SMOKE, *flags], words)


def test_checkpoints_of_other_networks(checkpoints, tmp_path, capsys):
  """They are refused even where a run exists, which stays as it is."""
  out = tmp_path / 'run'
  out.mkdir()
  (out / 'config.json').write_text('{"bitjax": "0", "config": {}}')
  for flag in ('pretrained', 'teacher'):
    status = launch(
      SMOKE,
      '--network=resnet8',
      f'--{flag}={checkpoints}',
      f'--out={out}',
      '--overwrite',
    )
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(lines) == 1, lines
    assert 'the checkpoint must be one of this network' in lines[0]
    assert 'float32[8] there, here float32[16]' in lines[0]
  empty = tmp_path / 'empty'
  empty.mkdir()
  status = launch(SMOKE, f'--pretrained={empty}', f'--out={out}', '--overwrite')
  assert status == 2
  assert 'holds no latest checkpoint' in capsys.readouterr().err
  assert not list(empty.iterdir())
  assert [path.name for path in out.iterdir()] == ['config.json']


def test_what_flags_mean(checkpoints, tmp_path, monkeypatch):
  """Phases, a pretrained start, a teacher and all the rest reach the training."""
  seen = {}

  def outcome(phases, *parts, **options):
    seen.update(options, phases=phases, parts=parts)
    raise KeyboardInterrupt

  monkeypatch.setattr(training, 'outcome', outcome)
  out = tmp_path / 'run'
  flags = [
    SMOKE,
    f'--out={out}',
    '--chunk=2',
    '--variant=plain',
    '--weights=lsq2',
    '--activations=pact2',
    '--staged=0.5',
    f'--pretrained={checkpoints}',
    f'--teacher={checkpoints}',
    '--teaching=0.25',
    '--average=0.5',
    '--smoothing=0.1',
    '--frozen=Dense_0,BatchNorm_0',
    '--tensorboard',
  ]
  assert launch(*flags) == 130
  early, late = seen['phases']
  assert (early.until, late.until) == (4, 8)
  assert early.task.model.kernel_quantizer is None
  assert late.task.model.kernel_quantizer is not None
  for task in (early.task, late.task):
    assert task.model.input_quantizer is not None
    assert (task.smoothing, task.average) == (0.1, 0.5)
    assert task.distillation.weight == 0.25
    assert task.distillation.model.kernel_quantizer is None
  wanted = training.load_variables(checkpoints)
  for given in (seen['variables'], late.task.distillation.variables):
    jax.tree.map(np.testing.assert_array_equal, given, wanted)
  assert seen['seeds'] == [0, 1] and seen['batch_size'] == 16
  assert seen['tensorboard'] and seen['mesh'] is None
  assert seen['folder'] == out / 'lanes' / 'train' / '0-0'
  assert [part.split for part in seen['parts']] == [
    'train', 'validation', 'test',
  ]  # fmt: skip
  params = jax.eval_shape(
    lambda: late.task.model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  )['params']
  params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
  updates, _ = late.task.tx.update(params, late.task.tx.init(params), params)
  moved = {
    layer: any(np.any(leaf) for leaf in jax.tree.leaves(updates[layer]))
    for layer in updates
  }
  assert moved == {
    'Conv_0': True, 'BatchNorm_0': False, 'Block_0': True, 'Dense_0': False,
  }  # fmt: skip
