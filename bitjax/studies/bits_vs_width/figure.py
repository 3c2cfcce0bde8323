"""Draws training losses by bits and width; in a supplement, the three challenges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitjax.evidence import intervals
from bitjax.evidence import plots
from bitjax.studies.bits_vs_width import arms as arms_lib
from bitjax.studies.bits_vs_width import findings
from bitjax.studies.recipes import families

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray

__all__ = ['page']

_COLORS = dict(
  zip(
    families.BITS,
    (
      plots.RED,
      plots.ORANGE,
      plots.TEAL,
      plots.CYAN,
      plots.BLUE,
      plots.DARK_BLUE,
      plots.GREY,
    ),
    strict=True,
  )
)
_POSITIVE = (1e-6, np.inf)  # Nats, on axes that are logarithmic.
_SERIES = (
  ('bits', 'equal total bits', 'o', plots.BLUE),
  ('width', 'equal width', 's', plots.ORANGE),
)


def page(results: xarray.Dataset) -> dict[str, figure.Figure]:
  """Draws the losses, and capacity, optimisation, generalisation and robustness.

  Args:
    results: of `trainings.compare`.
  """
  table = findings.Table(results)
  return {'figure': _losses(table), 'figure_supplement': _challenges(table)}


def _words(bits):
  return f'{bits} bit{"s" * (bits != "1")}'


def _interval(samples):
  return intervals.interval(np.asarray(samples, float))


def _losses(table):
  from matplotlib import pyplot

  fig, axes = pyplot.subplots(1, 2, figsize=(6.75, 4.2), width_ratios=(1.15, 1))
  _by_total_bits(table, axes[0])
  ax, row, ticks, marked = axes[1], 0, [], []
  for name, words, *_ in (*_SERIES, ('operations', 'equal operations')):
    if not (arms := table.arms(equal=name)):
      continue
    ticks.append((row, f'{words}:'))
    for arm in arms:
      row += 1
      at = table.found.sel(arm=arm)
      bits = at.bits.item()
      found = intervals.interval(at.train_loss.values, bounds=_POSITIVE)
      plots.whisker(ax, row, found, color=_COLORS[bits])
      ticks.append((row, f'{_words(bits)} × {at.width.item()}'))
      if name == 'bits' and bits in (arms_lib.PRIMARY, arms_lib.REFERENCE):
        marked.append(row)
    row += 1.3
  ax.set_yticks(*zip(*ticks, strict=True), fontsize=7)
  ax.set_ylim(row - 0.5, -0.7)
  plots.primary_rows(ax, *marked)
  plots.log_axis(ax)
  ax.set_xlabel('training loss (nats; lower is better)')
  return fig


def _by_total_bits(table, ax):
  from matplotlib import ticker

  for bits, color in _COLORS.items():
    arms = table.arms('scratch', bits=bits)
    if not arms:
      continue
    at = table.found.sel(arm=arms).sortby('width')
    rows = at.train_loss.transpose('arm', 'seed').values
    plots.band(
      ax,
      at.total_bits.values,
      rows,
      color=color,
      label=_words(bits),
      marker='o',
      bounds=_POSITIVE,
    )
  ax.set_yscale('log')
  ax.yaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  low, high = ax.get_ylim()
  few = ticker.FormatStrFormatter('%g') if high < 10 * low else None
  ax.yaxis.set_minor_formatter(few or ticker.NullFormatter())
  plots.log_axis(ax)
  ax.set_xlabel('total bits of the weights\n(points: widths)')
  ax.set_ylabel('training loss (nats)')
  ax.legend(fontsize=7, ncols=2)


def _challenges(table):
  from matplotlib import pyplot

  fig, axes = pyplot.subplots(2, 2, figsize=(6.75, 5.6))
  _bars(
    table,
    axes[0, 0],
    lambda equal, bits: _of_kind(table, 'random', equal, bits),
    'training loss on random labels (nats)',
    'capacity',
  )
  _bars(
    table,
    axes[0, 1],
    lambda equal, bits: _gap(table, equal, bits),
    'training loss (nats), from random weights less\nfrom full precision',
    'optimisation',
  )
  axes[0, 1].axvline(0, color=plots.LIGHT_GREY, zorder=0)
  found = table.found
  _by_width(
    table,
    axes[1, 0],
    100 * (found.train_accuracy - found.test_accuracy),
    'training less test accuracy (points)',
    'generalisation',
  )
  noise, share = found.noise.values[-1], found.flips.values[-1]
  ax = axes[1, 1]
  _by_width(
    table,
    ax,
    100 * found.noisy_accuracy.isel(noise=-1),
    'test accuracy (%)',
    f'robustness: noise {noise:g} (lines), {100 * share:g} % flips (dashed)',
    bounds=(0, 100),
  )
  _by_width(
    table,
    ax,
    100 * found.flipped_accuracy.isel(flips=-1),
    bounds=(0, 100),
    linestyle='--',
  )
  ax.legend(fontsize=7)
  return fig


def _of_kind(table, kind, equal, bits):
  arm = table.one(kind, equal, bits)
  return None if arm is None else table.of('train_loss', arm)


def _gap(table, equal, bits):
  found = [_of_kind(table, k, equal, bits) for k in ('scratch', 'projected')]
  return None if found[1] is None else found[0] - found[1]


def _bars(table, ax, of, label, title):
  shown = [b for b in families.BITS if b in table.found.bits.values]
  for offset, (equal, words, marker, color) in zip(
    (-0.15, 0.15), _SERIES, strict=True
  ):
    drawn = False
    for row, bits in enumerate(shown):
      samples = of(equal, bits)
      if samples is None:
        continue
      plots.whisker(
        ax,
        row + offset,
        _interval(samples),
        color=color,
        marker=marker,
        label=None if drawn else words,
      )
      drawn = True
  ax.set_yticks(range(len(shown)), [_words(b) for b in shown])
  ax.set_ylim(len(shown) - 0.5, -0.5)
  ax.set_xlabel(label, fontsize=8)
  ax.set_title(title)
  if ax.get_legend_handles_labels()[0]:
    ax.legend(fontsize=7)


def _by_width(
  table, ax, values, label='', title='', *, bounds=None, linestyle='-'
):
  for bits in ('1', '2', '4', '32'):
    arms = table.arms('scratch', bits=bits)
    if not arms:
      continue
    at = values.sel(arm=arms).sortby('width')
    plots.band(
      ax,
      at.width.values,
      at.transpose('arm', 'seed').values,
      color=_COLORS[bits],
      linestyle=linestyle,
      marker='o' if linestyle == '-' else None,
      label=_words(bits) if linestyle == '-' else None,
      bounds=bounds,
    )
  if label:
    plots.log_axis(ax)
    ax.set_xlabel('width')
    ax.set_ylabel(label, fontsize=8)
    ax.set_title(title, fontsize=8)
