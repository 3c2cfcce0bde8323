"""Times a generation of the genetic search: ``python -m tests.searches.generation``.

It is of 256 children of 16 parents, which differ from a parent by ten flips, of the first
layer of a 784-256-256-10 network (200 704 signs), and 1 024 examples. Prints how many
forward passes of that network it takes, in processor time: the least of several turns
of each, by turns in one process, after compilation. Pin the process to one core, as with
``taskset -c 0``, on a machine that is otherwise idle.
"""

from __future__ import annotations

import sys
import time

import jax
import numpy as np

from bitjax import nn
from bitjax import searches

EXAMPLES, PARENTS, CHILDREN = 1024, 16, 256


def main(turns: int = 8) -> float:
  """Returns the forward passes of a generation."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (EXAMPLES, 28, 28), 'u1')
  labels = rng.integers(0, 10, EXAMPLES)
  model = nn.binary_mlp(hidden=(256, 256))
  variables = model.init(jax.random.key(0), images)
  view = nn.layer_view(model, variables, images, labels, 'Dense_0')
  assert view.kernel.size == 200_704
  state = searches.genetic_start(
    view, jax.random.key(1), PARENTS, num_flips=100
  )

  def generation():
    return searches.evolve(
      view, state, 1, num_children=CHILDREN, mutations=6, crossovers=4
    )

  loss = jax.jit(lambda view: view.loss(view.kernel))
  least = {}
  for turn in range(turns + 1):
    for name, run in (('pass', lambda: loss(view)), ('all', generation)):
      begin = time.process_time()
      jax.block_until_ready(run())
      if turn:  # The first one compiles.
        took = time.process_time() - begin
        least[name] = min(least.get(name, took), took)
  return least['all'] / least['pass']


if __name__ == '__main__':
  print(f'{main(*map(int, sys.argv[1:])):.1f} forward passes')
