"""The flags --precision and --dtype reach every network of trainings and toy studies."""

import jax
import numpy as np
import pytest

from bitjax import cli
from bitjax import studies
from bitjax import sums
from bitjax import sweeps
from bitjax import types
from bitjax.studies import recipes
from bitjax.studies import toy
from bitjax.studies.dsq import study as dsq

OPTIONS = {'precision': 'default', 'dtype': 'bfloat16'}


def options_of(model):
  return {name: getattr(model, name) for name in OPTIONS}


@pytest.fixture(scope='module')
def problems():
  config = toy.Config(
    dataset='digits', batch_size=(16,), hidden=(8,), seeds=(0,), **OPTIONS
  )
  return config.open(sweeps.Sweep())


@pytest.mark.parametrize('network', toy.NETWORKS)
def test_toy_networks(problems, network):
  assert options_of(problems.model(network)) == OPTIONS


def test_trainings():
  config = recipes.NetworkConfig(weights='sign', activations='sign', **OPTIONS)
  models = [config.full_precision(10), *(m for _, m in config.stages(10))]
  models.append(dsq.Config(**OPTIONS).arithmetic())
  for model in models[:-1]:
    assert options_of(model) == OPTIONS
  assert models[-1] == OPTIONS
  assert not OPTIONS.keys() & config.recipe().keys()


@pytest.mark.parametrize(
  'name',
  [
    *('multistep_ste', 'discrete_optimum', 'train_cifar', 'dsq'),
    'discrete_optimisers',
    'pretrain_vs_scratch',
    'bits_vs_width',
    'fitted_windows',
    'hardware',
    'super_resolution',
    'train_superres',
    'initialisation',
    'resnet_windows',
  ],
)
@pytest.mark.parametrize('flag', ['--precision=fast', '--dtype=float16'])
def test_bad_flags_are_one_line(refused, name, flag):
  option = flag[2:].partition('=')[0]
  refused(studies.load(name), [flag], f'{option} must be one of')


def test_they_are_recorded_with_the_run():
  for config in (toy.Config, recipes.TrainConfig):
    recorded = cli.encode(config(**OPTIONS))
    assert {name: recorded[name] for name in OPTIONS} == OPTIONS
    defaults = cli.encode(config())
    assert [defaults[name] for name in OPTIONS] == ['highest', 'float32']


def test_a_device_that_is_not_exact_is_refused_before_anything_is_recorded(
  monkeypatch,
):
  def wrong(arithmetic, *_):
    return 3 if arithmetic.precision == 'default' else 0

  monkeypatch.setattr(sums, '_wrong', wrong)
  sweep = sweeps.Sweep()
  shared = {'dataset': 'digits', 'batch_size': (16,), 'hidden': (8,)}
  with pytest.raises(types.BadInput, match='3 sums of a product'):
    toy.Config(**shared, precision='default').open(sweep)
  assert not sweep.records
  toy.Config(**shared, precision='high').open(sweep)
  assert sweep.records


@pytest.mark.optimised
def test_a_binary_problem_has_the_same_losses_in_bfloat16(problems):
  """The same draws, images of bytes, and to the bit."""
  exact = toy.Config(
    dataset='digits', batch_size=(16,), hidden=(8,), seeds=(0,)
  ).open(sweeps.Sweep())
  rounded, wanted = jax.jit(
    lambda problems: [p.losses(p.kernel) for p in problems]
  )([p.pose('binary', 0, p.arrays) for p in (problems, exact)])
  for name, loss in wanted.items():
    np.testing.assert_array_equal(rounded[name], loss)
