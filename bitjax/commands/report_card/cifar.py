"""Networks that an estimator trains on small images of CIFAR-10, in little time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax import sweeps
from bitjax import training
from bitjax.commands.report_card import config as config_lib
from bitjax.commands.report_card import names
from bitjax.studies import recipes

if TYPE_CHECKING:
  import xarray

__all__ = ['settings', 'train']


def settings(config: config_lib.Config) -> recipes.TunedConfig:
  """Returns how networks are trained, of which the data can be loaded."""
  return recipes.TunedConfig(
    **recipes.SMALL_CIFAR | {'train_examples': config.cifar_examples},
    data_dir=config.data_dir,
    epochs=config.cifar_epochs,
    seeds=config.cifar_seeds,
    rates=config.cifar_rates,
    tuning_seeds=config.tuning_seeds[:2],
    precision=config.precision,
    dtype=config.dtype,
  )


def train(
  config: config_lib.Config,
  parts: recipes.Parts,
  sweep: sweeps.Sweep,
  text: str,
) -> xarray.Dataset:
  """Trains a network of 1-bit weights and activations, at the rate chosen on tuning seeds.

  Args:
    config: the flags.
    parts: the data, as `settings` loads them.
    sweep: runs the sweeps.
    text: the name of the activations' estimator.

  Returns:
    ``cifar_test_accuracy`` by seed, and ``cifar_rate``, the chosen factor.
  """
  chosen = settings(config)
  model = recipes.build(
    config.cifar_network,
    'bireal',
    'sign',
    names.canonical(text),
    num_classes=parts.train.num_classes,
    init_name='kaiming_normal',
    **chosen.arithmetic(),
  )
  network = recipes.NETWORKS[config.cifar_network]
  recipe = training.Recipe(**chosen.recipe(), binary=(network.binary,))
  phases = recipe.phases(model, parts.train)

  def fit(parts, *, network, rate, seed, **options):
    del network
    found = training.outcome(
      phases,
      *parts,
      batch_size=chosen.batch_size,
      seeds=seed.tolist(),
      rates=rate.tolist(),
      **options,
    )
    return {
      'test_accuracy': found['test_accuracy'],
      'validation_loss': found['validation_loss'][:, -1],
    }

  found = recipes.tuned(
    chosen,
    sweep,
    fit,
    parts,
    static={'network': (config.cifar_network,)},
    dims={},
    coords={},
  )
  found = found.isel(network=0, drop=True).rename(seed='cifar_seed')
  return found[['test_accuracy', 'chosen_rate']].rename(
    test_accuracy='cifar_test_accuracy', chosen_rate='cifar_rate'
  )
