"""A hosted sweep as one process of a job, or alone: ``python -m tests.sweeps.hosted_job``.

Prints what it found and which kinds it has computed itself, in JSON.
"""

from __future__ import annotations

import json
import sys

import jax
import numpy as np

from bitjax import sweeps
from bitjax.sweeps import job

KINDS, SEEDS = ('a', 'b', 'c'), (3, 4, 5)


def main(directory: str, *where: str) -> None:
  """Runs two sweeps, of which the second needs what the first one found."""
  if where:
    job.join(where[0], 2, int(where[1]))
  sweep, own = sweeps.Sweep(directory), []

  def run(folder, report, mesh, seed, kind='d'):
    del folder, report, mesh
    own.append(kind)
    scale = 1 + 'abcd'.index(kind)
    return {'value': np.asarray(jax.numpy.sin(scale * seed.astype(np.float32)))}

  first = sweep.hosted(
    run,
    name='first',
    static={'kind': KINDS},
    lanes={'seed': SEEDS},
    spread=True,
  )
  total = float(first.value.sum())
  second = sweep.hosted(
    lambda **given: {'value': total + run(**given)['value']},
    name='second',
    lanes={'seed': SEEDS},
    spread=True,
  )
  print(
    json.dumps([first.value.values.tolist(), second.value.values.tolist(), own])
  )


if __name__ == '__main__':
  main(*sys.argv[1:])
  job.leave(0)
