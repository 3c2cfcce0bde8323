"""Measures what scaling costs, as ratios within one run, and runs the soak.

A measurement that needs a process of its own, for its peak memory or its number of
devices, is run as

  python -m bitjax.studies.scaling.timings memory LANES CHUNK
  python -m bitjax.studies.scaling.timings rate LANES STEPS CORE ...
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import lanes as lanes_lib
from bitjax import sweeps
from bitjax.cli import results as results_lib
from bitjax.sweeps import meshes

__all__ = ['CURVE', 'FEW_LANES', 'memory', 'overheads', 'soak', 'weak_scaling']

# Lanes of the small sweep whose memory is subtracted from that of the large one.
FEW_LANES = 1000
CURVE = 64  # Numbers of a lane of both.
_ROOT = pathlib.Path(__file__).resolve().parents[3]
_ONE_THREAD = ' --xla_cpu_multi_thread_eigen=false'


def soak(kills: int, *flags: str) -> dict[str, float]:
  """Kills runs of the workload; returns whether they end equal, and what they leave."""
  with tempfile.TemporaryDirectory() as directory:
    started = _start('soak', f'{directory}/runs', str(kills), *flags)
    found = _finish(started)
  return {
    'killed runs': float(found['kills']),
    'ends that differ': 0.0 if found['equal'] else 1.0,
    'files left over': float(len(found['leftovers'])),
  }


def overheads(num_lanes: int, steps: int, chunk: int) -> dict[str, float]:
  """Times a sweep with chunks and files against one call of one program.

  Args:
    num_lanes: lanes of the sweep.
    steps: matrix products in each lane.
    chunk: lanes in a file.

  Returns:
    Seconds of the one call (``'sweep'``), what a sweep takes beyond them, as a
    share of them (``'chunks and files'``), and the seconds of starting a finished
    sweep again (``'resume'``). All of them include compilation.
  """
  lane, shared = _lane(steps)
  seeds = np.arange(num_lanes, dtype=np.float32)

  def whole(seeds, shared):
    return lanes_lib.each(lane, {'seed': seeds}, shared=shared)

  def plain():
    jax.block_until_ready(
      jax.jit(whole).lower(seeds, shared).compile()(seeds, shared)
    )

  def sweep():
    sweeps.Sweep(directory, chunk=chunk)(
      lane,
      name='overhead',
      lanes={'seed': seeds},
      shared=shared,
      dims={'curve': ('step',)},
    )

  with tempfile.TemporaryDirectory() as directory:
    _seconds(lambda: whole(seeds[:1], shared))
    bare, saved, again = map(_seconds, (plain, sweep, sweep))
  return {
    'sweep': bare,
    'chunks and files': saved / bare - 1,
    'resume': again,
  }


def memory(num_lanes: int, chunk: int) -> dict[str, float]:
  """Returns how much more peak memory a large sweep needs, relative to its results."""
  started = _start('timings', 'memory', str(num_lanes), str(chunk))
  return {'memory': _finish(started)['ratio']}


def weak_scaling(num_lanes: int, steps: int, turns: int) -> dict[str, float]:
  """Returns the rate of two devices over that of two processes, with a core for each.

  Args:
    num_lanes: lanes of each device.
    steps: matrix products in each lane.
    turns: how many ratios the median is taken of.
  """

  cores = sorted(os.sched_getaffinity(0))
  first, second = cores[0], cores[-1]

  def start(*cores):
    numbers = map(str, (num_lanes, steps, *cores))
    return _start('timings', 'rate', *numbers, devices=len(cores))

  ratios = []
  for _ in range(turns):
    pair = [start(first), start(second)]
    apart = sum(_finish(process)['rate'] for process in pair)
    ratios.append(_finish(start(first, second))['rate'] / apart)
  return {'weak scaling': float(np.median(ratios))}


def _lane(steps: int):
  """Returns a lane of ``steps`` small matrix products, and its shared input."""

  def lane(seed, matrix):
    def step(x, _):
      return jnp.tanh(matrix @ x), x.mean()

    start = jnp.cos(seed + jnp.arange(64.0))[:, None] * jnp.ones((1, 16))
    curve = jax.lax.scan(step, start, None, steps)[1]
    return {'curve': curve[:: max(steps // 50, 1)]}

  return lane, {'matrix': np.eye(64, dtype=np.float32) * 0.99}


def _measure_memory(num_lanes: int, chunk: int) -> dict[str, float]:
  def lane(seed):
    places = jnp.arange(CURVE, dtype=jnp.float32)
    return {'curve': jnp.cos(jnp.float32(seed) + places)}

  def peak(lanes):
    with tempfile.TemporaryDirectory() as directory:
      found = sweeps.Sweep(directory, chunk=chunk)(
        lane,
        name='memory',
        lanes={'seed': np.arange(lanes)},
        dims={'curve': ('step',)},
      )
      results_lib.save(found, directory)
    top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return top, found.nbytes

  (small, _), (large, size) = peak(chunk), peak(num_lanes)
  return {'ratio': (large - small) / size}


def _measure_rate(num_lanes: int, steps: int, *cores: int) -> dict[str, float]:
  os.sched_setaffinity(0, cores)
  lane, shared = _lane(steps)
  mesh = meshes.make(f'lanes:{len(cores)}')
  seeds = np.arange(num_lanes * len(cores), dtype=np.float32)

  @jax.jit
  def run(seeds, shared):
    return lanes_lib.each(lane, {'seed': seeds}, shared=shared, mesh=mesh)

  jax.block_until_ready(run(seeds, shared))
  took = _seconds(lambda: jax.block_until_ready(run(seeds, shared)))
  return {'rate': seeds.size / took}


def _seconds(call) -> float:
  begun = time.monotonic()
  call()
  return time.monotonic() - begun


def _start(module: str, *arguments: str, devices: int = 1) -> Any:
  flags = os.environ.get('XLA_FLAGS', '') + _ONE_THREAD
  flags += f' --xla_force_host_platform_device_count={devices}'
  return subprocess.Popen(
    [sys.executable, '-m', f'bitjax.studies.scaling.{module}', *arguments],
    cwd=_ROOT,
    env=os.environ | {'XLA_FLAGS': flags},
    stdout=subprocess.PIPE,
    text=True,
  )


def _finish(process: Any) -> dict[str, Any]:
  out, _ = process.communicate()
  if process.returncode not in (0, 1) or not out:
    raise RuntimeError(f'{process.args} failed')
  return json.loads(out)


if __name__ == '__main__':
  _measure = {'memory': _measure_memory, 'rate': _measure_rate}[sys.argv[1]]
  print(json.dumps(_measure(*map(int, sys.argv[2:]))))
