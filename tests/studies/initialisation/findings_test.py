"""N16, judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies.initialisation import arms as arms_lib
from bitjax.studies.initialisation import figure
from bitjax.studies.initialisation import findings

SEEDS, EXAMPLES, LAYERS = 6, 4000, 6
STARTS = ('xavier', 'scaled 10', 'fitted')
DEPTHS, SHORTCUTS = ('resnet8', 'resnet20'), ('plain', 'bireal')
PASSING = ('kaiming_normal', 'gain 0.5', 'kaiming_normal, small')


def compared(seeds=SEEDS, starts=STARTS, **points):
  """Returns results in which an arm reaches 50 % and what its `points` add.

  Points are given by name of a start or a change, or of two changes: ``small_fast``.
  """
  arms = arms_lib.every(starts)
  draw = np.random.default_rng(0)
  number = EXAMPLES // 2 + draw.integers(0, 2, (len(arms), seeds))
  for row, arm in enumerate(arms):
    changes = [c for c in arms_lib.CHANGES if getattr(arm, c)]
    pairs = [f'{a}_{b}' for a in changes for b in changes if a != b]
    for name in (arm.start.replace(' ', '_'), *changes, *pairs):
      number[row] += round(points.get(name, 0) * EXAMPLES / 100)
  right = np.arange(EXAMPLES) < number[..., None]
  dims, shape = ('arm', 'seed'), (len(arms), seeds)
  noise = draw.normal(size=shape) / 100
  small = np.asarray([arm.small for arm in arms])[:, None]
  case = ('depth', 'shortcut', 'start', 'seed')
  sizes = (len(DEPTHS), len(SHORTCUTS), len(PASSING), seeds)
  jitter = draw.normal(size=sizes) / 5000
  start = np.arange(len(PASSING))[:, None]
  halvings = np.asarray([0.2, -0.1])[:, None, None] + jitter
  position = np.arange(1.0, LAYERS + 1)
  norms = -5 - 1.3 * (start == 2) + jitter
  return xarray.Dataset(
    {
      'test_right': ((*dims, 'test_byte'), np.packbits(right, axis=-1)),
      'test_accuracy': (dims, right.mean(-1)),
      'validation_loss': (dims, np.ones(shape)),
      'train_loss': (dims, 1 - 0.1 * small + noise),
      'spread': (dims, 0.3 * 2.0 ** (noise - 0.02 * small)),
      'flips': ((*dims, 'epoch'), 0.01 * 2.0 ** (noise - small)[..., None] * [1, 0.1]),
      'tuning_validation_loss': (
        ('arm', 'rate', 'tuning_seed'),
        np.broadcast_to([[2.0] * 4, [1.0] * 4], (len(arms), 2, 4)).copy(),
      ),
      'inner': (case, np.ones(sizes)),
      'mass': (case, 0.6 + 0.2 * (start == 1) + jitter),
      'halvings': (case, halvings),
      'log_norm': (case, norms),
      'span': (case, LAYERS * halvings),
      'mass_at': ((*case, 'position'), np.full((*sizes, LAYERS), 0.6)),
      'log_norm_at': (
        (*case, 'position'),
        norms[..., None] + halvings[..., None] * position,
      ),
    },
    {
      'arm': list(map(str, arms)),
      'begun': ('arm', [arm.start for arm in arms]),
      **{n: ('arm', [getattr(a, n) for a in arms]) for n in arms_lib.CHANGES},
      'seed': range(seeds),
      'rate': [0.41, 1.0],
      'tuning_seed': range(1000, 1004),
      'depth': list(DEPTHS),
      'shortcut': list(SHORTCUTS),
      'start': list(PASSING),
      'position': position,
    },
    {'test_examples': EXAMPLES},
  )  # fmt: skip


def judged(results):
  return {found.finding: found for found in findings.judge(results)}


def test_claims():
  found = judged(
    compared(small=2, fast=-3, small_fast=3, xavier=1.5, fitted=-2)
  )
  for finding, verdict, effect in (
    # A factor's mean effect holds half of its interaction.
    ('N16 classifier', 'supported', 3.5),
    ('N16 classifier, rate', 'contradicted', -1.5),
    ('N16 classifier, decay', 'equivalent', 0),
    ('N16 classifier, rate and spread', 'supported', 3),
    ('N16 classifier, decay and spread', 'equivalent', 0),
    ('N16 classifier, as published', 'supported', 2),
    ('N16 classifier, small or fast', 'contradicted', -5),
    ('N16 classifier, flips', 'supported', -1),
    ('N16 classifier, end', 'equivalent', -0.02),
    ('N16 classifier, fit', 'supported', -0.1),
    ('N16 initialisation, better', 'supported', 1.5),
    ('N16 initialisation, worse', 'supported', 2),
    ('N16 window of signs, resnet8, plain', 'inert', 0),
    ('N16 share, gain 0.5, bireal', 'supported', 20),
    ('N16 share, kaiming_normal, small, plain', 'equivalent', 0),
    ('N16 depth, resnet20, plain', 'supported', 0.2),
    ('N16 depth, resnet20, bireal', 'contradicted', -0.1),
    ('N16 depth, gain 0.5, plain', 'equivalent', 0),
    ('N16 first layer, resnet8, plain', 'supported', 1.2),
    ('N16 first layer, resnet20, bireal', 'contradicted', -0.6),
    ('N16 gradient, resnet8, bireal', 'supported', 1.3),
  ):
    one = found[finding]
    assert (one.verdict, one.num_seeds) == (verdict, SEEDS), finding
    np.testing.assert_allclose(one.effect, effect, atol=0.06, err_msg=finding)
  assert [v.finding for v in found.values() if v.primary] == ['N16 classifier']
  details = found['N16 classifier'].details
  np.testing.assert_allclose(
    [details['kaiming_normal'], details['kaiming_normal, small, fast']],
    [50, 52],
    atol=0.05,
  )
  assert details['rate, kaiming_normal'] == 1.0
  assert details['tuned otherwise, kaiming_normal, small'] == 0
  details = found['N16 initialisation, better'].details
  np.testing.assert_allclose(details['fitted'], -2, atol=0.05)
  factor = found['N16 depth, resnet8, plain'].details['factor of a layer']
  np.testing.assert_allclose(factor, 2**-0.2, rtol=1e-3)


def test_effects_are_those_of_a_regression():
  """The coefficients of columns of plus and minus one half, and their products."""
  results = compared(small=1, decayed=2, small_decayed=-1.5, small_fast=0.5)
  table = findings.Table(results)
  arms = table.factorial
  signs = np.asarray(
    [[2 * getattr(a, c) - 1 for c in arms_lib.CHANGES] for a in arms]
  )
  small, fast, decayed = (signs / 2).T
  design = np.column_stack([
    np.ones(8), small, fast, decayed, small * fast, small * decayed,
    fast * decayed, small * fast * decayed,
  ])  # fmt: skip
  reached = np.asarray([table.right(arm).mean() for arm in arms])
  fitted = np.linalg.solve(design, reached)
  for column, changes in ((1, ('small',)), (2, ('fast',)), (3, ('decayed',))):
    found = table.effect(*changes).mean()
    np.testing.assert_allclose(found, fitted[column], atol=1e-5)
  for column, other in ((4, 'fast'), (5, 'decayed')):
    found = table.effect('small', other).mean()
    np.testing.assert_allclose(found, fitted[column], atol=1e-5)


def test_a_training_that_diverged_is_left_out():
  lost = compared(small=2)
  lost['validation_loss'].loc[{'arm': 'kaiming_normal, fast', 'seed': 2}] = (
    np.nan
  )
  found = judged(lost)
  for finding in ('N16 classifier', 'N16 classifier, flips'):
    assert found[finding].num_seeds == SEEDS - 1, finding
  published = found['N16 classifier, as published']
  assert published.num_seeds == SEEDS


def test_one_seed_and_no_other_starts():
  found = judged(compared(seeds=1, starts=()))
  assert not any('initialisation' in finding for finding in found)
  for finding, one in found.items():
    assert one.num_seeds == 1
    wanted = 'inert' if 'window of signs' in finding else 'inconclusive'
    assert one.verdict == wanted, finding


@pytest.mark.parametrize('starts', [STARTS, ()])
def test_figures(complaints, starts):
  from bitjax.evidence import plots

  with plots.style():
    for fig in figure.page(compared(starts=starts)).values():
      assert complaints(fig) == []
