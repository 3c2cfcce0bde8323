"""Claims are judged as their samples say."""

import numpy as np
import pytest

from bitjax.studies import contrasts

INFO = {'unit': 'nats', 'protocol': 'oracle'}
NOISE = np.random.default_rng(0).normal(size=20)


@pytest.mark.parametrize(
  ('shift', 'direction', 'verdict'),
  [
    (5, 1, 'supported'),
    (-5, 1, 'contradicted'),
    (-5, -1, 'supported'),
    (0, 1, 'inconclusive'),
  ],
)
def test_difference(shift, direction, verdict):
  found = contrasts.difference(
    'N1', 'claim.', shift + NOISE - NOISE.mean(), direction=direction, **INFO
  )
  assert found.verdict == verdict and found.num_seeds == 20
  assert found.effect == pytest.approx(shift)


def test_diverged_samples_are_counted():
  samples = np.append(5 + NOISE, np.nan)
  found = contrasts.difference('N1', 'claim.', samples, **INFO)
  assert found.details['diverged'] == 1 and found.num_seeds == 20


@pytest.mark.parametrize(
  ('scale', 'shift', 'verdict'),
  [(0.1, 0, 'supported'), (0.1, 3, 'contradicted'), (9, 0, 'inconclusive')],
)
def test_equivalent(scale, shift, verdict):
  samples = shift + scale * (NOISE - NOISE.mean())
  found = contrasts.equivalent('N1', 'claim.', samples, 1.0, **INFO)
  assert found.verdict == verdict and found.details['margin'] == 1.0


@pytest.mark.parametrize(
  ('shifts', 'verdict'),
  [
    ((0, 5), 'supported'),
    ((-5, -6), 'contradicted'),
    ((0, -5), 'inconclusive'),
  ],
)
def test_any_arm(shifts, verdict):
  centred = NOISE - NOISE.mean()
  arms = {f'arm {s}': s + centred for s in shifts}
  found = contrasts.any_arm('N1', 'claim.', arms, **INFO)
  assert found.verdict == verdict
  assert found.effect == pytest.approx(max(shifts))


def test_variances():
  info = {'protocol': 'oracle'}
  found = contrasts.variances('N1', 'claim.', NOISE, 10 * NOISE[::-1], **info)
  assert found.verdict == 'supported'
  assert found.effect == pytest.approx(np.log(0.01))
  found = contrasts.variances('N1', 'claim.', 10 * NOISE[::-1], NOISE, **info)
  assert found.verdict == 'contradicted'
