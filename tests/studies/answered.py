"""Answers of networks on test examples, as trainings return them, of known accuracy."""

import numpy as np

EXAMPLES = 4000


def answered(arms, seeds, points):
  """Returns variables whose accuracy is 0.5, plus the points of an arm.

  Networks differ in one answer at random.

  Args:
    arms: labels.
    seeds: number of seeds.
    points: label -> what is added to the accuracy.
  """
  draw = np.random.default_rng(0)
  number = EXAMPLES // 2 + draw.integers(0, 2, (len(arms), seeds))
  for name, value in points.items():
    number[list(arms).index(name)] += round(value * EXAMPLES)
  right = np.arange(EXAMPLES) < number[..., None]
  dims = ('arm', 'seed')
  return {
    'test_right': ((*dims, 'test_byte'), np.packbits(right, axis=-1)),
    'test_accuracy': (dims, right.mean(-1).astype(np.float32)),
  }
