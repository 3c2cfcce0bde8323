"""A study: one question, and everything that is needed to answer it again.

Whoever writes a study defines a configuration, presets and three functions, and
binds them together as one value. `cli.main` makes a command of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

  from bitjax.evidence import verdicts as verdicts_lib
  from bitjax.sweeps import sweep as sweep_lib

__all__ = ['Study']

Config = TypeVar('Config')


@dataclasses.dataclass(frozen=True)
class Study(Generic[Config]):
  """One question, with everything that is needed to answer it again.

  Attributes:
    name: name of the study; runs are kept in ``runs/<name>/<preset>`` by default.
    doc: what is asked, which contrast is the primary one, and how long it takes;
      ``--help`` prints it.
    config: class of the configuration, a frozen dataclass whose fields are declared
      with `cli.flag`.
    presets: preset -> the fields that it sets; the default is ``'quick'``, or the
      first preset if there is no ``'quick'``.
    run: (configuration, sweep) -> labelled results.
    verdicts: results -> verdicts.
    plot: results -> figure; or ``{'figure': ..., 'figure_supplement': ...}``, where
      the first shows the answer and the second all else.
  """

  name: str
  doc: str
  config: type[Config]
  presets: Mapping[str, Mapping[str, Any]]
  run: Callable[[Config, sweep_lib.Sweep], xarray.Dataset]
  verdicts: Callable[[xarray.Dataset], Iterable[verdicts_lib.Verdict]]
  plot: Callable[[xarray.Dataset], figure.Figure | Mapping[str, figure.Figure]]

  @property
  def default_preset(self) -> str | None:
    """The preset used if a command names none; None if there are no presets."""
    return (
      'quick' if 'quick' in self.presets else next(iter(self.presets), None)
    )
