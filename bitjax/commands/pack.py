"""Packs a trained network of a run into a file of 1 bit a binary weight.

The file takes images as the data set stores them, uint8: what prepared them in the
training is part of what is packed.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
import re
from typing import NamedTuple

import jax
import numpy as np

from bitjax import cli
from bitjax import deploy
from bitjax import nn
from bitjax import process
from bitjax.commands import options as options_lib
from bitjax.commands import trained

__all__ = ['Packed', 'main', 'pack']

_USAGE = """bitjax pack RUN [--to=FILE] [--seed=N] [--which=latest|best] [--AXIS=VALUE ...]
                   [--data_dir=DIR] [--keep=float]

Packs one trained network of a run (of train_cifar, dsq or pretrain_vs_scratch, finished or
not) into FILE, STUDY.seedN.bitjax by default: 1 bit a binary weight. A run of several arms
needs --AXIS=VALUE (--bits=1 --arm=falling, say), a run of several sweeps --sweep=NAME.
--which=best takes the best checkpoint on validation examples. --keep=float keeps in float32
what cannot be packed. The network's images are normalised by the statistics of the training
images, so these must be there: --data_dir=DIR says where they are now."""


class Packed(NamedTuple):
  """What `pack` wrote.

  Attributes:
    network: the trained network.
    path: the file.
    size: its size, in bytes.
    promised: what `nn.summary` promises for the network, in bytes.
  """

  network: trained.Trained
  path: pathlib.Path
  size: int
  promised: float


def pack(
  network: trained.Trained,
  to: str | os.PathLike[str] | None = None,
  *,
  keep: str = 'none',
) -> Packed:
  """Packs a trained network into a file.

  Args:
    network: the network.
    to: the file; None for one in the current directory that is named by the study, the
      arm and the seed.
    keep: as for `deploy.pack_network`.

  Raises:
    BadInput: for what cannot be packed.
    OSError: if the file cannot be written.
  """
  packed = deploy.pack_network(
    network.model,
    network.variables,
    network.images,
    keep=keep,
    prepare=network.prepare,
    progress=1.0,
  )
  path = deploy.save(packed, _default(network) if to is None else to)
  seen = jax.ShapeDtypeStruct(network.images.shape, np.float32)
  promised = nn.summary(network.model, seen).total.memory
  return Packed(network, path, path.stat().st_size, promised)


def main(argv: Sequence[str]) -> int:
  """Packs a network; returns the exit status."""
  if list(argv) in ([], ['--help'], ['-h']):
    return cli.status.usage(_USAGE, argv)
  places, options = options_lib.parse(argv)
  if len(places) != 1:
    return cli.status.usage(_USAGE, argv)
  to, keep = options.pop('to', None), options.pop('keep', 'none')
  which, data_dir = (
    options.pop('which', 'latest'),
    options.pop('data_dir', None),
  )
  network = trained.find(places[0], options, which=which, data_dir=data_dir)
  done = pack(network, to, keep=keep)
  named = ', '.join(f'{name} {value}' for name, value in network.labels.items())
  process.write(
    f'{done.path}: {network.study}, {named}, {which} checkpoint; {done.size} bytes, '
    f'{done.promised:.0f} promised by nn.summary\n'
  )
  return 0


def _default(network):
  labels = dict(network.labels)
  labels = {k: v for k, v in labels.items() if k not in ('sweep', 'rate')}
  seed = labels.pop('seed')
  arm = [f'{name}_{value}' for name, value in labels.items()]
  words = [network.study, *arm, f'seed{seed}']
  return '.'.join(re.sub(r'[^\w.]+', '_', str(w)) for w in words) + '.bitjax'
