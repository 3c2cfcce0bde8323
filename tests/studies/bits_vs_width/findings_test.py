"""N14, judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies.bits_vs_width import arms as arms_lib
from bitjax.studies.bits_vs_width import figure
from bitjax.studies.bits_vs_width import findings
from bitjax.studies.recipes import families
from tests.studies.bits_vs_width import counted

SEEDS, EPOCHS = 6, 5
MLPS = counted.Counted()
BITS = ('1', '2', '4', '32')


def loss(arm, gained=0.0):
  """A loss that falls by 20 % with each doubling of bits, by 40 % with each of weights."""
  bits = families.BITS[arm.cell.bits][0]
  log = -0.2 * np.log2(bits) - 0.4 * np.log2(MLPS.weights(arm.cell))
  found = 20 * np.exp(log)
  if arm.kind == 'projected' and arm.cell.bits == '1':
    return found - gained
  return found


def compared(bits=BITS, seeds=SEEDS, gained=0.0, noise=1e-3):
  """Returns outcomes of losses as `loss` says, but for a little noise."""
  rows = arms_lib.series(MLPS, bits, arms_lib.SERIES, 8)
  arms = arms_lib.every(
    MLPS, bits, (4, 8, 16), arms_lib.KINDS, arms_lib.SERIES, 8
  )
  draw = np.random.default_rng(0)
  shape = (len(arms), seeds)
  losses = np.array([loss(arm, gained) for arm in arms])[:, None]
  losses = losses + noise * draw.standard_normal(shape)
  doublings = np.log2([arm.cell.width for arm in arms])[:, None]
  test = np.broadcast_to(0.9 - 0.02 * doublings, shape)
  one = np.array([arm.cell.bits == '1' for arm in arms])[:, None]
  # Above 0.5 nats until the second epoch, and at 1 bit until the fourth.
  curve = np.where(np.arange(1, EPOCHS + 1) < np.where(one, 4, 2), 0.6, 0.4)
  curve = np.broadcast_to(curve[:, None], (*shape, EPOCHS)).copy()
  dims = ('arm', 'seed')
  tuning = np.broadcast_to([[2.0] * 4, [1.0] * 4], (len(arms), 2, 4)).copy()
  return xarray.Dataset(
    {
      'train_loss': (dims, losses),
      'test_loss': (dims, losses),
      'train_accuracy': (dims, np.broadcast_to(0.9 + 0 * test, shape)),
      'test_accuracy': (dims, test),
      'noisy_accuracy': ((*dims, 'noise'), test[..., None] - [0.1, 0.2]),
      'flipped_accuracy': ((*dims, 'flips'), test[..., None] * [1, 0.5]),
      'curve': ((*dims, 'epoch'), curve),
      'tuning_train_loss': (('arm', 'rate', 'tuning_seed'), tuning),
    },
    {
      'arm': list(map(str, arms)),
      'bits': ('arm', [arm.cell.bits for arm in arms]),
      'width': ('arm', [arm.cell.width for arm in arms]),
      'kind': ('arm', [arm.kind for arm in arms]),
      'weights': ('arm', [MLPS.weights(arm.cell) for arm in arms]),
      'total_bits': ('arm', [MLPS.total_bits(arm.cell) for arm in arms]),
      **{
        f'equal_{name}': ('arm', [arm.cell in rows[name] for arm in arms])
        for name in arms_lib.SERIES
      },
      'rate': [0.3, 1.0],
      'seed': range(seeds),
      'tuning_seed': range(1000, 1004),
      'epoch': np.arange(1.0, EPOCHS + 1),
      'noise': [0.1, 0.2],
      'flips': [0.01, 0.1],
    },
  )


def judged(results):
  return {found.finding: found for found in findings.judge(results)}


@pytest.fixture(scope='module')
def results():
  return compared(gained=0.3)


def test_claims(results):
  found = judged(results)

  def at(bits, equal, kind='scratch'):
    cells = arms_lib.series(MLPS, BITS, (equal,), 8)[equal]
    (cell,) = [cell for cell in cells if cell.bits == bits]
    return loss(arms_lib.Arm(cell, kind), 0.3)

  for finding, verdict, effect in (
    ('N14 equal total bits', 'supported', at('1', 'bits') - at('4', 'bits')),
    ('N14 equal total bits, 2 bits', 'supported', at('4', 'bits') - at('2', 'bits')),
    ('N14 equal width, 1 bit', 'contradicted', at('4', 'width') - at('1', 'width')),
    ('N14 equal width, 32 bits', 'supported', at('4', 'width') - at('32', 'width')),
    ('N14 equal operations, 1 bit', 'supported', at('4', 'operations') - at('1', 'operations')),
    ('N14 capacity, equal width', 'supported', at('1', 'width') - at('32', 'width')),
    ('N14 capacity, equal total bits', 'contradicted', at('1', 'bits') - at('4', 'bits')),
    ('N14 optimisation', 'supported', 0.3),
    ('N14 optimisation, because of bits', 'supported', 0.3),
    ('N14 epochs', 'supported', 2),
    ('N14 generalisation, 1 bit', 'supported', 2),
    ('N14 generalisation, 32 bits', 'supported', 2),
    ('N14 robustness noise, 1 bit', 'contradicted', -2),
    ('N14 robustness noise, loss of accuracy, 1 bit', 'equivalent', 0),
    ('N14 robustness flips, 1 bit', 'contradicted', -1),
    ('N14 robustness flips, loss of accuracy, 32 bits', 'contradicted', -1),
    ('N14 bits', 'supported', 0.2),
    ('N14 units', 'supported', 0.4),
    ('N14 bits or units', 'supported', 0.2),
  ):  # fmt: skip
    one = found[finding]
    assert (one.verdict, one.num_seeds) == (verdict, SEEDS), finding
    np.testing.assert_allclose(one.effect, effect, atol=0.01, err_msg=finding)
  assert [v.finding for v in found.values() if v.primary] == [
    'N14 equal total bits'
  ]
  details = found['N14 equal total bits'].details
  assert details['rate, 4 bits, width 8'] == 1.0
  assert details['tuned otherwise, 4 bits, width 8'] == 0
  for one in found.values():
    assert any('tuned otherwise' in name for name in one.details), one.finding
  # All but the noise is a plane.
  explained = found['N14 units'].details['variance of log losses explained']
  np.testing.assert_allclose(explained, 1, atol=1e-3)


def test_full_precision_is_left_out_of_the_regression():
  """Its losses, here of another law, change no coefficient."""
  results = compared()
  other = results.train_loss.where(results.bits != '32', 1.0)
  for finding in ('N14 bits', 'N14 units'):
    one = judged(results)[finding]
    changed = judged(results.assign(train_loss=other))[finding]
    assert one.effect == changed.effect
    assert (
      one.details['networks']
      == (results.kind == 'scratch').sum()
      - ((results.kind == 'scratch') & (results.bits == '32')).sum()
    )


def test_a_training_that_diverged_is_left_out(results):
  lost = results.copy(deep=True)
  arm = str(lost.arm.values[(lost.bits == '1') & lost.equal_bits][0])
  lost['train_loss'].loc[{'arm': arm, 'seed': 2}] = np.nan
  found = judged(lost)
  for finding in ('N14 equal total bits', 'N14 units', 'N14 bits or units'):
    assert found[finding].num_seeds == SEEDS - 1, finding
    assert found[finding].details['diverged'] == 1


def test_epochs_that_are_never_enough():
  curve = xarray.DataArray(
    [[0.6, 0.5, 0.7], [0.9, 0.8, 0.7], [0.1, np.nan, np.nan]],
    {'seed': range(3), 'epoch': [1.0, 2.0, 2.5]},
    ('seed', 'epoch'),
  )
  found, never = findings.epochs_to(curve)
  np.testing.assert_array_equal(found, [2, 2.5, np.nan])
  np.testing.assert_array_equal(never, [False, True, False])


def test_one_seed_has_no_interval():
  for one in judged(compared(seeds=1)).values():
    assert (one.verdict, one.num_seeds) == ('inconclusive', 1)


def test_two_numbers_of_bits_and_no_other_kinds():
  results = compared(bits=('1', '4'))
  results = results.sel(arm=results.kind == 'scratch')
  found = judged(results)
  assert 'N14 equal total bits' in found and 'N14 bits or units' in found
  assert not any('capacity' in f or 'optimisation' in f for f in found)


def test_figures(results, complaints):
  from bitjax.evidence import plots

  with plots.style():
    for fig in figure.page(results).values():
      assert complaints(fig) == []
