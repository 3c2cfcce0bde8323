r"""Every staircase and every gradient estimator, drawn.

What the forward pass does and what the backward pass pretends, for all that
`bitjax.quantizers` exports, with default arguments unless `SETTINGS` says others;
what anneals at several values of progress, random staircases as a mean of 512.
The verdicts compare each gradient mass with the height of the sign's step, 2:
estimators of unequal mass differ in learning rate as well as in shape.

  python -m experiments.estimator_gallery

Takes ten seconds on two CPU cores.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax import studies

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

# Arguments that show what a default hides, and those without a default.
SIGN = quantizers.sign()
SETTINGS: dict[str, list[dict[str, Any]]] = {
  'clip': [{'limit': 0.5}],
  'clip_quantile': [{'quantile': 0.5}],
  'dspike': [{'temperature': 3.0}],
  'dsq': [
    {'alpha': 0.5, 'alpha_end': 0.02},
    {'alpha': 0.5, 'alpha_end': 0.02, 'step': 'hardtanh'},
    {'alpha': 0.5, 'alpha_end': 0.02, 'levels': 4},
  ],
  'ewgs': [{'delta': 0.5}],
  'parq': [{}, {'levels': 4}],
  'progressive_hardtanh': [{'end': 0.05}],
  'proximal': [
    {'staircase': SIGN, 'end': 20.0},
    {'staircase': SIGN, 'start': 0.1, 'end': 1.0, 'distance': 'l1'},
  ],
}
OF_GRADIENTS = ('clip', 'clip_quantile')  # Drawn against g, not x.
COLORS = ('#EE7733', '#0077BB', '#000000')  # By progress.


@dataclasses.dataclass(frozen=True)
class Config:
  """One field is one flag."""

  points: int = studies.flag(2401, 'Places on the x axis.', minimum=3)
  progress: tuple[float, ...] = studies.flag(
    (0.0, 0.5, 1.0), 'Up to three values of progress.', minimum=0, maximum=1
  )


PRESETS = {'smoke': {'points': 61, 'progress': (0.0, 1.0)}, 'quick': {}}


def exported(*kinds: str) -> dict[str, Any]:
  """What has one of the kinds, by the title of its panel."""
  found = {}
  for name in quantizers.__all__:
    make = getattr(quantizers, name)
    returned = getattr(make, '__annotations__', {}).get('return', '')
    if inspect.isfunction(make) and returned.split('.')[-1] in kinds:
      for given in SETTINGS.get(name, [{}]):
        shown = [f'{k}={v}' for k, v in given.items() if not callable(v)]
        found['\n'.join([name, ', '.join(shown)]).strip()] = make(**given)
  return found


def forward(name, staircase, x, progress):
  """What a staircase makes of x."""
  del name
  quantize = quantizers.attach(staircase, quantizers.identity())
  if 'key' not in inspect.signature(staircase).parameters:
    return quantize(x, progress=progress)
  keys = jax.random.split(jax.random.key(0), 512)
  drawn = jax.vmap(lambda key: quantize(x, progress=progress, key=key))(keys)
  return jnp.mean(drawn, axis=0)


def backward(name, estimator, x, progress):
  """What an estimator answers to a gradient of 1, or of x."""
  kernel = x[:, None]  # One unit, whose inputs are the places.
  g = kernel if name.split()[0] in OF_GRADIENTS else jnp.ones_like(kernel)
  quantize = quantizers.attach(SIGN, estimator)
  return jax.vjp(lambda x: quantize(x, progress=progress), kernel)[1](g)[0][
    :, 0
  ]


@functools.partial(jax.jit, static_argnums=0)
def curves(function, subjects, x, progress):
  """[subjects, points], all in one program."""
  return jnp.stack([function(*item, x, progress) for item in subjects.items()])


def run(config: Config, sweep: studies.Sweep) -> xarray.Dataset:
  """Evaluates every panel at every progress."""
  import xarray

  del sweep  # Nothing here is worth resuming.
  x = jnp.linspace(-3, 3, config.points)
  names, values = {}, {}
  for kind, function, subjects in (
    ('staircase', forward, exported('Staircase', 'Annealed')),
    ('estimator', backward, exported('Estimator')),
  ):
    found = [curves(function, subjects, x, p) for p in config.progress]
    values[kind + 's'] = ((kind, 'progress', 'x'), np.stack(found, axis=1))
    names[kind] = list(subjects)
  axes = {'progress': list(config.progress), 'x': np.asarray(x)}
  return xarray.Dataset(values, coords=names | axes)


def verdicts(results: xarray.Dataset) -> list[studies.Verdict]:
  """Says whose gradient mass is the sign's step, at the last progress."""
  found = []
  for curve in results['estimators'].isel(progress=-1):
    name = ' '.join(curve.estimator.item().split())
    mass = float(np.trapezoid(curve, results.x))
    same = 'supported' if abs(mass / 2 - 1) < 0.01 else 'contradicted'
    claim = 'On [-3, 3] its gradient mass is that of the sign, 2.'
    limits = (mass, -np.inf, np.inf, 'mass', 0, 'trapezoidal rule')
    if name.split()[0] not in OF_GRADIENTS:
      found.append(studies.Verdict(name, claim, same, *limits))
  return found


def plot(results: xarray.Dataset) -> figure.Figure:
  """One panel for each, staircases first; colours are values of progress."""
  from matplotlib import pyplot

  panels = dict(
    zip(results.staircase.values, results['staircases'], strict=True)
  )
  panels |= zip(results.estimator.values, results['estimators'], strict=True)
  rows = -(-len(panels) // 4)
  fig, axes = pyplot.subplots(rows, 4, figsize=(7.5, 1.4 * rows), sharex=True)
  for ax in axes.flat[len(panels) :]:
    ax.set_axis_off()
  for ax, (name, panel) in zip(axes.flat, panels.items(), strict=False):
    fixed = bool((panel == panel[0]).all())
    lines = list(zip(panel, COLORS, strict=False))
    for line, color in lines[-1:] if fixed else lines:
      label = f'progress {line.progress.item():g}'
      ax.plot(results.x, line, color=color, linewidth=1.2, label=label)
    ax.set_title(name, fontsize=7)
    ax.set_ylabel('gradient' if 'estimator' in panel.coords else 'q(x)')
  return fig


if __name__ == '__main__':
  studies.main(Config, PRESETS, run, verdicts, plot)
