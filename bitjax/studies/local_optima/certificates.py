"""Says of every layer, and of all together, how near it is to a 1-move optimum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp

from bitjax import data
from bitjax import scans
from bitjax import types

__all__ = ['FIELDS', 'certificates', 'layers', 'on_both']

_T = TypeVar('_T')

# What is reported of each layer, and of all; see `scans.Certificate`.
FIELDS = (
  'improving',
  'significant',
  'mirrored',
  'holds',
  'significant_holds',
  'random_holds',
  'is_optimum',
  'best',
  'mean_holdout',
)


def layers(
  network: scans.Network, found: scans.FlipGains
) -> list[scans.FlipGains]:
  """Returns the gains of each layer, from those of a view of the whole network."""
  parts = zip(
    network.split(found.gains),
    network.split(found.second_moments),
    strict=True,
  )
  return [
    dataclasses.replace(
      found, gains=gains, second_moments=moments, near_ties=None
    )
    for gains, moments in parts
  ]


def on_both(
  gains: Callable[[data.Batch], _T], pair: tuple[data.Batch, data.Batch]
) -> tuple[_T, _T]:
  """Returns what ``gains`` finds on A and on B, by one program that is compiled once."""
  both = jax.lax.map(gains, jax.tree.map(lambda *x: jnp.stack(x), *pair))
  search = jax.tree.map(lambda leaf: leaf[0], both)
  holdout = jax.tree.map(lambda leaf: leaf[1], both)
  return search, holdout


def certificates(
  gains: Sequence[scans.FlipGains], held: Sequence[scans.FlipGains]
) -> dict[str, types.Array]:
  """Returns what certificates say of each layer and, last, of all, [layers + 1].

  Args:
    gains: the gains of each layer's moves on the training set.
    held: the gains of the same moves on held-out data.
  """
  pairs = zip([*gains, _join(gains)], [*held, _join(held)], strict=True)
  found = [scans.flip_certificate(*pair) for pair in pairs]
  return {
    name: jnp.stack([getattr(each, name) for each in found]) for name in FIELDS
  }


def _join(parts):
  """Returns the gains of all layers as one vector."""
  flat = lambda name: jnp.concatenate(
    [getattr(part, name).reshape(-1) for part in parts]
  )
  return dataclasses.replace(
    parts[0],
    gains=flat('gains'),
    second_moments=flat('second_moments'),
    near_ties=None,
  )
