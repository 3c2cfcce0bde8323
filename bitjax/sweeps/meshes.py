"""Meshes: the devices that a sweep uses, named by ``--mesh=lanes:4,batch:2``.

The axis `lanes` gives each device its own blocks of lanes; the axis `batch` splits
the examples of shared inputs, where the study allows it. The devices of one process
form one mesh: nothing is computed across processes.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from typing import Any

import jax
import numpy as np

from bitjax import types

__all__ = ['AUTO', 'AXES', 'make', 'parse', 'split_cpu', 'start']

AUTO = 'auto'
AXES = ('lanes', 'batch')
_SIZE = re.compile('[1-9][0-9]{0,8}')


def parse(spec: str) -> dict[str, int] | None:
  """Reads a mesh: axis name -> devices along it; None for ``'auto'``.

  Raises:
    BadInput: for anything else; the message says how a mesh is written.
  """
  if spec == AUTO:
    return None
  found: dict[str, int] = {}
  for part in spec.split(','):
    name, _, size = part.strip().partition(':')
    if name not in AXES or name in found or not _SIZE.fullmatch(size):
      got = spec if len(spec) <= 60 else spec[:57] + '...'
      raise types.BadInput(
        "mesh is 'auto', 'lanes:N' or 'lanes:N,batch:M', N and M from 1 to "
        f'999999999; got {got!r}.'
      )
    found[name] = int(size)
  return {name: found.get(name, 1) for name in AXES}


def split_cpu(spec: str) -> None:
  """Splits the CPU into as many devices as a mesh names, at most one for each core.

  Call it before JAX's backends start: later, for ``'auto'``, or if ``XLA_FLAGS`` sets
  the number of CPU devices, it does nothing. It does not affect accelerators.

  Args:
    spec: see `parse`.
  """
  sizes = parse(spec)
  said = 'xla_force_host_platform_device_count' in os.environ.get(
    'XLA_FLAGS', ''
  )
  if sizes is None or said:
    return
  wanted = min(math.prod(sizes.values()), os.cpu_count() or 1)
  with contextlib.suppress(RuntimeError):  # The backends have started.
    jax.config.update('jax_num_cpu_devices', wanted)


def start() -> None:
  """Starts JAX's backends.

  Raises:
    BadInput: if JAX finds no device of the platforms that it was told to use.
  """
  try:
    jax.local_devices()
  except (RuntimeError, AssertionError) as error:
    settings: Any = jax.config  # Type checkers do not know its attributes.
    asked = settings.jax_platforms
    where = f' for JAX_PLATFORMS={asked}' if asked else ''
    reason = ' '.join(str(error).split())
    raise types.BadInput(
      f'JAX finds no device{where}{reason and f" ({reason})"}; JAX_PLATFORMS=cpu '
      'runs on the CPU.'
    ) from error


def make(spec: str) -> jax.sharding.Mesh | None:
  """Makes the mesh of this process's devices.

  Args:
    spec: see `parse`; it counts the devices of all processes of the job together.
      ``'auto'`` takes all devices for lanes.

  Returns:
    The mesh, with axes `lanes` and `batch`; None for a single device.

  Raises:
    BadInput: for more devices than there are, if they cannot be divided among the
      processes, or if there is none.
  """
  sizes = parse(spec)
  start()
  local, processes = jax.local_devices(), jax.process_count()
  if sizes is None:
    sizes = {'lanes': len(local) * processes, 'batch': 1}
  wanted, there = math.prod(sizes.values()), jax.device_count()
  if wanted > there:
    raise types.BadInput(
      f'mesh={spec} asks for {wanted} devices; there '
      f'{"is" if there == 1 else "are"} {there} ({jax.default_backend()}).'
    )
  lanes, rest = divmod(sizes['lanes'], processes)
  if rest or lanes * sizes['batch'] > len(local):
    raise types.BadInput(
      f'mesh={spec} does not fit {processes} processes with {len(local)} devices '
      'each: lanes must be a multiple of the processes, and the devices of one '
      'batch those of one process.'
    )
  if lanes * sizes['batch'] == 1:
    return None
  shape = lanes, sizes['batch']
  devices = np.array(local[: math.prod(shape)]).reshape(shape)
  return jax.sharding.Mesh(devices, AXES)
