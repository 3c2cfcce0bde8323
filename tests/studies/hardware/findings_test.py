"""N17, judged on tables whose answer is known."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

from bitjax.evidence import plots
from bitjax.evidence import verdicts
from bitjax.studies.hardware import accounts
from bitjax.studies.hardware import figure
from bitjax.studies.hardware import findings
from tests.studies import answered

SEEDS = 6
ARMS = {  # Label -> bits, width, equal energy, equal memory.
  '1 bit, width 8': ('1', 8, False, False),
  '4 bits, width 8': ('4', 8, True, True),
  '1 bit, width 20': ('1', 20, True, False),
  '1 bit, width 30': ('1', 30, False, True),
  '2 bits, width 12': ('2', 12, True, True),
  '32 bits, width 3': ('32', 3, True, True),
}
REAL, BINARY, FLOAT = (
  'ResNet-20, W1A1, Bi-Real', 'ResNet-20, W1A1', 'ResNet-20, W32A32',
)  # fmt: skip


def compared(
  operations=(10.0, 10.0, 400.0),
  shortcuts=8.0,
  boolnet=((1, 2), (2, 3), (3, 4)),
  **points,
):
  """Returns outcomes whose test accuracy is 0.5 plus the `points` of an arm.

  Networks differ in one answer of 4000 at random. Counted are a network of 10 to 12
  microjoules, one of those and of ``shortcuts`` and 300, and one of 200 to 300.
  """
  shape = (len(ARMS), SEEDS)
  energy = np.zeros((3, 4, 2))
  energy[:, 0] = [[10, 12], [10, 12], [200, 300]]
  energy[1, 3] = shortcuts
  real = np.zeros((3, 4, 2))
  real[0, 0] = 3
  dims, columns = ('arm', 'seed'), list(zip(*ARMS.values(), strict=True))
  along = {
    'bits': columns[0],
    'width': columns[1],
    'equal_energy': columns[2],
    'equal_memory': columns[3],
    'operations': np.arange(6.0),
    'memory': 100.0 + np.arange(6),
    'energy_low': 1.0 + np.arange(6),
    'energy_high': 2.0 + np.arange(6),
    'latency': [100, 200, 300, 400, 500, np.nan],
  }
  return xarray.Dataset(
    {
      **answered.answered([*ARMS], SEEDS, points),
      'validation_loss': ((*dims, 'epoch'), np.ones((*shape, 2))),
      'tuning_validation_loss': (
        ('arm', 'rate', 'tuning_seed'),
        np.ones((len(ARMS), 2, 4)) + np.array([[1.0], [0.0]]),
      ),
      'counted_operations': ('counted', [1e6 * n for n in operations]),
      'counted_memory': ('counted', [1e4, 1e4, 1e6]),
      'counted_energy': (('counted', 'part', 'side'), energy),
      'float_energy': (('counted', 'part', 'side'), real),
      'boolnet_operations': ('boolnet', [1e8, 2e8, 2e8]),
      'boolnet_energy': (('boolnet', 'side'), np.array(boolnet)),
      'published_operations': ('boolnet', [1e8, 1e8, 2e8]),
      'published_energy': ('boolnet', [0.6, 0.7, 4.0]),
    },
    {
      'arm': list(ARMS),
      'seed': range(SEEDS),
      'rate': [0.3, 1.0],
      'tuning_seed': range(1000, 1004),
      'epoch': [1, 2],
      'counted': [BINARY, REAL, FLOAT],
      'part': list(accounts.PARTS),
      'boolnet': ['small', 'middle', 'large'],
      'side': ['low', 'high'],
      **{name: ('arm', list(values)) for name, values in along.items()},
    },
    {'test_examples': answered.EXAMPLES},
  )


def judged(results):
  return {found.finding: found for found in findings.judge(results)}


def test_accuracies_at_equal_cost():
  found = judged(
    compared(
      **{
        '1 bit, width 20': 0.03,
        '1 bit, width 30': -0.02,
        '2 bits, width 12': 0.02,
      }
    )
  )
  assert [v.finding for v in found.values() if v.primary] == [
    'N17 equal energy'
  ]
  for finding, verdict, effect in (
    ('N17 equal energy', 'supported', 3.0),
    ('N17 equal energy, others', 'supported', 2.0),
    ('N17 equal memory', 'contradicted', -2.0),
    ('N17 equal memory, others', 'supported', 2.0),
  ):
    one = found[finding]
    assert (one.verdict, one.num_seeds) == (verdict, SEEDS), finding
    np.testing.assert_allclose(one.effect, effect, atol=0.06)
  details = found['N17 equal energy'].details
  assert details['microjoules, least, 1 bit, width 20'] == 3
  assert details['rate, 4 bits, width 8'] == 1


def test_what_is_counted():
  found = judged(compared())
  # Two of three pairs differ in energy; the binary ones overlap no more with shortcuts.
  ordering = found['N17 operations']
  assert ordering.verdict == 'contradicted' and ordering.num_seeds == 0
  np.testing.assert_allclose(ordering.effect, 1 / 3)
  np.testing.assert_allclose(
    ordering.details[f'times the energy, {REAL} against {BINARY}'], 18 / 12
  )
  share = found['N17 shortcuts']
  np.testing.assert_allclose([share.low, share.high], [8 / 20, 8 / 18])
  assert share.verdict == 'contradicted'
  saved = found['N17 saved']
  np.testing.assert_allclose([saved.low, saved.high], [200 / 12, 300 / 10])
  assert saved.verdict == 'supported'
  assert saved.details['times fewer operations'] == 40
  text = verdicts.text([saved])
  assert 'within [16.7, 30]' in text and '0 seeds' not in text


@pytest.mark.parametrize(
  ('operations', 'shortcuts', 'wanted'),
  [
    ((10, 20, 400), 8.0, ('supported', 'contradicted', 'supported')),
    ((10, 9, 400), 8.0, ('contradicted', 'contradicted', 'supported')),
    ((10, 20, 100), 8.0, ('supported', 'contradicted', 'contradicted')),
    ((10, 10, 250), 11.0, ('contradicted', 'inconclusive', 'inconclusive')),
    ((10, 10, 400), 30.0, ('contradicted', 'supported', 'supported')),
  ],
)
def test_verdicts_by_bands(operations, shortcuts, wanted):
  found = judged(compared(operations, shortcuts))
  names = ('operations', 'shortcuts', 'saved')
  assert tuple(found[f'N17 {name}'].verdict for name in names) == wanted


def test_the_order_of_published_energies():
  one = judged(compared())['N17 BoolNet']
  assert (one.verdict, one.effect, one.num_seeds) == ('supported', 1, 0)
  assert one.details['operations, middle, of those published'] == 2
  # The second is below the first at one end of the band only.
  one = judged(compared(boolnet=((1, 3.5), (2, 3), (3, 4))))['N17 BoolNet']
  assert one.verdict == 'contradicted'
  np.testing.assert_allclose(one.effect, 2 / 3)


def test_seeds_that_diverged(as_if_not_run):
  results = compared(**{'1 bit, width 20': 0.03})
  as_if_not_run(
    lambda table: list(findings._accuracies(table)),
    results,
    ['validation_loss'],
  )


def test_figures():
  with plots.style():
    drawn = figure.page(compared())
    assert len(drawn['figure'].axes) == 3
    assert len(drawn['figure_supplement'].axes) == 2
    plt.close('all')
