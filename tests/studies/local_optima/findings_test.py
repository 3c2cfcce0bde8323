"""N15 and N16, judged on a table whose answer is known."""

import numpy as np
import xarray

from bitjax.studies.local_optima import findings


def table():
  seeds, rng = 12, np.random.default_rng(0)
  dims = ('estimator', 'seed')
  shape = (2, seeds)

  def values(value, *extra):
    noise = 1 + 0.001 * rng.normal(size=(*shape, *extra))
    return np.broadcast_to(value, (*shape, *extra)) * noise

  table = {f'trained_{batch}': (dims, values(0.5)) for batch in findings.NAMES}
  table |= {
    'descended_search': (dims, values(0.05)),
    'descended_holdout': (dims, values(0.75)),
    'additivity': (dims, values(0.4)),
  }
  for name in ('num_flips', 'certified', 'accuracy_search', 'accuracy_holdout'):
    table[name] = (dims, values(1.0))
  layered = (*dims, 'layer')
  shares = {
    'improving': 0.4, 'significant': 0.1, 'mirrored': 0.2, 'holds': 0.6,
    'significant_holds': 0.5, 'random_holds': 0.5, 'is_optimum': 0.0,
    'mean_holdout': 0.01,
  }  # fmt: skip
  table |= {name: (layered, values(x, 1)) for name, x in shares.items()}
  other = table['improving'][1]
  other[1] *= 0.5  # The other estimator ends nearer to an optimum.
  again = (*dims, 'perturbed')
  table |= {
    'again_search': (again, values(0.05, 1)),
    'again_holdout': (again, values(0.35, 1)),
    'again_certified': (again, values(1.0, 1)),
    'perturbed_search': (again, values(0.3, 1)),
  }
  return xarray.Dataset(
    table,
    {
      'estimator': ['normal', 'other'], 'seed': range(seeds), 'layer': ['all'], 'perturbed': [8],
    },
  )  # fmt: skip


def test_seeds_that_diverged(as_if_not_run):
  as_if_not_run(findings.judge, table(), ['trained_search'])


def test_verdicts_of_a_known_table():
  results = table()
  verdicts = {verdict.finding: verdict for verdict in findings.judge(results)}
  judged = {name: verdict.verdict for name, verdict in verdicts.items()}
  primary = verdicts['N15 descent, held-out']
  assert primary.primary and not verdicts['N15 descent, training'].primary
  np.testing.assert_allclose(primary.effect, np.log(0.5 / 0.75), atol=0.01)
  assert judged['N15 descent, held-out'] == 'contradicted'
  assert judged['N15 descent, training'] == 'supported'
  assert judged['N15 optimum'] == 'contradicted'
  assert judged['N15 holds'] == 'supported'
  assert judged['N15 additivity'] == 'supported'
  assert judged['N15 nearest'] == 'supported'
  assert judged['N16 escape, held-out, 8 flips'] == 'supported'
  alone = findings.judge(results.isel(estimator=[0]))
  compared = {name for name in verdicts if name.startswith('N15 nearest')}
  compared |= {name for name in verdicts if name.startswith('N15 flips after')}
  assert {verdict.finding for verdict in alone} == set(verdicts) - compared
  single = findings.judge(results.isel(seed=[0]))
  assert {verdict.finding for verdict in single} == set(verdicts)
  for verdict in single:
    assert (verdict.verdict, verdict.num_seeds) == ('inconclusive', 1)
    assert 'One seed: no interval' in verdict.caveat
