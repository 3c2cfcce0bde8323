r"""How fast the parts are, as ratios within one run.

The toy network 784-256-256-10 at batch 8192, on synthetic images. Everything is
compared with what the same machine does in the same minute: the peak of its matrix
product, one plain forward pass, the import of the libraries underneath. Contestants
take turns; medians are reported, compilation apart. About five minutes on two CPU
cores, which should have nothing else to do:

  python -m experiments.benchmark
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from bitjax import studies
from bitjax.studies import benchmarks
from bitjax.studies import estimator_benchmark

if TYPE_CHECKING:
  from matplotlib import figure
  import xarray


@dataclasses.dataclass(frozen=True)
class Config:
  """One field is one flag."""

  batch_size: int = studies.flag(8192, 'Examples in a batch.', minimum=1)
  hidden: tuple[int, ...] = studies.flag(
    (256, 256), 'Units of each hidden layer.', minimum=1
  )
  gemm: int = studies.flag(
    4096, 'Size of the matrix product that stands for the peak.', minimum=1
  )
  repeats: int = studies.flag(7, 'Turns of each contestant.', minimum=1)
  rates: int = studies.flag(
    10_000, 'Points of the line scan whose memory is measured.', minimum=1
  )
  timed_rates: int = studies.flag(
    50, 'Points of the line scan that is timed.', minimum=1
  )
  weights: int = studies.flag(
    4096, 'Rows and columns of the kernel that estimators see.', minimum=1
  )


PRESETS = {
  'smoke': {
    'batch_size': 64,
    'hidden': (16, 16),
    'gemm': 64,
    'repeats': 1,
    'rates': 100,
    'timed_rates': 5,
    'weights': 8,
  },
  'quick': {},
}

# name -> (what it is, target, whether more is better)
TARGETS = {
  'multi-step, full precision': ('share of GEMM peak', 0.70, True),
  'multi-step, binary': ('share of GEMM peak', 0.70, True),
  'line scan, brute force': ('forward passes per point', 1.15, False),
  'line scan, peak memory': ('GiB', 1.5, False),
  'project l2': ('ms per lane', 10.0, False),
  'project linf': ('ms per lane', 10.0, False),
  'project l1': ('ms per lane', 10.0, False),
  'project flips': ('ms per lane', 10.0, False),
  'estimator overhead': ('times fused by hand, the worst', 1.25, False),
  'import': ('times jax + flax + optax', 1.2, False),
}


def run(config: Config, sweep: studies.Sweep) -> xarray.Dataset:
  """Measures everything."""
  import xarray

  del sweep  # Timings are not resumed.
  turns, network = config.repeats, (config.batch_size, config.hidden)
  overheads = estimator_benchmark.overheads(config.weights, turns)
  measured = {
    **benchmarks.multi_step(*network, config.gemm, turns),
    **benchmarks.line_scan(*network, config.rates, config.timed_rates, turns),
    **benchmarks.projections(),
    'estimator overhead': max(overheads.values()),
    'import': benchmarks.import_ratio(turns),
  }
  return xarray.Dataset(
    {
      'measured': ('case', [measured[name] for name in TARGETS]),
      'target': ('case', [target for _, target, _ in TARGETS.values()]),
      'overhead': ('estimator', list(overheads.values())),
    },
    coords={'case': list(TARGETS), 'estimator': list(overheads)},
  )


def verdicts(results: xarray.Dataset) -> list[studies.Verdict]:
  """Says which targets are met."""
  found = []
  overheads = results['overhead'].to_series().to_dict()
  for name, (unit, target, more) in TARGETS.items():
    value = results['measured'].sel(case=name).item()
    met = value >= target if more else value <= target
    found.append(
      studies.Verdict(
        finding=name,
        claim=f'{"At least" if more else "At most"} {target:g} {unit}.',
        verdict='supported' if met else 'contradicted',
        effect=value,
        low=-np.inf,
        high=np.inf,
        unit=unit,
        num_seeds=1,
        protocol='median of turns, one machine',
        details=overheads if name == 'estimator overhead' else {},
      )
    )
  return found


def plot(results: xarray.Dataset) -> figure.Figure:
  """Each measurement relative to its target."""
  from matplotlib import pyplot

  fig, ax = pyplot.subplots(figsize=(6.75, 3.0))
  names = results.case.values.tolist()
  measured, target = results['measured'].values, results['target'].values
  more = np.array([TARGETS[name][2] for name in names])
  met = np.where(more, measured >= target, measured <= target)
  colors = np.where(met, '#0077BB', '#CC3311')
  ax.barh(names, measured / target, color=colors)
  ax.axvline(1, color='black', linewidth=0.8)
  for place, name in enumerate(names):
    text = f' {measured[place]:.3g} {TARGETS[name][0]}'
    at = measured[place] / target[place]
    ax.text(at, place, text, va='center', fontsize=7)
  ax.set_xlim(0, 1.6 * max(1, (measured / target).max()))
  ax.set_xlabel('measured / target (blue: target met)')
  ax.invert_yaxis()
  return fig


if __name__ == '__main__':
  studies.main(Config, PRESETS, run, verdicts, plot)
