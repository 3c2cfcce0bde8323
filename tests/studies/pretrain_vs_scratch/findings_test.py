"""N19, judged on tables whose answer is known."""

import numpy as np
import pytest
import xarray

from bitjax.studies.pretrain_vs_scratch import arms as arms_lib
from bitjax.studies.pretrain_vs_scratch import findings
from tests.studies import answered

SEEDS = 6


def compared(
  precisions=('W1A1', 'FP'),
  starts=('scratch', 'pretrained', 'half'),
  mixups=(0.0, 1.0),
  seeds=SEEDS,
  **points,
):
  """Returns outcomes whose test accuracy is 0.5 plus the `points` of its arm.

  Names of arms are given with underscores. Networks differ in one answer of 4000 at
  random; on the training set all reach 0.6.
  """
  arms = arms_lib.every(precisions, starts, mixups)
  labels = [str(arm) for arm in arms]
  known = {
    label.replace(', ', '_').replace(' ', '_'): label for label in labels
  }
  points = {known[arm]: value for arm, value in points.items()}
  dims, shape = ('arm', 'seed'), (len(arms), seeds)
  tuning = np.broadcast_to([[2.0] * 4, [1.0] * 4], (len(arms), 2, 4)).copy()
  return xarray.Dataset(
    {
      **answered.answered(labels, seeds, points),
      'clean_train_accuracy': (dims, np.full(shape, 0.6, np.float32)),
      'validation_loss': (dims, np.ones(shape)),
      'curve': ((*dims, 'epoch'), np.ones((*shape, 2))),
      'tuning_validation_loss': (('arm', 'rate', 'tuning_seed'), tuning),
    },
    {
      'arm': labels,
      'precision': ('arm', [arm.precision for arm in arms]),
      'start': ('arm', [arm.start for arm in arms]),
      'alpha': ('arm', [arm.mixup for arm in arms]),
      'rate': [0.3, 1.0],
      'seed': range(seeds),
      'tuning_seed': range(1000, 1004),
      'epoch': [1, 2],
    },
    {'test_examples': answered.EXAMPLES},
  )


def judged(results):
  return {found.finding: found for found in findings.judge(results)}


def test_claims():
  found = judged(
    compared(
      W1A1_pretrained=0.02,
      W1A1_half=-0.04,
      **{'W1A1_pretrained_mixup_1': 0.05, 'W1A1_scratch_mixup_1': 0.01},
      FP_scratch=0.03,
    )
  )
  for finding, verdict, effect in (
    ('N19, W1A1, no mixup', 'supported', 2),
    ('N19, W1A1, mixup 1', 'supported', 4),
    ('N19, FP, no mixup', 'contradicted', -3),
    ('N19, FP, mixup 1', 'equivalent', 0),
    ('N19 equal low-bit epochs, W1A1, no mixup', 'supported', 6),
    ('N19 mixup, W1A1, scratch, mixup 1', 'supported', 1),
    ('N19 mixup, W1A1, pretrained, mixup 1', 'supported', 3),
    ('N19 interaction, W1A1, mixup 1', 'supported', 2),
    ('N19 low bits, W1A1', 'supported', 5),
    ('N14 overfits, W1A1', 'supported', 10),
    ('N14 mixup closes the gap, W1A1, mixup 1', 'supported', 1),
    ('N14 overfits, FP', 'supported', 7),
  ):
    one = found[finding]
    assert (one.verdict, one.num_seeds) == (verdict, SEEDS), finding
    np.testing.assert_allclose(one.effect, effect, atol=0.05, err_msg=finding)
  primary = [v.finding for v in found.values() if v.primary]
  assert primary == ['N19, W1A1, no mixup']
  assert 'N19 low bits, FP' not in found
  details = found['N19, W1A1, no mixup'].details
  np.testing.assert_allclose(
    [details['W1A1 pretrained'], details['W1A1 scratch']], [52, 50], atol=0.05
  )
  assert details['tuned otherwise, W1A1 scratch'] == 0
  assert details['rate, W1A1 scratch'] == 1.0


def test_stages_and_arms_that_were_not_trained():
  results = compared(
    ('W1A32', 'W2A2'),
    ('scratch', 'pretrained', 'staged'),
    (0.0,),
    W2A2_staged=0.02,
  )
  found = judged(results)
  assert found['N19 staged, W2A2, no mixup'].verdict == 'supported'
  assert found['N19, W1A32, no mixup'].primary
  # Activations of 32 bits have no stages; there is no control, no half, no mixup.
  assert set(found) == {
    *('N19, W1A32, no mixup', 'N19, W2A2, no mixup'),
    'N19 staged, W2A2, no mixup',
    *('N14 overfits, W1A32', 'N14 overfits, W2A2'),
  }


def test_a_training_that_diverged_is_left_out():
  results = compared(W1A1_pretrained=0.02)
  results['test_accuracy'].loc[{'arm': 'W1A1 pretrained', 'seed': 2}] = np.nan
  found = judged(results)['N19, W1A1, no mixup']
  assert (found.verdict, found.num_seeds) == ('supported', SEEDS - 1)
  assert found.details['diverged'] == 1


def test_one_seed_has_no_interval():
  for one in judged(compared(seeds=1)).values():
    assert (one.verdict, one.num_seeds) == ('inconclusive', 1)


@pytest.mark.parametrize('starts', [('scratch',), ('pretrained', 'half')])
def test_the_primary_contrast_needs_both_arms(starts):
  with pytest.raises(ValueError, match='starts must list'):
    arms_lib.every(['W1A1'], starts, [0.0])
