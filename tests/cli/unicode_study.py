"""A study whose every text has characters that ASCII lacks: β × γ ≥ α …"""

import dataclasses

import xarray

from bitjax import cli
from bitjax import evidence
from bitjax.sweeps import progress


@dataclasses.dataclass(frozen=True)
class Config:
  """One flag."""

  name: str = cli.flag('γ', 'A name, such as γ …')

  def __post_init__(self):
    cli.check(self)


def run(config, sweep):
  sweep.record(name=config.name)
  progress.say('β × γ …')
  return xarray.Dataset({'a': (('x',), [1.0])}, {'x': ['γ …']})


def verdicts(results):
  name = str(results.x.values[0])
  return [
    evidence.Verdict(
      'β1', f'α × {name} …', 'supported', 1.0, 0.5, 1.5, 'µs', 3, 'oracle'
    )
  ]


def plot(results):
  from matplotlib import pyplot

  figure, ax = pyplot.subplots()
  ax.set_title(str(results.x.values[0]))
  return figure


STUDY = cli.Study(
  'unicode_study', __doc__, Config, {'quick': {}}, run, verdicts, plot
)

if __name__ == '__main__':
  cli.main(STUDY)
