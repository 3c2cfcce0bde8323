"""The study's figures: what several steps gain, and the note's curve, (L1 - Lm) / L1.

The figure shows the primary contrast, and the curves of SGD with and without momentum.
Adam loses by ten times what they gain, so its curves are in the supplement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.evidence import protocols
from bitjax.studies.multistep_ste import findings
from bitjax.studies.multistep_ste.choices import losses
from bitjax.studies.toy import labels

if TYPE_CHECKING:
  from matplotlib import axes as axes_lib
  from matplotlib import figure
  import xarray

__all__ = ['against_noise', 'against_steps', 'gains', 'page']

_COLORS = {
  'full_precision': plots.RED,
  'binary': plots.BLUE,
  'binary_weights': plots.TEAL,
}
_MARKERS = {'full_precision': 's', 'binary': 'o', 'binary_weights': '^'}
_BATCHES = {'search': 'A', 'holdout': 'B'}
_SETTINGS = {
  'deployable': 'setting tuned on other seeds',
  'oracle': 'setting chosen on A',
}


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws the gains and the note's curves; a supplement adds Adam, if it was run."""
  from matplotlib import pyplot

  optimizers = results.optimizer.values.tolist()
  # The first optimiser is that of the primary contrast, whichever it is.
  shown = [
    name for name in optimizers if name != 'adam' or name == optimizers[0]
  ]
  rows = _rows(results)
  heights = [1.25 + 0.19 * len(rows), 4.0]
  fig = pyplot.figure(figsize=(6.75, sum(heights)))
  top, bottom = fig.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
  gains(top.subplots(), results)
  _curves(bottom, results, shown)
  drawn = {'figure': fig}
  if shown != optimizers:
    drawn['figure_supplement'] = pyplot.figure(figsize=(6.75, 5.2))
    _curves(drawn['figure_supplement'], results, optimizers)
  return drawn


def gains(ax: axes_lib.Axes, results: xarray.Dataset) -> None:
  """Draws log(L1 / Lm) of the first optimiser without noise, with its intervals.

  A row stands for a network, the batch on which losses are read, and how the setting
  was chosen; that of the primary contrast, if it was run, is marked. Dashed lines are at
  the smallest effect that counts.

  Args:
    ax: where to draw.
    results: with arms ``single`` and ``multi``.
  """
  rows = _rows(results)
  for row, (network, protocol, batch) in enumerate(rows):
    samples = findings.gain(results, network, protocol=protocol, batch=batch)
    found = intervals.interval(samples.values)
    plots.whisker(
      ax, row, found, color=_COLORS[network], marker=_MARKERS[network],
      filled=protocol == 'deployable',
    )  # fmt: skip
    ax.annotate(
      f'{found.mean:+.2g}'.replace('-', '\N{MINUS SIGN}'), (1.02, row), xycoords=('axes fraction', 'data'),
      va='center', fontsize=7,
    )  # fmt: skip
  names = [
    f'{network.replace("_", " ")}, loss on {_BATCHES[batch]}, '
    f'{_SETTINGS[protocol]}'
    for network, protocol, batch in rows
  ]
  ax.set_yticks(range(len(rows)), names)
  ax.set_ylim(len(rows) - 0.5, -0.5)
  ax.axvline(0, color='black', linewidth=0.8)
  for end in (-findings.MARGIN, findings.MARGIN):
    ax.axvline(end, color=plots.GREY, linewidth=0.8, linestyle='--')
  ax.locator_params(axis='x', nbins=5)
  primary = ('binary', 'deployable', 'holdout')
  if primary in rows:
    plots.primary_rows(ax, rows.index(primary))
  first = labels.optimizer(results.optimizer.values.tolist()[0])
  ax.set_xlabel(
    rf'$\log(L_1 / L_m)$, {first} without noise'
    '\n(above 0: several steps are better;'
    '\ndashed: the smallest effect that counts)'
  )
  ax.set_title(
    'Several steps against one scanned step\n(bold: primary contrast)'
  )


def against_noise(
  ax: axes_lib.Axes, results: xarray.Dataset, batch: str, optimizers: list[str]
) -> None:
  """Draws the curve against the noise amplitude, with the best of all steps.

  Args:
    ax: where to draw.
    results: with arms ``single`` and ``multi``.
    batch: where losses are read, ``'search'`` for A, ``'holdout'`` for B; settings are
      chosen on A.
    optimizers: whose curves are drawn.
  """
  for network, optimizer, style in _lines(results, optimizers):
    curve = _curve(results, network, optimizer, batch)
    samples = curve.transpose('noise', 'seed', 'draw')
    plots.band(ax, results.noise, samples, **style)
  ax.set_xlabel('noise at the start (radius of the ball = 1)')


def against_steps(
  ax: axes_lib.Axes, results: xarray.Dataset, batch: str, optimizers: list[str]
) -> None:
  """Draws the curve against the number of steps, without noise.

  Thin lines show Adam at each learning rate: the spread that makes it hard to
  tune.

  Args:
    ax: where to draw.
    results: with arms ``single`` and ``multi``.
    batch: where losses are read, ``'search'`` for A, ``'holdout'`` for B; settings are
      chosen on A.
    optimizers: whose curves are drawn.
  """
  from matplotlib import ticker

  taken = {'step': slice(1, None), 'noise': 0}
  for network, optimizer, style in _lines(results, optimizers):
    curve = _curve(results, network, optimizer, batch, keep=('step',))
    samples = curve.isel(taken).transpose('step', 'seed', 'draw')
    plots.band(ax, samples.step, samples, **style)
    if optimizer == 'adam':
      keep = ('step', 'step_size')
      each = _curve(results, network, optimizer, batch, keep=keep)
      each = each.isel(taken).mean(('seed', 'draw'))
      thin = {'color': style['color'], 'linewidth': 0.6, 'linestyle': ':'}
      lines = ax.plot(each.step, each.transpose('step', 'step_size'), **thin)
      lines[0].set_label(f'{style["label"]}, each rate')
  if results.step.max() > 10:
    plots.log_axis(ax)
  else:
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  ax.set_xlabel('number of steps, without noise')


def _curves(fig, results, optimizers):
  """Draws the note's curve against noise, if any, and steps, on A and on B."""
  columns = {'best learning rate for each number of steps': against_steps}
  if results.sizes['noise'] > 1:
    columns = {'best of all steps and learning rates': against_noise, **columns}
  axes = fig.subplots(
    2, len(columns), sharex='col', sharey='row', squeeze=False
  )
  for row, (batch, name) in zip(axes, _BATCHES.items(), strict=True):
    for ax, draw in zip(row, columns.values(), strict=True):
      draw(ax, results, batch, optimizers)
      ax.axhline(0, color='black', linewidth=0.8)
    read = 'searched' if name == 'A' else 'held out'
    row[0].set_ylabel(f'$(L_1 - L_m) / L_1$\non {name} ({read})')
  for ax, title in zip(axes[0], columns, strict=True):
    ax.set_xlabel('')
    ax.set_title(title)
  lines = axes[0, -1].get_legend_handles_labels()
  fig.legend(*lines, loc='outside lower center', ncols=2, handlelength=3)


def _rows(results: xarray.Dataset) -> list[tuple[str, str, str]]:
  """Returns network, protocol and batch of each gain, the primary one first."""
  networks: list[str] = results.network.values.tolist()
  networks.sort(key=lambda network: network != 'binary')
  return [
    (network, protocol, batch)
    for network in networks
    for protocol, batch in zip(
      reversed(protocols.PROTOCOLS), reversed(_BATCHES), strict=True
    )
  ]


def _lines(results, optimizers):
  """Yields every network and optimiser, with the style of its curve."""
  for network in results.network.values.tolist():
    for line, optimizer in zip(plots.LINE_STYLES, optimizers, strict=False):
      name = network.replace('_', ' ')
      yield (
        network,
        optimizer,
        {
          'color': _COLORS[network],
          'linestyle': line,
          'marker': _MARKERS[network],
          'label': f'{name}, {labels.optimizer(optimizer)}',
        },
      )


def _curve(results, network, optimizer, batch, keep=()):
  options = {'protocol': 'oracle', 'batch': batch, 'network': network}
  size = results.batch_size.max().item()
  single = losses(results, 'single', batch_size=size, **options)
  several = losses(results, 'multi', optimizer=optimizer, keep=keep, **options)
  return (single - several) / single
