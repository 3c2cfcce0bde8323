"""The page of one estimator: its numbers, figures, and what they cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
import html
import itertools
from typing import Any

import numpy as np

from bitjax.commands.report_card import caveats
from bitjax.commands.report_card import cells
from bitjax.commands.report_card import gradients
from bitjax.commands.report_card import measure
from bitjax.commands.report_card import names
from bitjax.commands.report_card import numbers
from bitjax.commands.report_card import style
from bitjax.commands.report_card import svg

__all__ = ['card', 'mass', 'primary']

_SPAN = 3.0  # Half of the interval on which gradient mass is taken.
_KINDS = ('a', 'b', 'c')
_DOTS = '2 3'


def card(
  one: measure.Kept,
  found: Sequence[numbers.Number],
  normal: measure.Kept | None,
) -> str:
  """Returns the page of an estimator.

  Args:
    one: what was measured of it.
    found: all of its `numbers.numbers`.
    normal: what was measured of the normal STE; None on its own page.
  """
  config = one.entry['config']
  title = f'Report card: {one.name}'
  body = [
    '<p class="soft"><a href="index.html">All estimators</a></p>',
    f'<h1>Report card: {style.code(one.name)}</h1>',
    _subtitle(one),
    _short(found, config),
    *_pseudo(one, normal),
    *_nearness(found, config, normal),
    *_variance(found, normal),
    *_decreases(found, config, normal),
    *_optimality(found, normal),
    *_accuracy(found, config, one, normal),
    *_speed(found, one),
    *caveats.section(),
    *_made(one),
    *_everything(found, normal),
  ]
  return style.page(title, body)


def primary(config: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
  """Returns the numbers that sum an estimator up: what they are, and how to find them."""
  size = max(config['batch_size'])
  ball = config['balls'][0]
  return [
    (
      f'Decrease of the held-out loss by one step in the ball {ball}, trained network',
      {
        'section': 'decrease',
        'name': 'one step, on B',
        'state': 'trained',
        'ball': ball,
      },
    ),
    (
      f'Correlation with held-out exact gains, trained network, batch {size}, layer 1',
      {
        'section': 'nearness',
        'name': 'correlation with held-out gains',
        'state': 'trained',
        'batch_size': size,
        'layer': 'layer 1',
      },
    ),
    (
      'Test accuracy on digits',
      {'section': 'accuracy', 'name': 'test accuracy', 'data': 'digits'},
    ),
  ]


def mass(results: Any, progress: float) -> float:
  """Returns the integral of the pseudo-gradient over [-3, 3]."""
  x, passed = results.x.values, results.passed.sel(progress=progress).values
  inside = np.abs(x) < _SPAN
  grid = np.concatenate([[-_SPAN], x[inside], [_SPAN]])
  return float(np.trapezoid(np.interp(grid, x, passed), grid))


def _subtitle(one):
  config = one.entry['config']
  return (
    f'<p class="soft">Preset {html.escape(str(one.entry.get("preset")))}, '
    f'{len(config["seeds"])} seeds, {html.escape(config["dataset"])}; measured '
    f'{one.entry["started"][:10]}. A number in brackets is the 95 % interval over '
    'seeds.</p>'
  )


def _short(found, config):
  items = []
  for title, where in primary(config):
    (one,) = numbers.find(found, **where)
    rest = ''
    if one.difference is not None:
      rest = f'; normal STE {cells.cell(one.normal)}, difference {cells.compared(one)}: {cells.words(one)}'
    unit = f' {one.sample.unit}' if one.sample.unit == 'nats' else ''
    items.append(
      f'<li>{html.escape(title)}: <b>{cells.cell(one.found)}</b>{unit}{rest}.</li>'
    )
  return f'<div class="short"><h3>In short</h3><ul>{"".join(items)}</ul></div>'


def _pseudo(one, normal):
  results = one.results
  annealed = bool(results.annealed)
  shown = measure.PROGRESS if annealed else measure.PROGRESS[-1:]
  lines, legend = [], []
  inside = np.abs(results.x.values) <= _SPAN
  x = results.x.values[inside]
  for kind, dash, p in zip(_KINDS, ('8 3 2 3', '7 4', ''), shown, strict=False):
    dash = dash if annealed else ''
    curve = results.passed.sel(progress=p).values[inside]
    lines.append(svg.Curve(kind, x[::4], curve[::4], dash))
    label = f'progress {p:g}' if annealed else 'this estimator'
    legend.append(_line(kind, label, dash))
  if normal is not None:
    curve = normal.results.passed.sel(progress=1.0).values[inside]
    lines.insert(0, svg.Curve('normal', x[::4], curve[::4], _DOTS))
    legend.append(_line('normal', 'normal STE', _DOTS))
  masses = [
    [f'gradient mass on [−3, 3], progress {p:g}', f'{mass(results, p):.3g}']
    for p in measure.PROGRESS
  ]
  yes = lambda name: 'yes' if bool(results[name]) else 'no'
  facts = [
    *(masses if annealed else [['gradient mass on [−3, 3]', masses[-1][1]]]),
    ['changes with the progress of training', yes('annealed')],
    ['proportional to the incoming gradient', yes('proportional')],
    ['each entry by itself (no look at other entries)', yes('entrywise')],
  ]
  return [
    '<h2>Pseudo-gradient</h2>',
    '<p>What is passed back where a gradient of 1 comes in, against the pre-activation x. The '
    'true derivative of the sign has mass 2, all of it at 0. Inputs are standard normal, so '
    'that widths relative to the spread are in its unit. These facts have no interval: they '
    'are computed, not sampled.</p>',
    f'<div class="legend">{"".join(legend)}</div>',
    style.figures(
      [
        (
          'Gradient that passes',
          svg.curves(
            lines,
            title='Pseudo-gradient against the pre-activation',
            x_label='pre-activation x, in units of its spread',
            y_label='gradient that passes',
          ),
        )
      ]
    ),
    style.table(['property', 'value'], facts, kind='facts'),
  ]


def _line(kind, text, dash=''):
  return style.swatch(f'{kind} bare', html.escape(text), dash)


def _nearness(found, config, normal):
  sizes = sorted(config['batch_size'])
  legend = [
    style.swatch(kind, f'{truth} gains', '')
    for kind, truth in zip(_KINDS, gradients.TRUTHS, strict=True)
  ]
  if normal is not None:
    legend.append(style.swatch('normal', 'hollow, dotted: normal STE', _DOTS))
  drawn = []
  for state in ('initialised', 'trained'):
    lines = []
    for kind, truth in zip(_KINDS, gradients.TRUTHS, strict=True):
      own = [
        *numbers.find(
          found,
          'nearness',
          name=f'correlation with {truth} gains',
          state=state,
          layer='layer 1',
        )
      ]
      own.sort(key=lambda one: one.sample.where['batch_size'])
      lines.append(svg.Means(kind, sizes, [one.found for one in own]))
      if normal is not None:
        ends = [one.normal for one in own if one.normal is not None]
        lines.append(svg.Means(f'{kind}-normal', sizes, ends, _DOTS))
    drawn.append(
      (
        f'{state.capitalize()} network, layer 1',
        svg.whiskers(
          lines,
          title=f'Correlation with gains by batch size, {state} network',
          x_label='examples in the batch',
          y_label='correlation over flips',
        ),
      )
    )
  largest = [
    one
    for one in numbers.find(found, 'nearness', batch_size=sizes[-1])
    if one.sample.name.startswith('correlation')
  ]
  return [
    '<h2>Nearness to discrete gradients</h2>',
    '<p>What the gradient predicts of every flip of a weight, correlated over flips with its '
    'exact gain on the same batch, with that gain averaged over random flips of the other '
    'weights (smoothed), and with its exact gain on a batch that nothing has seen '
    '(held-out). 1 is best.</p>',
    f'<div class="legend">{"".join(legend)}</div>',
    style.figures(drawn),
    f'<p>All layers, batch {sizes[-1]}; cosines and other batches are at the end. No sign '
    'stands behind the last layer, so that its gradient is the same with all estimators.</p>',
    cells.table(largest, normal, ('batch_size',)),
  ]


def _variance(found, normal):
  rows = [*numbers.find(found, 'replication')]
  sizes = sorted({one.sample.where['batch_size'] for one in rows})
  rows = [one for one in rows if one.sample.where['batch_size'] == sizes[-1]]
  for one in numbers.find(found, 'variance'):
    at = [
      n
      for n, r in enumerate(rows)
      if one.sample.where.items() <= r.sample.where.items()
    ]
    rows.insert(at[-1] + 1, one)
  return [
    '<h2>Replication, bias and variance</h2>',
    f'<p>Replication is the correlation of two predictions from disjoint batches of '
    f'{sizes[-1]}. Bias is the tangent of the angle between the mean gradient and the exact '
    'discrete gradient of the same batch: 0 is parallel, and no learning rate corrects it. The '
    'signal-to-noise ratio is the power of what parts of a batch have in common over that of '
    'what they have not.</p>',
    cells.table(rows, normal, ('batch_size',)),
  ]


def _decreases(found, config, normal):
  drawn = []
  for state in ('initialised', 'trained'):
    rows = []
    for ball, step in itertools.product(
      config['balls'], numbers.STEPS.values()
    ):
      (one,) = numbers.find(
        found, 'decrease', name=f'{step}, on B', state=state, ball=ball
      )
      ends = {'a': one.found}
      if one.normal is not None:
        ends['normal'] = one.normal
      rows.append(svg.Row(f'{ball}, {step}', ends))
    drawn.append(
      (
        f'{state.capitalize()} network, held-out',
        svg.rows(
          rows,
          title=f'Decrease of the held-out loss by ball, {state} network',
          x_label='decrease of the held-out loss, in nats',
        ),
      )
    )
  return [
    '<h2>Decrease of one step and of several</h2>',
    '<p>The first layer moves inside a ball by the flips that the gradient ranks first, all '
    f'at once or in {config["num_rounds"]} rounds with a new gradient each. How many flips (or '
    'rounds) are made is chosen on other seeds. The decrease is read on B, which the gradient '
    'has not seen; on A it is in the table.</p>',
    _legend(normal),
    style.figures(drawn),
    cells.table(numbers.find(found, 'decrease'), normal),
  ]


def _optimality(found, normal):
  return [
    '<h2>1-flip optimality after training</h2>',
    '<p>Networks that this estimator has trained on digits: of all single flips, the share that '
    'would still lower the loss, evaluated exactly.</p>',
    cells.table(numbers.find(found, 'optimality'), normal),
  ]


def _accuracy(found, config, one, normal):
  cifar = (
    '<p><b>CIFAR-10 was not measured</b>: its files were not given. '
    '<code>--data_dir=DIR</code> adds a short training on it.</p>'
  )
  if config['with_cifar']:
    cifar = (
      f'<p>CIFAR-10: {html.escape(config["cifar_network"])} with 1-bit weights and '
      f'activations, {config["cifar_epochs"]:g} epochs of {config["cifar_examples"]} '
      'images at 16 x 16 pixels. Intervals are over seeds, not over test images.</p>'
    )
  rate = one.results.attrs['digits_rate']
  return [
    '<h2>Accuracy</h2>',
    f'<p>Digits: {config["digits_steps"]} updates of Adam on '
    f'{config["digits_examples"]} of them, as many are for testing; the learning rate, '
    f'{rate:g}, was chosen on other seeds.</p>',
    cifar,
    cells.table(numbers.find(found, 'accuracy'), normal),
  ]


def _speed(found, one):
  config, device = one.entry['config'], one.entry['device']['kind']
  return [
    '<h2>Speed</h2>',
    f'<p>On {html.escape(str(device))}; intervals are over {config["turns"]} turns, not over '
    'seeds. A busy machine widens them. The gradient is that of the MLP above, at its largest '
    'batch.</p>',
    cells.table(numbers.find(found, 'speed'), None),
  ]


def _made(one):
  entry = one.entry
  versions = ', '.join(f'{k} {v}' for k, v in entry['versions'].items() if v)
  git = entry.get('git')
  commit = ''
  if git:
    commit = f', commit {git["commit"][:10]}' + (
      ' (edited)' if git['dirty'] else ''
    )
  return [
    '<h2>How it was measured</h2>',
    f'<p>bitjax {html.escape(entry["bitjax"])}{html.escape(commit)}; '
    f'{html.escape(versions)}. Begun {html.escape(entry["started"])}. The flags:</p>',
    '<details><summary>All flags</summary>'
    + style.table(
      ['flag', 'value'],
      [
        [style.code(key), html.escape(_listed(value))]
        for key, value in entry['config'].items()
      ],
    )
    + '</details>',
  ]


def _listed(value):
  return ', '.join(map(str, value)) if isinstance(value, list) else str(value)


def _everything(found, normal):
  rest = numbers.find(found, 'nearness') + numbers.find(found, 'replication')
  return [
    '<details><summary>Nearness and replication at all batch sizes</summary>'
    + cells.table(rest, normal)
    + '</details>'
  ]


def _legend(normal):
  parts = [style.swatch('a', 'this estimator')]
  if normal is not None:
    parts.append(
      style.swatch('normal', f'normal STE, {style.code(names.REFERENCE)}')
    )
  return f'<div class="legend">{"".join(parts)}</div>'
