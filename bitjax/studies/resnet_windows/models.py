"""The weights of each seed: initialised, pretrained in full precision, trained in one bit.

A seed means the same random weights and order of examples everywhere. The training in
full precision starts from the initialised weights, and that in one bit, with window 1, from
there: it is the arm of the study that ends with these weights, at the rate that was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any

from bitjax import data
from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.resnet_windows import arms as arms_lib
from bitjax.studies.resnet_windows import estimators
from bitjax.studies.resnet_windows import networks

__all__ = ['STATES', 'TRAINED', 'Models']

TRAINED = 'trained'
STATES = (*arms_lib.STARTS, TRAINED)
_FULL = 'full precision'


class Models:
  """Networks of one kind, and the trainings that make them.

  Args:
    config: of the study.
    train: the training set.
    sweep: the run.
    network: a name in `networks.NETWORKS`.
  """

  def __init__(
    self, config: Any, train: data.Dataset, sweep: sweeps.Sweep, network: str
  ):
    self.config, self.train, self.network = config, train, network
    self._sweep = sweep
    self.phases = functools.cache(self._phases)
    self._trained = functools.cache(self._train)

  def build(self, estimator: str | None, **options: Any) -> Any:
    """Returns the network with an estimator, or in full precision for None.

    Args:
      estimator: a name that `estimators.of` knows, or None.
      **options: further ones of `networks.build`.
    """
    made = None if estimator is None else estimators.of(estimator).make()
    return self.with_estimator(made, **options)

  def with_estimator(self, estimator: Any, **options: Any) -> Any:
    """Returns the network with an estimator of the sign; None for no sign."""
    return networks.build(
      self.network,
      estimator,
      self.train.num_classes,
      activation=self.config.activation,
      **self.config.arithmetic(),
      **options,
    )

  def variables(
    self, state: str, seeds: Sequence[int], rate: float = 1.0
  ) -> list[Any]:
    """Returns the variables of each seed.

    Args:
      state: one of `STATES`.
      seeds: the seeds, tested or not.
      rate: factor on the learning rate of the training in one bit.
    """
    if state == STATES[0]:
      return [self._initial(int(seed)) for seed in seeds]
    if state == TRAINED:
      return self._trained(rate).variables(estimators.ONE, seeds)
    return self._pretrained.variables(_FULL, seeds)

  @functools.cached_property
  def _initial(self):
    model = self.build(None)
    return functools.cache(
      lambda seed: networks.initial(model, self.train, seed)
    )

  def _phases(self, estimator: str | None) -> list[training.Phase]:
    """Returns the phases of a training, the same object for the same estimator."""
    config = self.config
    own = config.recipe()
    if estimator is None:
      own['learning_rate'] *= config.pretraining_rate
      own['clip_latent'] = None
    recipe = training.Recipe(**own, binary=(networks.binary(self.network),))
    return recipe.phases(self.build(estimator), self.train)

  @functools.cached_property
  def _pretrained(self):
    return self._keep(
      {_FULL: self.phases(None)},
      'pretraining',
      lambda label, seeds: self.variables(STATES[0], seeds),
    )

  def _train(self, rate):
    return self._keep(
      {estimators.ONE: self.phases(estimators.ONE)},
      TRAINED,
      lambda label, seeds: self.variables(STATES[1], seeds),
      rate,
    )

  def _keep(self, phases, name, given, rate=1.0):
    config = self.config
    return recipes.keep(
      self._sweep,
      phases,
      self.train,
      name=f'{name}_{self.network}',
      axis='precision',
      seeds=(*config.seeds, *config.tuning_seeds),
      batch_size=config.batch_size,
      given=given,
      rate=rate,
      chunk=config.together,
    )
