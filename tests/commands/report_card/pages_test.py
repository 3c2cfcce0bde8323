"""Numbers, figures and pages of report cards, made from results that are made up."""

import html.parser
import json
import math
import pathlib
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from bitjax import cli
from bitjax import evidence
from bitjax import files
from bitjax.commands.report_card import cells
from bitjax.commands.report_card import command
from bitjax.commands.report_card import config as config_lib
from bitjax.commands.report_card import gradients
from bitjax.commands.report_card import leaderboard
from bitjax.commands.report_card import measure
from bitjax.commands.report_card import names
from bitjax.commands.report_card import numbers
from bitjax.commands.report_card import pages
from bitjax.commands.report_card import svg

DOCS = pathlib.Path(__file__).parents[3] / 'docs'
CONFIG = config_lib.Config(**config_lib.PRESETS['smoke'])
STATES = ('initialised', 'trained')
LAYERS = ('Dense_0', 'Dense_1')
HOSTILE = 'own:f("<script>alert(1)</script>", \'&\')'


def kept(name, seed=0, *, with_cifar=False, **changed):
  """What a run of an estimator would have kept, of random numbers."""
  import xarray

  rng = np.random.default_rng(seed)
  axes = {
    'batch_size': CONFIG.batch_size,
    'state': STATES,
    'seed': CONFIG.seeds,
    'layer': LAYERS,
    'truth': gradients.TRUTHS,
    'ball': CONFIG.balls,
    'layers': ('first',),
    'prefix': (0, 4, 8),
    'share': (0.0, 0.5, 1.0),
    'tuning_seed': CONFIG.tuning_seeds,
    'part': (*LAYERS, 'all'),
    'turn': (0, 1),
    'cifar_seed': (0, 1),
    'progress': measure.PROGRESS,
  }
  near = ('batch_size', 'state', 'seed', 'layer')
  dims = dict.fromkeys(('correlation', 'cosine'), (*near, 'truth'))
  dims['replication'] = near
  dims |= dict.fromkeys(gradients.STATISTICS, near[1:])
  for arm, axis in (('once', 'prefix'), ('rounds', 'share')):
    cell = ('ball', 'layers', 'state')
    dims |= dict.fromkeys(
      (f'{arm}_search', f'{arm}_holdout'), (*cell, 'seed', axis)
    )
    dims[f'tuning_{arm}_holdout'] = (*cell, 'tuning_seed', axis)
  dims |= dict.fromkeys(numbers.CERTIFICATES, ('seed', 'part'))
  fitted = ('train_accuracy', 'test_accuracy', 'train_loss', 'test_loss')
  dims |= dict.fromkeys(fitted, ('seed',))
  dims |= dict.fromkeys(('entry_ns', 'entry_ratio', 'step_ratio'), ('turn',))
  if with_cifar:
    dims['cifar_test_accuracy'] = ('cifar_seed',)
  values = {
    key: (own, rng.uniform(size=[len(axes[axis]) for axis in own]))
    for key, own in dims.items()
  }
  own, share = values['is_optimum']
  values['is_optimum'] = own, share.round()
  x = np.linspace(-4, 4, 801)
  curve = np.stack([np.abs(x) <= 1 / (1 + p) for p in measure.PROGRESS]) * 1.0
  flags = dict.fromkeys(('annealed', 'proportional', 'entrywise'), True)
  results = xarray.Dataset(
    values | {'passed': (('progress', 'x'), curve)} | flags,
    {name: list(labels) for name, labels in axes.items()} | {'x': x},
    {'digits_rate': 0.003},
  ).assign(changed)
  entry = {
    'config': CONFIG.identity(name) | {'with_cifar': with_cifar},
    'preset': 'smoke',
    'bitjax': '0.1.0',
    'started': '2026-11-28T10:00:00+00:00',
    'git': {'commit': 'a' * 40, 'dirty': True},
    'versions': {'python': '3', 'scipy': None},
    'device': {'kind': 'cpu'},
  }
  return measure.Kept(name, results, entry)


NORMAL = kept(names.REFERENCE)
ONE = kept(HOSTILE, 1)
FOUND = numbers.numbers(ONE, NORMAL)


class Checker(html.parser.HTMLParser):
  """Holds tags to be closed in order, and collects what a page asks for."""

  VOID = ('meta', 'br', 'line', 'circle', 'polyline')

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.asked = [], set(), []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    self.asked += [v for k, v in attrs if k in ('href', 'src', 'xlink:href')]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.add(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def check(text):
  """A page that is whole, asks for nothing else, and runs nothing."""
  found = Checker(text)
  assert not found.tags & {
    'script',
    'img',
    'link',
    'iframe',
    'object',
    'style ',
  }
  assert all(re.fullmatch(r'[\w.-]+\.html', asked) for asked in found.asked)
  assert 'http' not in text and 'url(' not in text and '@import' not in text
  assert '<script>alert' not in text and ' nan' not in text.lower()
  assert 'prefers-color-scheme: dark' in text
  assert 'name="viewport"' in text
  for drawing in re.findall(r'<svg.*?</svg>', text, re.DOTALL):
    ElementTree.fromstring(drawing)
  return found


def test_a_card_is_one_page_that_asks_for_nothing():
  text = pages.card(ONE, FOUND, NORMAL)
  assert check(text).tags >= {'svg', 'table', 'details'}
  assert '&lt;script&gt;alert(1)&lt;/script&gt;' in text
  for section in (
    'Pseudo-gradient', 'Nearness to discrete gradients', 'Decrease of one step',
    'Replication, bias and variance', '1-flip optimality', 'Accuracy', 'Speed',
    'What this cannot tell you', 'How it was measured',
  ):  # fmt: skip
    assert f'<h2>{section}' in text
  assert 'CIFAR-10 was not measured' in text
  for one in FOUND:
    assert cells.cell(one.found) in text, one.sample.name


def test_the_card_of_the_normal_ste_compares_with_nothing():
  found = numbers.numbers(NORMAL, None)
  assert all(one.difference is None for one in found)
  text = pages.card(NORMAL, found, None)
  check(text)
  assert '>difference<' not in text and '>normal STE' not in text


def test_cifar_is_shown_where_it_was_measured():
  one = kept('window(0.5)', 2, with_cifar=True)
  found = numbers.numbers(one, kept(names.REFERENCE, with_cifar=True))
  (accuracy,) = numbers.find(found, 'accuracy', data='CIFAR-10, 16 x 16')
  np.testing.assert_allclose(
    accuracy.sample.values, one.results.cifar_test_accuracy
  )
  text = pages.card(one, found, NORMAL)
  assert 'CIFAR-10, 16 x 16' in text and 'was not measured' not in text
  assert 'resnet4 with 1-bit weights' in text


def test_numbers_are_means_over_seeds_and_paired():
  where = {'state': 'trained', 'layer': 'layer 1', 'batch_size': 64}
  name = 'correlation with smoothed gains'
  (one,) = numbers.find(FOUND, 'nearness', name=name, **where)
  labels = {'state': 'trained', 'layer': 'Dense_0', 'batch_size': 64}
  labels['truth'] = 'smoothed'
  own, other = (k.results.correlation.sel(labels).values for k in (ONE, NORMAL))
  np.testing.assert_array_equal(one.sample.values, own)
  assert one.found == evidence.interval(own, bounds=(-1, 1))
  assert one.normal == evidence.interval(other, bounds=(-1, 1))
  assert one.difference == evidence.interval(own - other)


def test_what_is_saved_is_read_where_tuning_seeds_say():
  """By a loop in NumPy: the number of flips with the lowest mean loss on tuning seeds."""
  ball, state = CONFIG.balls[1], 'initialised'
  for arm, step in numbers.STEPS.items():
    for batch, letter in numbers.BATCHES.items():
      (one,) = numbers.find(
        FOUND, 'decrease', name=f'{step}, on {letter}', ball=ball, state=state
      )
      at = {'ball': ball, 'state': state, 'layers': 'first'}
      losses = ONE.results[f'{arm}_{batch}'].sel(at).values
      tuning = ONE.results[f'tuning_{arm}_holdout'].sel(at).values
      best = np.argmin(tuning.mean(0))
      np.testing.assert_allclose(
        one.sample.values, losses[:, 0] - losses[:, best]
      )


def test_the_numbers_tell_each_other_apart():
  assert len({one.sample.key for one in FOUND}) == len(FOUND)
  for one in FOUND:
    compared = one.sample.section != 'speed' and not one.sample.exact
    assert (one.difference is not None) == compared


def test_shares_of_networks_have_exact_intervals():
  """Three networks of which none is an optimum say little about the next one."""
  none = ONE.results.is_optimum * 0
  one = kept('window(0.5)', 1, is_optimum=none)
  (found,) = numbers.find(
    numbers.numbers(one, NORMAL),
    'optimality',
    name='networks that no single flip improves',
    layer='all layers',
  )
  assert (found.found.mean, found.found.low) == (0, 0)
  assert found.found.high == pytest.approx(1 - 0.025 ** (1 / 3))


def test_seeds_that_diverged_are_counted():
  lost = ONE.results.test_accuracy.copy(data=[np.nan, 0.5, 0.75])
  one = kept('window(0.5)', 1, test_accuracy=lost)
  found = numbers.numbers(one, NORMAL)
  (accuracy,) = numbers.find(
    found, 'accuracy', name='test accuracy', data='digits'
  )
  assert (accuracy.found.num, accuracy.found.dropped) == (2, 1)
  assert '(1 lost)' in pages.card(one, found, NORMAL)
  gone = kept('window(0.5)', 1, test_accuracy=lost * np.nan)
  text = pages.card(gone, numbers.numbers(gone, NORMAL), NORMAL)
  check(text)
  assert 'undefined' in text


@pytest.mark.parametrize(
  ('ends', 'text'),
  [
    ((0.12345, 0.1, 0.19), '0.123 [0.100, 0.190]'),
    ((-1.26, -12.0, 9.0), '−1 [−12, 9]'),
    ((0.0, 0.0, 0.0), '0 in every seed'),
    ((0.5, 0.5, 0.5), '0.50 [0.50, 0.50]'),
    ((1.0, -math.inf, math.inf), '1.0 [−∞, ∞]'),
    ((-1e-4, -0.2, 0.3), '0.00 [−0.20, 0.30]'),
    ((6e-7, 0.0, 2e-6), '6.0e−7 [0.00000, 2.0e−6]'),
    ((math.nan, -math.inf, math.inf), 'undefined'),
  ],
)
def test_how_numbers_are_written(ends, text):
  shown = re.sub(r'<[^>]*>', '', cells.cell(evidence.Interval(*ends, 3)))
  assert shown == text


def test_gradient_mass():
  assert pages.mass(ONE.results, 0.0) == pytest.approx(2, abs=0.01)
  assert pages.mass(ONE.results, 1.0) == pytest.approx(1, abs=0.01)
  flat = ONE.results.assign(passed=ONE.results.passed * 0 + 1)
  assert pages.mass(flat, 0.5) == pytest.approx(6)


class TestFigures:
  """Places in drawings."""

  ROWS = (
    svg.Row('first <&>', {'a': evidence.Interval(1.0, 0.5, 2.0, 3)}),
    svg.Row('second', {'a': evidence.Interval(2.0, -math.inf, math.inf, 1)}),
    svg.Row('third', {'a': evidence.Interval(math.nan, -1.0, 1.0, 0)}),
  )

  def marks(self, drawing, kind='a'):
    found = ElementTree.fromstring(drawing)
    return [
      {k: float(v) for k, v in node.attrib.items() if k != 'class'}
      for node in found.iter()
      if node.get('class') in (f'dot {kind}', f'line {kind}')
    ]

  def test_rows(self):
    drawing = svg.rows(self.ROWS, title='t', x_label='x')
    line, dot, flat, other = self.marks(drawing)
    # From 0.5 to 2, a third of the interval lies below its mean.
    share = (dot['cx'] - line['x1']) / (line['x2'] - line['x1'])
    assert share == pytest.approx(1 / 3, abs=0.01)
    assert flat['x1'] == flat['x2'] == other['cx'] == line['x2']
    assert dot['cy'] < other['cy'] and '&lt;&amp;&gt;' in drawing

  def test_curves_are_where_their_numbers_are(self):
    lines = [svg.Curve('a', [0, 1, 2], [0.0, 1.0, 0.5])]
    drawing = svg.curves(lines, title='t', x_label='x', y_label='y')
    (line,) = ElementTree.fromstring(drawing).iter('polyline')
    (x0, y0), (x1, y1), (x2, y2) = (
      map(float, point.split(',')) for point in line.get('points').split()
    )
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y2 == pytest.approx((y0 - y1) / 2, abs=0.2) and y1 < y0

  def test_curves_leave_out_what_is_not_finite(self):
    lines = [svg.Curve('a', [0, 1, 2], [0.0, math.nan, 0.5])]
    drawing = svg.curves(lines, title='t', x_label='x', y_label='y')
    (line,) = ElementTree.fromstring(drawing).iter('polyline')
    assert len(line.get('points').split()) == 2 and 'nan' not in drawing

  @pytest.mark.parametrize(
    ('ends', 'wanted'),
    [
      ((0.0, 1.0), [0, 0.2, 0.4, 0.6, 0.8, 1]),
      ((-2.5e-3, 3e-3), [-0.002, 0, 0.002]),
      ((0.0, 23.0), [0, 5, 10, 15, 20]),
      ((3.2, 3.3), [3.2, 3.22, 3.24, 3.26, 3.28, 3.3]),
    ],
  )
  def test_ticks(self, ends, wanted):
    found = svg.ticks(ends)
    np.testing.assert_allclose([value for value, _ in found], wanted)
    texts = [float(text.replace('−', '-')) for _, text in found]
    np.testing.assert_allclose(texts, wanted)

  def test_nothing_varies(self):
    row = svg.Row('a', {'a': evidence.Interval(0.0, 0.0, 0.0, 3)})
    ElementTree.fromstring(svg.rows([row], title='t', x_label='x'))


@pytest.fixture(scope='module')
def rows():
  every = [NORMAL, ONE, kept('window(0.5)', 3)]
  found = [
    (one, numbers.numbers(one, None if one is NORMAL else NORMAL))
    for one in every
  ]
  return leaderboard.entries(found)


class TestLeaderboard:
  """Rows, their order and what is said of them."""

  def test_the_order_and_the_joint_intervals(self, rows):
    at = {'state': 'trained', 'ball': CONFIG.balls[0]}
    values = {}
    for row in rows:
      (one,) = numbers.find(row.found, 'decrease', name='one step, on B', **at)
      values[row.kept.name] = one.sample.values
    means = [value.mean() for value in values.values()]
    assert means == sorted(means, reverse=True)
    normal = values.pop(names.REFERENCE)
    # The order of rows does not matter to what holds for all of them.
    wanted = evidence.simultaneous(
      [values[HOSTILE] - normal, values['window(0.5)'] - normal]
    )
    gaps = {row.kept.name: row.gap for row in rows}
    assert gaps[names.REFERENCE] is None
    assert [gaps[HOSTILE], gaps['window(0.5)']] == wanted

  def test_a_row_that_lost_a_seed_takes_no_other_with_it(self, rows):
    seen = NORMAL.results.once_holdout
    lost = seen.where(seen.seed != CONFIG.seeds[1])
    bad = kept('window(0.25)', 4, once_holdout=lost)
    every = [(row.kept, row.found) for row in rows]
    found = leaderboard.entries([*every, (bad, numbers.numbers(bad, NORMAL))])
    gaps = {row.kept.name: row.gap for row in found}
    gap = gaps.pop('window(0.25)')
    assert math.isnan(gap.mean) and (gap.low, gap.high) == (-math.inf, math.inf)
    assert gaps == {row.kept.name: row.gap for row in rows}
    check(leaderboard.board(found, [], set()))

  def test_the_page(self, rows):
    text = leaderboard.board(rows, ['identity()'], {'window(0.5)'})
    found = check(text)
    assert set(found.asked) == {
      f'{names.slug(name)}.html'
      for name in (names.REFERENCE, HOSTILE, 'window(0.5)')
    }
    assert 'Not measured yet: <code>identity()</code>' in text
    assert text.count('(earlier code)') == 1
    assert 'Not measured yet' not in leaderboard.board(rows, [], set())

  def test_json(self, rows):
    found = json.loads(
      files.json_text(leaderboard.to_json(rows, ['identity()']))
    )
    assert found['not_measured'] == ['identity()']
    assert len(found['estimators']) == 3
    assert all(len(row['numbers']) == 5 for row in found['estimators'])


def test_what_is_kept_is_found_again(tmp_path):
  """With its own configuration only, and if it is not damaged."""
  folder = tmp_path / measure.FOLDER / 'window-1'
  folder.mkdir(parents=True)
  cli.results.save(NORMAL.results, folder)
  files.write_json(folder / 'config.json', NORMAL.entry)
  (found,) = measure.kept(tmp_path, CONFIG)
  assert found.name == names.REFERENCE
  assert found.results.identical(NORMAL.results)
  other = NORMAL.entry['config'] | {'seeds': [7, 8]}
  files.write_json(folder / 'config.json', NORMAL.entry | {'config': other})
  assert measure.kept(tmp_path, CONFIG) == []
  files.write_json(folder / 'config.json', NORMAL.entry)
  (folder / 'results.nc').write_bytes(b'x')
  assert measure.kept(tmp_path, CONFIG) == []


def test_files_of_a_card(tmp_path):
  path = command.write_card(tmp_path, ONE, FOUND, NORMAL)
  found = json.loads(path.with_suffix('.json').read_text())
  assert found['estimator'] == HOSTILE and found['compared_with'] == 'window(1)'
  assert len(found['numbers']) == len(FOUND)
  assert found['not_measured'] == ['CIFAR-10']
  assert found['gradient_mass']['0.0'] == pytest.approx(2, abs=0.01)
  for stored, one in zip(found['numbers'], FOUND, strict=True):
    assert stored['where'] == one.sample.where
    assert files.number(stored['mean']) == one.found.mean
    assert files.number(stored['low']) == one.found.low


def test_the_leaderboard_in_the_documents_is_that_of_its_run():
  found = json.loads((DOCS / 'report_card_leaderboard.json').read_text())
  page = (DOCS / 'report_card.md').read_text()
  table = page.partition('<!-- the leaderboard -->')[2].partition('<!--')[0]
  rows = [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in table.strip().splitlines()[2:]
  ]
  shown = lambda one, scale, digits: '{:.{d}f} [{:.{d}f}, {:.{d}f}]'.format(
    *(scale * one[end] for end in ('mean', 'low', 'high')), d=digits
  )
  want = []
  for entry in found['estimators']:
    decrease, _, accuracy, _, time = entry['numbers']
    gap = entry['difference_of_all_at_once']
    want.append(
      [
        f'`{entry["estimator"]}`',
        shown(decrease, 1, 4),
        'the normal STE' if gap is None else shown(gap, 1, 4),
        shown(accuracy, 100, 1),
        f'{time["mean"]:.2f}',
      ]
    )
  assert rows == want
  assert {row[0].strip('`') for row in rows} == set(names.BUILT_IN)
  gaps = [one['difference_of_all_at_once'] for one in found['estimators']]
  assert all(g is None or g['low'] < 0 < g['high'] for g in gaps)  # As it says.
