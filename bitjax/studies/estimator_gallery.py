r"""What do all staircases and gradient estimators look like?

The figure shows all staircases that `bitjax.quantizers` exports, and its
supplement all estimators, at three values of progress. A random staircase is
shown as one draw, and one with a memory as it comes down from the right.
Verdicts are about gradient masses. It takes 10 s on a CPU:

  bitjax estimator_gallery
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import textwrap
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import cli
from bitjax import evidence
from bitjax import quantizers
from bitjax import sweeps
from bitjax.evidence import plots

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = [
  'PRESETS',
  'STUDY',
  'Config',
  'curve',
  'panels',
  'plot',
  'run',
  'verdicts',
]

# Values for arguments that have no default, or whose default hides what they do.
SIGN = quantizers.sign()
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
  ('clip', {'limit': 0.5}),
  ('clip_quantile', {'quantile': 0.5}),
  ('dspike', {'temperature': 3.0}),
  ('dsq', {'alpha_end': 0.01}),
  ('dsq', {'alpha_end': 0.01, 'step': 'hardtanh'}),
  ('dsq', {'alpha_end': 0.01, 'levels': 4}),
  ('ewgs', {'delta': 0.5}),
  ('hysteretic_sign', {'margin': 0.5}),
  ('hysteretic_uniform', {'bits': 2, 'step': 1.0}),
  ('parq', {}),
  ('parq', {'levels': 4}),
  ('progressive_hardtanh', {'end': 0.05}),
  ('proximal', {'staircase': SIGN, 'end': 20.0}),
  ('proximal', {'staircase': SIGN, 'end': 1.0, 'distance': 'l1', 'start': 0.1}),
  ('relative', {'estimator': quantizers.gaussian(0.25)}),
  ('residual_sign', {'bits': 2}),
  ('shifted_sign', {'threshold': 0.5}),
  ('ternary', {'threshold': 0.5}),
  ('uniform', {'bits': 2, 'step': 1.0}),
)
CLAIM = 'On [-3, 3] its gradient mass is that of the sign, 2.'
# Value of progress -> colour of its curve.
COLORS = {0.0: plots.ORANGE, 0.5: plots.BLUE, 1.0: 'black'}
LINES: tuple[Any, ...] = (':', '--', '-')  # Their line styles.


@dataclasses.dataclass(frozen=True)
class Config:
  """Configuration of the study; each field is one flag."""

  points: int = cli.flag(
    2401, 'Points on the x axis.', minimum=3, maximum=100_000
  )

  def __post_init__(self):
    cli.check(self)


PRESETS = {'smoke': {'points': 61}, 'quick': {}}


def panels() -> list[tuple[bool, str, Any]]:
  """Returns all panels, staircases first, as (is an estimator, title, callable)."""
  found = []
  for name in quantizers.__all__:
    if name == 'named':  # It makes what others write.
      continue
    make = getattr(quantizers, name)
    kind = getattr(make, '__annotations__', {}).get('return', '').split('.')[-1]
    if kind in ('Staircase', 'Grid', 'Annealed', 'Estimator'):
      for given in [given for n, given in SETTINGS if n == name] or [{}]:
        shown = [f'{k}={v}' for k, v in given.items() if not callable(v)]
        shown += ['against g'] if name.startswith('clip') else []
        title = '\n'.join([name, ', '.join(shown)]).strip()
        found.append((kind == 'Estimator', title, make(**given)))
  return sorted(found, key=lambda panel: panel[0])


def curve(estimator, title, subject, x, progress):
  """Returns a staircase's values at x, or the gradient that an estimator passes there.

  The incoming gradient is 1; for a title with 'against g', it is x.
  """
  if estimator:
    kernel = x[:, None]  # One unit, whose inputs are the points x.
    quantize = quantizers.attach(SIGN, subject)
    _, pull_back = jax.vjp(lambda x: quantize(x, progress=progress), kernel)
    g = kernel if 'against g' in title else jnp.ones_like(kernel)
    return pull_back(g)[0][:, 0]
  quantize = quantizers.attach(subject, quantizers.identity())
  takes = inspect.signature(subject).parameters
  given = {'key': jax.random.key(0)} if 'key' in takes else {}
  if 'state' in takes:
    given['state'] = jnp.full_like(x, subject.initial(x).max())
  return quantize(x, progress=progress, **given)


def run(config: Config, sweep: sweeps.Sweep) -> xarray.Dataset:
  """Evaluates every panel at every progress, in one program."""
  import xarray

  del sweep  # Nothing here is worth resuming.
  drawn = panels()
  x = jnp.linspace(-3, 3, config.points)
  lines = [jax.vmap(functools.partial(curve, *panel, x)) for panel in drawn]
  curves = jax.jit(lambda progress: [line(progress) for line in lines])
  values = np.stack(curves(jnp.array(list(COLORS))))
  dims = ('panel', 'progress', 'x')
  titles = [title for _, title, _ in drawn]
  axes = dict(zip(dims, (titles, list(COLORS), np.asarray(x)), strict=True))
  kinds = ('panel', [estimator for estimator, _, _ in drawn])
  return xarray.Dataset({'value': (dims, values)}, axes | {'estimator': kinds})


def verdicts(results: xarray.Dataset) -> list[evidence.Verdict]:
  """Judges whether an estimator's gradient mass at progress 1 is that of the sign."""
  found = []
  for last in results['value'].isel(progress=-1):
    name = ' '.join(last.panel.item().split())
    mass = float(np.trapezoid(last, results.x))
    same = 'supported' if abs(mass - 2) < 0.02 else 'contradicted'
    limits = (mass, -np.inf, np.inf, 'mass', 0, 'trapezoidal rule')
    if last.estimator and 'against g' not in name:
      found.append(evidence.Verdict(name, CLAIM, same, *limits))
  return found


def plot(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws a panel for each staircase and, in the supplement, for each estimator."""
  is_estimator = results.estimator.values
  return {
    'figure': _sheet(results['value'][~is_estimator], 'q(x)', 'x'),
    'figure_supplement': _sheet(
      results['value'][is_estimator],
      'gradient that passes',
      'x (clips: the incoming gradient g)',
    ),
  }


def _sheet(values, vertical, horizontal):
  """Draws panels, four in a row; colours stand for values of progress."""
  from matplotlib import pyplot

  dots = {'linestyle': 'none', 'marker': '.', 'markersize': 2, 'markevery': 12}
  rows = -(-values.panel.size // 4)
  fig, axes = pyplot.subplots(
    rows, 4, figsize=(6.75, 0.8 + 1.3 * rows), sharex=True, squeeze=False
  )
  for ax, panel in zip(axes.flat, values, strict=False):
    ax.axhline(0, color=plots.LIGHT_GREY, linewidth=0.6)
    name = panel.panel.item()
    form = dots if name.startswith('stochastic') else {'linewidth': 1.2}
    lines = list(zip(panel, COLORS.values(), LINES, strict=True))
    for line, color, dashes in (
      lines[-1:] if (panel == panel[0]).all() else lines
    ):
      ax.plot(panel.x, line, color=color, **{'linestyle': dashes, **form})
    lines = [textwrap.fill(line, 28) for line in name.splitlines()]
    ax.set_title('\n'.join(lines), fontsize=7)
    ax.tick_params(labelsize=7)
  for ax in axes.flat[values.panel.size :]:
    ax.set_axis_off()
  fig.supylabel(vertical, fontsize=8)
  fig.supxlabel(horizontal, fontsize=8)
  shown = [
    pyplot.Line2D([], [], color=color, linestyle=dashes)
    for color, dashes in zip(COLORS.values(), LINES, strict=True)
  ]
  names = [f'progress {progress:g}' for progress in COLORS]
  fig.legend(shown, names, loc='outside upper center', ncols=3)
  return fig


STUDY = cli.Study(
  'estimator_gallery', __doc__, Config, PRESETS, run, verdicts, plot
)
