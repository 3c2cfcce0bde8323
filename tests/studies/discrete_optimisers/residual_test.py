"""The study on a ResNet as small as it can be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import sweeps
from bitjax import types
from bitjax.evidence import plots
from bitjax.studies.discrete_optimisers import arms
from bitjax.studies.discrete_optimisers import figure
from bitjax.studies.discrete_optimisers import findings
from bitjax.studies.discrete_optimisers import methods
from bitjax.studies.discrete_optimisers import networks
from bitjax.studies.discrete_optimisers import residual
from bitjax.studies.discrete_optimisers import study

pytestmark = pytest.mark.study

TINY = {
  'dataset': 'digits', 'network': 'resnet4', 'side': 4, 'batch_size': (16,),
  'seeds': (0, 1, 2), 'tuning_seeds': (9,), 'train_steps': 4, 'updates': 8,
}  # fmt: skip
CONFIG = study.Config(**study.PRESETS['resnet'] | TINY)


def opened():
  dataset = CONFIG.reduced(CONFIG.open(sweeps.Sweep()).dataset)
  return networks.opened(CONFIG, dataset)[0]


def test_its_loss_is_that_of_the_network_and_its_signs_are_all_that_moves():
  own = opened()
  weights = jax.jit(own.checkpoint)(1, own.arrays)
  posed, _ = jax.jit(lambda s, w, a: own.pose(0, s, w, a))(
    1, weights, own.arrays
  )
  assert own.network.signs == posed.kernel.size == 2 * 9 * 8 * 8
  variables, batches, _ = own._drawn(1, own.arrays)
  _, restored = jax.flatten_util.ravel_pytree(variables)
  trained = restored(weights)
  for batch, name in zip(batches, ('search', 'holdout'), strict=True):
    logits = own.model.apply(trained, own._seen(batch.inputs), train=False)
    picked = jax.nn.log_softmax(logits)[jnp.arange(16), batch.labels]
    loss = posed.losses(posed.kernel)[name]
    np.testing.assert_allclose(loss, -picked.mean(), rtol=1e-5)
  # A and B share no image, and training moved the statistics and the weights.
  a, b = ({x.tobytes() for x in np.asarray(part.inputs)} for part in batches)
  assert not a & b
  for part in ('params', 'batch_stats'):
    before, after = (
      np.concatenate([np.ravel(x) for x in jax.tree.leaves(v[part])])
      for v in (variables, trained)
    )
    assert (before != after).any()


@pytest.mark.slow
def test_all_of_the_preset_runs_and_is_judged_and_drawn(complaints):
  results = arms.compare(CONFIG.open(sweeps.Sweep()), sweeps.Sweep())
  assert results.arm.values.tolist() == list(methods.FEW)
  assert results.start.values.tolist() == ['checkpoint']
  for name in ('search', 'holdout', 'moved', 'random_holdout'):
    assert np.isfinite(results[name]).all()
  own = opened()
  weights = jax.jit(own.checkpoint)(1, own.arrays)
  posed, _ = jax.jit(lambda s, w, a: own.pose(0, s, w, a))(
    1, weights, own.arrays
  )
  at = results.sel(seed=1, effort=0, signs=own.network.signs)
  for name, loss in posed.losses(posed.kernel).items():
    np.testing.assert_allclose(at[name], loss, rtol=1e-4)
  found = list(findings.judge(results))
  assert found[0].primary and found[0].finding == 'N16 ADMM'
  assert found[0].claim.startswith('1152 signs')
  labels = {one.finding for one in found}
  assert {'N16 flips, then STE, both', 'N16 genetic against STE, B'} <= labels
  with plots.style():
    for fig in figure.page(results).values():
      assert complaints(fig) == []


def test_bad_input():
  with pytest.raises(types.BadInput, match='methods must be few for a ResNet'):
    dataclasses.replace(CONFIG, methods='all')


def test_the_preset_has_the_size_it_says():
  config = study.Config(**study.PRESETS['resnet'])
  images = np.zeros((1, 16, 16, 3), np.uint8)
  shapes = dataclasses.replace(
    opened().dataset, images=images, labels=np.zeros(1, np.int32)
  )
  wanted = 9 * (8 * 8 * 2 + 8 * 16 + 16 * 16 + 16 * 32 + 32 * 32)
  assert residual.num_signs(config, shapes) == wanted
  assert config.updates * 128 == 10 * 4096  # Ten epochs.
