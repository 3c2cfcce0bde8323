"""The study's figure: the note's curve, (L1 - Lm) / L1, in panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import plots
from bitjax.studies.multistep_ste.arms import losses

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['against_noise', 'against_steps', 'page']

_COLORS = {
  'full_precision': plots.RED,
  'binary': plots.BLUE,
  'binary_weights': plots.TEAL,
}


def page(results: xarray.Dataset) -> figure.Figure:
  """Draws the note's curve against noise and steps, on A and on B."""
  from matplotlib import pyplot

  fig, axes = pyplot.subplots(
    2, 2, figsize=(6.75, 5.2), sharex='col', sharey='col'
  )
  for row, batch, name in zip(axes, ('search', 'holdout'), 'AB', strict=True):
    against_noise(row[0], results, batch)
    against_steps(row[1], results, batch)
    row[0].set_ylabel(f'$(L_1 - L_m) / L_1$ on {name}')
    for ax in row:
      ax.axhline(0, color='black', linewidth=0.8)
  for ax in axes[0]:
    ax.set_xlabel('')
  axes[0, 0].set_title('best of all steps and learning rates')
  axes[0, 1].set_title('best learning rate for each number of steps')
  lines = axes[0, 1].get_legend_handles_labels()
  fig.legend(*lines, loc='outside lower center', ncols=2, handlelength=3)
  return fig


def against_noise(
  ax: axes_lib.Axes, results: xarray.Dataset, batch: str
) -> None:
  """Draws the curve against the noise amplitude, with the best of all steps.

  Args:
    ax: where to draw.
    results: with arms ``single`` and ``multi``.
    batch: where losses are read, ``'search'`` for A, ``'holdout'`` for B; settings are
      chosen on A.
  """
  for network, optimizer, style in _lines(results):
    curve = _curve(results, network, optimizer, batch)
    samples = curve.transpose('noise', 'seed', 'draw')
    plots.band(ax, results.noise, samples, marker='o', **style)
  ax.set_xlabel('noise amplitude / budget')


def against_steps(
  ax: axes_lib.Axes, results: xarray.Dataset, batch: str
) -> None:
  """Draws the curve against the number of steps, without noise.

  Thin lines show Adam at each learning rate: the spread that makes it hard to
  tune.

  Args:
    ax: where to draw.
    results: with arms ``single`` and ``multi``.
    batch: where losses are read, ``'search'`` for A, ``'holdout'`` for B; settings are
      chosen on A.
  """
  from matplotlib import ticker

  taken = {'step': slice(1, None), 'noise': 0}
  for network, optimizer, style in _lines(results):
    curve = _curve(results, network, optimizer, batch, keep=('step',))
    samples = curve.isel(taken).transpose('step', 'seed', 'draw')
    plots.band(ax, samples.step, samples, marker='o', **style)
    if optimizer == 'adam':
      keep = ('step', 'step_size')
      each = _curve(results, network, optimizer, batch, keep=keep)
      each = each.isel(taken).mean(('seed', 'draw'))
      thin = {'color': style['color'], 'linewidth': 0.5, 'linestyle': ':'}
      lines = ax.plot(each.step, each.transpose('step', 'step_size'), **thin)
      lines[0].set_label(f'{style["label"]}, each rate')
  ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  ax.set_xlabel('number of steps, without noise')


def _lines(results):
  """Yields every network and optimiser, with a colour and a line style for them."""
  for network in results.network.values.tolist():
    styles = zip(
      plots.LINE_STYLES, results.optimizer.values.tolist(), strict=False
    )
    for style, optimizer in styles:
      name = {'sgd': 'SGD', 'sgdm': 'SGDm', 'adam': 'Adam'}[optimizer]
      yield (
        network,
        optimizer,
        {
          'color': _COLORS[network],
          'linestyle': style,
          'label': f'{network.replace("_", " ")}, {name}',
        },
      )


def _curve(results, network, optimizer, batch, keep=()):
  options = {'protocol': 'oracle', 'batch': batch, 'network': network}
  size = results.batch_size.max().item()
  single = losses(results, 'single', batch_size=size, **options)
  several = losses(results, 'multi', optimizer=optimizer, keep=keep, **options)
  return (single - several) / single
