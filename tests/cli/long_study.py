"""A study of which XLA compiles the program for hours: it folds a large sum."""

import dataclasses

import jax
import numpy as np

from bitjax import cli

SIZE = 300_000


@dataclasses.dataclass(frozen=True)
class Config:
  """No flags."""

  def __post_init__(self):
    cli.check(self)


def run(config, sweep):
  del config
  numbers = np.arange(SIZE, dtype=np.float32)

  def fn(seed):
    sums = jax.lax.reduce_window(
      numbers, np.float32(0), jax.lax.add, (SIZE,), (1,), 'SAME'
    )
    return {'sum': seed * sums.sum()}

  return sweep(fn, name='long', lanes={'seed': np.arange(3.0)})


STUDY = cli.Study('long', __doc__, Config, {'quick': {}}, run, None, None)

if __name__ == '__main__':
  cli.main(STUDY)
