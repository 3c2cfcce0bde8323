"""Trains in two stages: rates are tuned on seeds of their own, then others are tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bitjax import cli
from bitjax import sweeps
from bitjax import types
from bitjax.evidence import protocols
from bitjax.studies.recipes import config as config_lib

if TYPE_CHECKING:
  import xarray

__all__ = ['Pretrained', 'Tuned', 'TunedConfig', 'chosen', 'settings', 'tuned']


@dataclasses.dataclass(frozen=True)
class Tuned:
  """The flags of studies that tune the rate of each arm on seeds of its own."""

  rates: tuple[float, ...] = cli.flag(
    (0.3, 1.0, 3.0),
    'Factors on the learning rate, to choose from.',
    minimum=config_lib.FACTORS[0],
    maximum=config_lib.FACTORS[1],
    unique=True,
  )
  tuning_seeds: tuple[int, ...] = cli.flag(
    (1000, 1001, 1002, 1003),
    'Seeds whose validation loss chooses the rate of each arm; never tested.',
    minimum=0,
    unique=True,
  )

  def check_seeds(self, seeds: Sequence[int]) -> None:
    """Raises `BadInput` if a seed that tunes is tested too."""
    if both := sorted(set(seeds) & set(self.tuning_seeds)):
      raise types.BadInput(
        f'seeds and tuning_seeds must have no seed in common; both list {both[0]}.'
      )


@dataclasses.dataclass(frozen=True)
class TunedConfig(Tuned, config_lib.TrainConfig):
  """The flags of a training whose rate is tuned on seeds of its own."""

  def __post_init__(self):
    super().__post_init__()
    self.check_seeds(self.seeds)

  def side_by_side(self, network: str) -> tuple[str | None, int | None]:
    """Returns how networks are trained together, and how many at most; None: as usual.

    Small networks (``'mlp'``) share a program on any device, for all seeds at once, or all
    rates of those that tune; larger ones run as `training.fit` likes.
    """
    if network != 'mlp':
      return None, None
    tuned = len(self.tuning_seeds)
    return 'vmap', max(len(self.seeds) + tuned, len(self.rates) * tuned)


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """The flag of studies that train in full precision first."""

  pretraining_rate: float = cli.flag(
    1.0,
    'Factor on the learning rate of the training in full precision.',
    minimum=config_lib.FACTORS[0],
    maximum=config_lib.FACTORS[1],
  )


# Natural images, few and small, so that two cores train many seeds in hours.
SMALL_CIFAR: dict[str, Any] = {
  'dataset': 'cifar10',
  'image_size': 16,
  'train_examples': 10_000,
  'validation_examples': 2000,
  'batch_size': 64,
  'optimizer': 'adam',
  'learning_rate': 4e-3,
}


class _Tunes(Protocol):
  """What says which seeds are tested, which tune, and what they choose from."""

  @property
  def seeds(self) -> Sequence[int]: ...
  @property
  def tuning_seeds(self) -> Sequence[int]: ...
  @property
  def rates(self) -> Sequence[float]: ...


def tuned(
  config: _Tunes,
  sweep: sweeps.Sweep,
  train: Callable[..., dict[str, Any]],
  parts: Any,
  *,
  static: Mapping[str, Sequence[Any]],
  dims: Mapping[str, Sequence[str]],
  coords: Mapping[str, Any],
  by: str = 'validation_loss',
  chunk: int | None = None,
  choices: Mapping[str, Sequence[Any]] | None = None,
) -> xarray.Dataset:
  """Trains every arm: first its tuning seeds at all settings, then its seeds at the best.

  The sweep of tuning seeds is called ``tuning``, that of tested ones ``trainings``.

  Args:
    config: its ``seeds`` are tested; its ``tuning_seeds`` choose among its ``rates``,
      factors on the learning rate.
    sweep: the run.
    train: ``train(parts, *, rate, seed, folder, report, mesh, **static, **choices)``
      returns what `training.outcome` does, or a part of it, with the ``validation_loss``,
      which is all that is kept of tuning seeds.
    parts: the data, a named tuple. What tunes sees no test image: its ``test`` part are the
      validation images once more.
    static: axes of the arms.
    dims: names of each output's further axes.
    coords: labels along those axes.
    by: the output that chooses the rate, a loss; its last epoch if it has epochs.
    chunk: networks that ``train`` gets at a time, as in `sweeps.Sweep.hosted`.
    choices: further axes to choose from with the rate, of which ``train`` gets one value;
      None for none.

  Returns:
    What is measured over (static, seed, ...), at the ``chosen_rate`` (and ``chosen_`` and
    what ``choices`` names); and the loss that chose it for the tuning seeds,
    ``tuning_validation_loss`` (or ``tuning_`` and what ``by`` names) over (static,
    choices, rate, tuning_seed). The attribute ``test_examples`` is their number.

  Raises:
    BadInput: if some networks were trained at a setting that is not chosen any more.
  """
  choices = choices or {}
  axes: dict[str, Any] = {
    'dims': dims,
    'coords': coords,
    'chunk': chunk,
  }
  untested = parts._replace(test=parts.validation)

  def tune(**options):
    return {by: train(untested, **options)[by]}

  tuning = sweep.hosted(
    tune,
    name='tuning',
    static={**static, **choices},
    lanes={'rate': config.rates, 'seed': config.tuning_seeds},
    **axes | {'dims': {n: own for n, own in dims.items() if n == by}},
  )
  losses = tuning[by]
  if 'epoch' in losses.dims:
    losses = losses.isel(epoch=-1, drop=True)
  losses = losses.rename(seed='tuning_seed')
  best = settings(losses, ['rate', *choices])

  def test(*, seed, **options):
    at = {axis: options[axis] for axis in static}
    own = {axis: value.sel(at).item() for axis, value in best.items()}
    rate = np.full(seed.shape, own.pop('rate'))
    found = train(parts, rate=rate, seed=seed, **options, **own)
    own = {axis: np.full(seed.shape, value) for axis, value in own.items()}
    return found | {f'chosen_{a}': v for a, v in {'rate': rate, **own}.items()}

  found = sweep.hosted(
    test,
    name='trainings',
    static=static,
    lanes={'seed': config.seeds},
    **axes,
  )
  for axis, value in best.items():
    if bool((found[f'chosen_{axis}'] != value).any()):
      raise types.BadInput(
        f'some networks were trained at a {axis} other than the one that is chosen now, '
        f'since {axis}s were tuned again and it came out differently; use --overwrite.'
      )
  found = found.assign({f'tuning_{by}': losses})
  return found.assign_attrs(test_examples=len(parts.test))


def chosen(losses: xarray.DataArray) -> xarray.DataArray:
  """Returns the rate with the lowest mean validation loss, by arm.

  Args:
    losses: validation losses of the tuning seeds, (arms, rate, tuning_seed).
  """
  return settings(losses, ['rate'])['rate']


def settings(
  losses: xarray.DataArray, over: Sequence[str]
) -> dict[str, xarray.DataArray]:
  """Returns the setting with the lowest mean validation loss, by arm.

  Args:
    losses: validation losses of the tuning seeds, (arms, over, tuning_seed).
    over: the axes that span the settings.

  Returns:
    For each of these axes its label at the best setting, (arms).
  """
  outcomes = losses.to_dataset(name='tuning_holdout')
  best = protocols.select(outcomes, over, 'deployable')
  return {axis: best[axis] for axis in over}
