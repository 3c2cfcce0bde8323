"""What is measured equals direct calls of the scans; and a card from end to end."""

import json
import pathlib
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import __main__ as command
from bitjax import data
from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import sweeps
from bitjax.commands.report_card import balls
from bitjax.commands.report_card import cifar
from bitjax.commands.report_card import config as config_lib
from bitjax.commands.report_card import digits
from bitjax.commands.report_card import gradients
from bitjax.commands.report_card import names
from bitjax.commands.report_card import speed
from bitjax.studies import recipes
from bitjax.studies import toy
from bitjax.studies.toy import searches

ESTIMATOR = quantizers.relative(quantizers.gaussian(0.3))
CONFIG = config_lib.Config(
  **config_lib.PRESETS['smoke']
  | {'hidden': (5,), 'batch_size': (16,), 'seeds': (0, 7), 'train_steps': 3}
  | {'parts': 4, 'tuning_seeds': (1000, 1001)}
)


@pytest.fixture(scope='module')
def networks():
  problems = toy.Problems(CONFIG, data.load('digits', split='all'))
  return toy.States(problems, toy.STATES, CONFIG.train_steps)


def views(networks, state, seed, layer, **options):
  """The views of A and B of one network, made without the command."""
  problems = networks.problems
  index = CONFIG.all_seeds.index(seed)
  pick = lambda leaf: leaf[index]
  starts = networks.shared['starts']
  variables = jax.tree.map(lambda leaf: leaf[state][index], starts)
  batches = jax.tree.map(pick, problems.arrays['trials'].batches[16])
  model = problems.model('binary', **options)
  return [
    nn.layer_view(model, variables, batch.inputs, batch.labels, layer)
    for batch in batches
  ]


def predicted(view):
  """STE's prediction in float64: minus the gradient times the change of the sign."""
  kernel = np.asarray(view.kernel, np.float64)
  gradient = np.asarray(jax.grad(view.loss)(view.kernel), np.float64)
  return 2 * np.where(kernel >= 0, 1.0, -1.0) * gradient


def flip_by_flip(view):
  """The gain of every flip: the loss less that of the kernel with one sign turned."""
  kernel = view.kernel
  flip = lambda index: (
    kernel.reshape(-1).at[index].mul(-1).reshape(kernel.shape)
  )
  losses = jax.jit(jax.vmap(lambda index: view.loss(flip(index))))
  found = view.loss(kernel) - losses(jnp.arange(kernel.size))
  return np.asarray(found, np.float64).reshape(kernel.shape)


def test_nearness_and_variance_equal_direct_calls():
  problems = toy.Problems(CONFIG, data.load('digits', split='all'))
  networks = toy.States(problems, ('initialised',), 1)  # To be trained is slow.
  seed, layer = 7, 'Dense_0'
  on_a, on_b = views(networks, 0, seed, layer, activation_estimator=ESTIMATOR)
  exact = [flip_by_flip(view) for view in (on_a, on_b)]
  rng = np.random.default_rng(0)
  sizes = {'Dense_0': (64, 5), 'Dense_1': (5, 10)}
  known = {
    f'16 {name}': rng.normal(size=(1, 2, 3, *shape)).astype(np.float32)
    for name, shape in sizes.items()
  }
  smoothed = known[f'16 {layer}'][0, 1, 1].astype(np.float64)
  known[f'16 {layer}'][0, 1, ::2] = exact
  found = gradients.nearness(
    networks,
    sweeps.Sweep(),
    ESTIMATOR,
    jax.tree.map(jnp.asarray, known),
    num_parts=4,
  )
  at = {'state': 'initialised', 'seed': seed, 'layer': layer}
  mine = predicted(on_a)
  truths = zip(gradients.TRUTHS, (exact[0], smoothed, exact[1]), strict=True)
  for name, truth in truths:
    row = found.sel(batch_size=16, truth=name, **at)
    a, b = mine.ravel(), truth.ravel()
    wanted = np.corrcoef(a, b)[0, 1]
    np.testing.assert_allclose(row.correlation, wanted, atol=1e-4)
    wanted = a @ b / np.sqrt((a @ a) * (b @ b))
    np.testing.assert_allclose(row.cosine, wanted, atol=1e-4)
  row = found.sel(batch_size=16, **at)
  wanted = np.corrcoef(mine.ravel(), predicted(on_b).ravel())[0, 1]
  np.testing.assert_allclose(row.replication, wanted, atol=1e-4)
  assert found.cosine.shape == (1, 1, 2, 2, 3)

  # Bias and noise of four parts of A, in NumPy.
  rows = []
  for part in range(4):
    where = slice(4 * part, 4 * part + 4)
    view = nn.layer_view(
      problems.model('binary', activation_estimator=ESTIMATOR),
      jax.tree.map(lambda leaf: leaf[0][1], networks.shared['starts']),
      *(leaf[1][where] for leaf in problems.arrays['trials'].batches[16][0]),
      layer,
    )
    rows.append(np.asarray(jax.grad(view.loss)(view.kernel), float).ravel())
  mean = np.mean(rows, axis=0)
  signs = np.where(np.asarray(on_a.kernel) >= 0, 1.0, -1.0)
  true = (signs * exact[0] / 2).ravel()
  gain = mean @ true / (true @ true)
  bias = np.linalg.norm(mean - gain * true) / np.linalg.norm(gain * true)
  noise = np.var(rows, axis=0, ddof=1).sum()
  signal = mean @ mean - noise / 4
  np.testing.assert_allclose(row.bias, bias, rtol=1e-3)
  np.testing.assert_allclose(row.signal_to_noise, signal / noise, rtol=1e-3)
  np.testing.assert_allclose(
    row.sparsity, np.mean(np.equal(rows, 0)), atol=1e-6
  )


def test_a_gradient_that_is_not_finite_is_near_to_nothing():
  whole, broken = np.float32([1, 2, 4]), np.float32([1, np.nan, 4])
  assert gradients._correlation(whole, whole) == pytest.approx(1)
  assert gradients._correlation(whole, 0 * whole) == 0
  assert np.isnan(gradients._correlation(broken, whole))
  assert np.isnan(gradients._correlation(whole, broken))


@pytest.mark.slow
def test_truths_equal_direct_calls(networks):
  known = gradients.truths(networks, sweeps.Sweep(), draws=8, flip_rate=0.0)
  for layer in ('Dense_0', 'Dense_1'):
    on_a, on_b = views(networks, 1, 7, layer)
    exact, smoothed, held = known[f'16 {layer}'][1, 1]
    np.testing.assert_allclose(exact, flip_by_flip(on_a), atol=1e-6)
    np.testing.assert_allclose(held, flip_by_flip(on_b), atol=1e-6)
    # Where no other weight flips, averaged gains are the exact ones.
    np.testing.assert_allclose(smoothed, exact, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('ball', ['l2:0.3', 'flips:9'])
def test_balls_equal_direct_calls(networks, ball):
  found = balls.spend(
    networks, sweeps.Sweep(), ESTIMATOR, balls=(ball,), num_rounds=4
  )
  state, seed = 1, 7
  row = found.sel(ball=ball, layers='first', state=toy.STATES[state], seed=seed)
  on_a, on_b = views(
    networks, state, seed, 'Dense_0', activation_estimator=ESTIMATOR
  )
  budget = searches.ball(ball)
  power = {'l2': 2, 'flips': 0}[budget.norm]
  step = scans.discrete_gradient(
    on_a, budget, rank_by=power, signal='linear', holdout=on_b
  )
  saved = row.once_search[0] - row.once_search[-1]
  np.testing.assert_allclose(saved, step.decrease_search, atol=1e-6)
  saved = row.once_holdout[0] - row.once_holdout[-1]
  np.testing.assert_allclose(saved, step.decrease_holdout, atol=1e-6)
  path = scans.multi_step_discrete_gradient(
    on_a, budget, 4, 'cumulative', rank_by=power, signal='linear', holdout=on_b
  )
  np.testing.assert_allclose(row.rounds_search, path.search, atol=1e-6)
  np.testing.assert_allclose(row.rounds_holdout, path.holdout, atol=1e-6)
  tuning = found.tuning_once_holdout
  assert tuning.tuning_seed.values.tolist() == list(CONFIG.tuning_seeds)


@pytest.mark.slow
def test_networks_on_digits_equal_direct_calls():
  config = toy.Config(
    dataset='digits', batch_size=(16,), hidden=(5,), seeds=(0, 7, 1000, 1001)
  )
  problems = toy.Problems(config, data.load('digits', split='all'))
  found = digits.train(
    problems,
    sweeps.Sweep(),
    ESTIMATOR,
    rates=(1e-3, 0.1),
    num_steps=8,
    tuning_seeds=(1000, 1001),
  )
  losses = {}
  for rate in (1e-3, 0.1):
    for seed in config.seeds:
      trial = problems.trial(seed, problems.arrays)
      variables = digits.fit(problems, ESTIMATOR, 8, rate, trial)
      on_a, on_b = trial.batches[16]
      posed = [
        nn.layer_view(problems.model('binary'), variables, *batch, 'Dense_1')
        for batch in (on_a, on_b)
      ]
      losses[rate, seed] = posed, float(posed[1].loss(posed[1].kernel))
  rate = found.attrs['digits_rate']
  means = {
    each: losses[each, 1000][1] + losses[each, 1001][1] for each in (1e-3, 0.1)
  }
  assert means[rate] == min(means.values())
  assert found.seed.values.tolist() == [0, 7]
  posed, loss = losses[rate, 7]
  row = found.sel(seed=7)
  np.testing.assert_allclose(row.test_loss, loss, rtol=1e-5)
  gains, held = map(flip_by_flip, posed)
  start = float(posed[0].loss(posed[0].kernel))
  helps = gains > 1e-6 * start
  part = row.sel(part='Dense_1')
  np.testing.assert_allclose(part.improving, helps.mean(), atol=1e-6)
  np.testing.assert_allclose(part.holds, (held > 1e-6 * loss)[helps].mean())
  logits = posed[1].logits(posed[1].kernel)
  right = np.mean(np.argmax(logits, -1) == posed[1].labels)
  np.testing.assert_allclose(row.test_accuracy, right)


def test_curves_and_properties():
  x, passed = gradients.curve(quantizers.window(0.5), 1001, 0.0)
  np.testing.assert_array_equal(passed, (np.abs(x) <= 0.5).astype(float))
  assert np.sqrt(np.mean(x**2)) == pytest.approx(1, abs=0.01)
  _, relative = gradients.curve(ESTIMATOR, 1001, 0.0)
  _, same = gradients.curve(quantizers.gaussian(0.3), 1001, 0.0)
  np.testing.assert_allclose(relative, same, rtol=0.1, atol=1e-3)
  for text, wanted in (
    ('window(1)', (False, True, True)),
    ('error_decay()', (True, True, True)),
    ('gaussian(0.3,relative)', (False, True, False)),
    ('clip(0.5)', (False, False, True)),
    ('clip_quantile(0.9)', (False, True, False)),
  ):
    found = gradients.properties(names.make(text))
    assert tuple(found.values()) == wanted, text


def test_times_are_those_of_programs_that_take_turns(networks, monkeypatch):
  """A clock that counts 1 s for every call of the estimator and 2 s for the normal STE."""
  clock = [0.0]
  monkeypatch.setattr(speed.time, 'perf_counter', lambda: clock[0])

  def program(seconds):
    def run():
      clock[0] += seconds
      return jnp.zeros(())

    return run

  monkeypatch.setattr(
    speed, '_cotangent', lambda one: program(1 + (one is not ESTIMATOR))
  )
  monkeypatch.setattr(speed, '_gradient', lambda _, one: program(3.0))
  found = speed.measure(networks.problems, sweeps.Sweep(), ESTIMATOR, turns=2)
  np.testing.assert_allclose(found.entry_ns, [1e9 / np.prod(speed.SHAPE)] * 2)
  np.testing.assert_allclose(found.entry_ratio, [0.5, 0.5])
  np.testing.assert_allclose(found.step_ratio, [1.0, 1.0])


OWN = """
import jax.numpy as jnp

def triangle(g, x, x_q, progress):
  return g * jnp.maximum(0, 1 - jnp.abs(x))
"""
ARGV = ['report_card', '--preset=smoke', '--balls=l2:0.1', '--batch_size=32']


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  (tmp_path / 'own_triangle.py').write_text(OWN)
  yield tmp_path
  sys.modules.pop('own_triangle', None)


def run(capsys, *argv):
  assert command.main([*ARGV, *argv]) == 0
  out, err = capsys.readouterr()
  return out.splitlines(), err


@pytest.mark.study
def test_cards_of_ones_own_are_kept_and_go_on(here, capsys):
  own = '--estimators=window(0.5),own_triangle:triangle'
  written, err = run(capsys, own)
  assert written == [
    'runs/report_card/smoke/window-1.html',
    'runs/report_card/smoke/window-0.5.html',
    f'runs/report_card/smoke/{names.slug("own_triangle:triangle")}.html',
    'runs/report_card/smoke/index.html',
  ]
  assert '[3/3] own_triangle:triangle' in err and 'left' in err
  folder = pathlib.Path('runs/report_card/smoke')
  pages = {path.name: path.read_text() for path in folder.glob('*.*')}
  assert len(pages) == 8
  for text in pages.values():
    assert '<script' not in text and 'src=' not in text
  board = json.loads(pages['index.json'])
  assert {row['estimator'] for row in board['estimators']} == {
    'window(1)', 'window(0.5)', 'own_triangle:triangle',
  }  # fmt: skip
  assert 'identity()' in board['not_measured']

  # Everything is there: nothing is compiled, and the pages are the same.
  _, err = run(capsys, own)
  assert 'compiling' not in err and err.count('read from the run of') == 3
  again = {path.name: path.read_text() for path in folder.glob('*.*')}
  assert again == pages

  # Another source of one's own changes that card alone.
  sys.modules.pop('own_triangle')
  changed = OWN.replace('1 - jnp', '2 - jnp')
  (here / 'own_triangle.py').write_text(changed)
  _, err = run(capsys, own)
  assert 'own_triangle:triangle: its code has changed (own_triangle)' in err
  assert err.count('read from the run of') == 2
  name = f'{names.slug("own_triangle:triangle")}.json'
  assert (folder / name).read_text() != pages[name]
  assert (folder / 'window-0.5.json').read_text() == pages['window-0.5.json']

  # What was stopped goes on: only what is missing is computed.
  shutil.rmtree(folder / 'numbers' / 'window-0.5' / 'chunks' / 'digits')
  (folder / 'numbers' / 'window-0.5' / 'results.nc').unlink()
  _, err = run(capsys, '--estimators=window(0.5)')
  assert re.findall(r'^(\w+): compiling', err, re.MULTILINE) == ['digits']
  assert 'digits_training: 3 lanes, all done before' in err
  # The leaderboard keeps what was not asked for this time.
  board = json.loads((folder / 'index.json').read_text())
  assert len(board['estimators']) == 3

  # Another configuration does not mix with it.
  argv = [*ARGV, '--estimators=window(0.5)', '--seeds=0,1,2,3']
  before = sorted(here.rglob('*'))
  assert command.main(argv) == 2
  err = capsys.readouterr().err
  assert 'choose another --out' in err and err.count('\n') == 1
  assert sorted(here.rglob('*')) == before


@pytest.mark.study
def test_a_training_on_small_images():
  config = config_lib.Config(**config_lib.PRESETS['smoke'])
  rng = np.random.default_rng(0)

  def dataset(size):
    images = rng.integers(0, 256, (size, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(size, dtype=np.int32) % 10
    return data.Dataset('images', 'train', images, labels, 10, 1 / 255)

  parts = recipes.Parts(dataset(640), dataset(20), dataset(30))
  found = cifar.train(config, parts, sweeps.Sweep(), 'gaussian(0.3,relative)')
  assert found.cifar_test_accuracy.shape == (2,)
  right = found.cifar_test_accuracy.values * 30  # A whole number of 30 images.
  np.testing.assert_allclose(right, np.round(right), atol=1e-4)
  assert (found.cifar_rate == 1).all()
