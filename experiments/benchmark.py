r"""How fast the parts are, as ratios within one run.

The toy network 784-256-256-10 at batch 8192, on synthetic images. Absolute times
say more about a machine than about a program, so everything is compared with what
the same machine does in the same minute: the peak of its matrix product, one plain
forward pass, the import of the libraries underneath. Contestants take turns;
medians are reported, compilation apart.

  python -m experiments.benchmark

Takes about five minutes on two CPU cores, which should have nothing else to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools
import itertools
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import descent
from bitjax import lanes
from bitjax import quantizers
from bitjax import scans
from bitjax import studies
from bitjax import transforms
from bitjax import types
from bitjax.studies import toy_config

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
    4096,
    'Size of the square matrix product that stands for the peak.',
    minimum=1,
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
  overheads = _estimators(config)
  measured = {
    **_multi_step(config),
    **_line_scan(config),
    **_projections(config),
    'estimator overhead': max(overheads.values()),
    'import': _import_ratio(config.repeats),
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
  names = [str(name) for name in results.case.values]
  measured, target = results['measured'].values, results['target'].values
  more = np.array([TARGETS[name][2] for name in names])
  colors = np.where(
    np.where(more, measured >= target, measured <= target), '#0077BB', '#CC3311'
  )
  ax.barh(names, measured / target, color=colors)
  ax.axvline(1, color='black', linewidth=0.8)
  for place, name in enumerate(names):
    text = f' {measured[place]:.3g} {TARGETS[name][0]}'
    ax.text(
      measured[place] / target[place], place, text, va='center', fontsize=7
    )
  ax.set_xlim(0, 1.6 * max(1, (measured / target).max()))
  ax.set_xlabel('measured / target (blue: target met)')
  ax.invert_yaxis()
  return fig


def _problem(config, network):
  """One network on one batch, and the FLOPs of a forward pass."""
  toy = toy_config.ToyConfig(
    dataset='synthetic', batch_size=(config.batch_size,), hidden=config.hidden
  )
  problem = toy.open(studies.Sweep())
  arrays = jax.tree.map(jnp.asarray, problem.arrays)
  view = jax.jit(lambda arrays: problem.pose(network, 0, arrays).search)(arrays)
  sizes = (view.kernel.shape[0], *config.hidden, 10)
  first, *rest = [2 * a * b for a, b in itertools.pairwise(sizes)]
  return view, config.batch_size * first, config.batch_size * sum(rest)


def _multi_step(config, num_lanes=2, num_steps=5):
  """Achieved model FLOP/s of a sweep, over those of a matrix product."""
  square = jnp.ones((config.gemm, config.gemm))
  contestants: dict[str, Callable[[], Any]] = {}
  flops = {'peak': 2 * config.gemm**3}
  multiply = jax.jit(jnp.matmul)
  contestants['peak'] = lambda: multiply(square, square)
  for network in ('full_precision', 'binary'):
    view, first, rest = _problem(config, network)
    name = f'multi-step, {network.replace("_", " ")}'
    # Forward; backward through the rest to the layer, and to its kernel.
    flops[name] = num_lanes * (num_steps * 2 * (first + rest) + (first + rest))
    contestants[name] = _descent(view, num_lanes, num_steps)
  seconds = _race(contestants, config.repeats)
  speed = {name: flops[name] / seconds[name] for name in contestants}
  return {n: s / speed['peak'] for n, s in speed.items() if n != 'peak'}


def _descent(view, num_lanes, num_steps):
  budget = types.Budget(0.1)

  @jax.jit
  def sweep(rates, view):
    def lane(rate, view):
      loss = jax.value_and_grad(view.loss)
      tx = optax.chain(transforms.normalize(), optax.sgd(rate))
      return descent.descend(
        loss, tx, view.kernel, num_steps, budget=budget
      ).losses

    return lanes.grid(lane, {'rate': rates}, shared={'view': view})

  rates = jnp.linspace(0.01, 0.1, num_lanes)
  return lambda: sweep(rates, view)


def _line_scan(config):
  """Time of a point over a forward pass; memory of a whole scan."""
  view, direction, scan = _scan(config)
  forward = jax.jit(lambda view, kernel: view.loss(kernel))
  rates = jnp.linspace(0, 0.1, config.timed_rates)

  def forwards():
    return [forward(view, view.kernel) for _ in range(config.timed_rates)]

  seconds = _race(
    {'forward': forwards, 'scan': lambda: scan(view, direction, rates)},
    config.repeats,
  )
  program = (
    'from experiments import benchmark; '
    f'benchmark.report_memory(benchmark.Config(**{dataclasses.asdict(config)}))'
  )
  output = subprocess.run(
    [sys.executable, '-c', program], check=True, capture_output=True, text=True
  ).stdout
  return {
    'line scan, brute force': seconds['scan'] / seconds['forward'],
    'line scan, peak memory': float(output),
  }


def _scan(config):
  """A view, a direction, and the brute-force scan along it."""
  view, _, _ = _problem(config, 'full_precision')
  direction = jax.jit(jax.grad(view.loss))(view.kernel)
  scan = jax.jit(
    lambda view, direction, rates: (
      scans.line_scan(view, direction, rates, path='brute_force').losses
    )
  )
  return view, direction, scan


def report_memory(config: Config) -> None:
  """Prints what a full line scan adds to this process's memory, in GiB."""
  view, direction, scan = _scan(config)
  rates = jnp.linspace(0, 0.1, config.rates)
  analysis: Any = scan.lower(view, direction, rates).compile().memory_analysis()
  held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
  jax.block_until_ready(scan(view, direction, rates[: config.timed_rates]))
  resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  print(max(resident, held + analysis.temp_size_in_bytes) / 2**30)


def _projections(config):
  """Milliseconds to project 784 x 256 weights, one lane at a time."""
  del config
  key = jax.random.key(0)
  kernel = jax.random.uniform(key, (784, 256), minval=-0.076, maxval=0.076)
  moved = kernel + 0.05 * jax.random.normal(jax.random.key(1), kernel.shape)
  radii: dict[types.Norm, float] = {
    'l2': 0.1,
    'linf': 0.01,
    'l1': 10.0,
    'flips': 200.0,
  }
  contestants = {}
  for norm, radius in radii.items():
    tx = transforms.project_budget(radius, norm)
    step = jax.jit(lambda u, s, p, tx=tx: tx.update(u, s, p)[0])
    contestants[f'project {norm}'] = functools.partial(
      step, moved - kernel, tx.init(kernel), kernel
    )
  return {n: 1e3 * s for n, s in _race(contestants, 20).items()}


def _by_hand():
  """Backward rules at progress 1 as one would write them into a fused kernel."""
  size, tanh = jnp.abs, jnp.tanh
  return {
    'identity': lambda g, x: g,
    'window': lambda g, x: jnp.where(size(x) <= 1, g, 0),
    'clip': lambda g, x: jnp.clip(g, -0.5, 0.5),
    'polynomial': lambda g, x: g * jnp.maximum(2 - 2 * size(x), 0),
    'swish_sign': lambda g, x: (
      g * 5 * (2 - 5 * x * tanh(2.5 * x)) / (1 + jnp.cosh(5 * x))
    ),
    'dspike': lambda g, x: jnp.where(
      size(x) <= 1, g * (1 - tanh(x / 2) ** 2) / (2 * np.tanh(0.5)), 0
    ),
    'magnitude_aware': lambda g, x: jnp.where(
      size(x) <= 1, g * jnp.mean(size(x), axis=0, keepdims=True), 0
    ),
    'error_decay': lambda g, x: g * 10 * (1 - tanh(10 * x) ** 2),
    'rbnn': lambda g, x: g * 10 * jnp.maximum(np.sqrt(2) - 10 * size(x), 0),
    'reste': lambda g, x: jnp.where(
      size(x) <= 1.5,
      g * jnp.where(size(x) <= 0.1, 0.1 ** (-2 / 3), size(x) ** (-2 / 3) / 3),
      0,
    ),
    'shrinking_window': lambda g, x: jnp.where(size(x) <= 0.1, 10 * g, 0),
    'dsq': lambda g, x: jnp.where(
      size(x) <= 1,
      g * 0.625 * np.log(9) * (1 - tanh(0.5 * np.log(9) * x) ** 2),
      0,
    ),
    'ewgs': lambda g, x: jnp.where(
      size(x) <= 1,
      g + 5e-4 * size(g) * (x - jnp.where(x >= 0, 1, -1)),
      0,
    ),
  }


def _estimators(config):
  """Forward and backward of sign with each, over one fused function's time."""
  key = jax.random.key(0)
  x, g = jax.random.normal(key, (2, config.weights, config.weights))
  ratios = {}
  for name, rule in _by_hand().items():
    make = getattr(quantizers, name)
    estimator = make(0.5) if name == 'clip' else make()
    quantize = quantizers.attach(quantizers.sign(), estimator)

    @jax.jit
    def attached(quantize, x, g):
      x_q, pull_back = jax.vjp(quantize, x)
      return x_q, pull_back(g)[0]

    @jax.jit
    def fused(x, g, rule=rule):
      return jnp.where(x >= 0, 1.0, -1.0), rule(g, x)

    # What is compared must be the same function.
    for ours, theirs in zip(attached(quantize, x, g), fused(x, g), strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    seconds = _race(
      {
        'attached': functools.partial(attached, quantize, x, g),
        'fused': functools.partial(fused, x, g),
      },
      config.repeats,
    )
    ratios[name] = seconds['attached'] / seconds['fused']
  return ratios


def _import_ratio(repeats):
  def importing(modules):
    command = [sys.executable, '-c', f'import {modules}']
    return lambda: subprocess.run(command, check=True)

  contestants = {
    'bitjax': importing('bitjax.nn, bitjax.scans, bitjax.transforms'),
    'below': importing('jax, flax.linen, optax'),
  }
  seconds = _race(contestants, repeats)
  return seconds['bitjax'] / seconds['below']


def _race(contestants: Mapping[str, Callable[[], Any]], turns: int):
  """Median seconds of each, taking turns, after one turn that does not count."""
  times: dict[str, list[float]] = {name: [] for name in contestants}
  for turn in range(turns + 1):
    for name, contestant in contestants.items():
      start = time.perf_counter()
      jax.block_until_ready(contestant())
      if turn:
        times[name].append(time.perf_counter() - start)
  return {name: float(np.median(spent)) for name, spent in times.items()}


if __name__ == '__main__':
  studies.main(Config, PRESETS, run, verdicts, plot)
