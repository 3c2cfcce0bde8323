"""Runs a search in parts, and dies after some of them; ``python kills.py FOLDER NAME [N]``.

After each part the state is saved in one atomic replacement. With N, the process sends
itself SIGKILL after N parts, in the middle of writing the next state. Without, it goes on
from what it finds, to the end, and prints a digest of the whole state.
"""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bitjax import quantizers
from bitjax import scans
from bitjax import searches
from bitjax import training
from bitjax import transforms

PARTS = 4
_BINARY = quantizers.attach(quantizers.sign(), quantizers.identity())


def view():
  rng = np.random.default_rng(0)
  return scans.LayerView(
    inputs=jnp.asarray(rng.normal(size=(30, 5)), jnp.float32),
    kernel=jnp.asarray(rng.normal(size=(5, 4)), jnp.float32),
    labels=jnp.asarray(rng.integers(0, 3, 30)),
    tail=(
      scans.Activation('sign', _BINARY),
      scans.Dense(jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)),
    ),
    quantizer=_BINARY,
  )


def trained(tx):
  """A search of an optax transform: its parameters and its state."""
  given = view()

  def part(carry):
    def step(carry, _):
      params, state = carry
      gradient = jax.grad(given.loss)(params)
      updates, state = tx.update(gradient, state, params)
      return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda c: jax.lax.scan(step, c, length=5)[0])(carry)

  return lambda: (given.kernel, tx.init(given.kernel)), part


def every():
  """Returns each search: how it begins, and one part of it."""
  given, key = view(), jax.random.key(3)
  progress = optax.linear_schedule(0.0, 1.0, 5 * PARTS)
  sign, adam = quantizers.sign(), optax.adam(0.05)
  return {
    'anneal': (
      lambda: searches.annealing_start(given, key),
      lambda state: searches.anneal(given, state, 20, lambda k: 0.98**k)[0],
    ),
    'evolve': (
      lambda: searches.genetic_start(given, key, 3, num_flips=3),
      lambda state: searches.evolve(given, state, 2, num_children=6)[0],
    ),
    'bop': trained(transforms.bop(1e-3, 0.1)),
    'admm': trained(transforms.admm(0.1, sign, adam, every=2)),
    'parq': trained(
      transforms.proximal_steps(quantizers.parq(), progress, adam)
    ),
    'proxquant': trained(
      transforms.proximal_steps(
        quantizers.proximal(sign, 0.0, 0.5, distance='l1', schedule='linear'),
        progress, adam, latent=False,
      )
    ),
    'perturb': trained(
      optax.chain(
        optax.adam(training.restarts(0.05, 5 * PARTS, 3, key)),
        transforms.perturb(
          lambda key, kernel: searches.flip_signs(kernel, key, 2), 3, key
        ),
      )
    ),
  }  # fmt: skip


def save(path, number, leaves, *, half=False):
  memory = io.BytesIO()
  np.savez(memory, number, *leaves)
  written = memory.getvalue()
  fresh = path.with_suffix('.new')
  fresh.write_bytes(written[: len(written) // 2] if half else written)
  if half:
    os.kill(os.getpid(), signal.SIGKILL)
  fresh.replace(path)


def host(state):
  """Returns arrays of a state, its keys as their data."""
  return [
    np.asarray(
      jax.random.key_data(leaf)
      if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
      else leaf
    )
    for leaf in jax.tree.leaves(state)
  ]


def device(leaves, like):
  """Returns the state that `host` was given."""
  kinds, treedef = jax.tree.flatten(like)
  return treedef.unflatten([
    jax.random.wrap_key_data(leaf)
    if jnp.issubdtype(kind.dtype, jax.dtypes.prng_key)
    else jnp.asarray(leaf)
    for leaf, kind in zip(leaves, kinds, strict=True)
  ])  # fmt: skip


def main(folder, name, fatal=None):
  path = pathlib.Path(folder) / name
  begin, part = every()[name]
  number, state = 0, begin()
  if path.exists():
    with np.load(path) as kept:
      number, *leaves = (kept[f'arr_{n}'] for n in range(len(kept.files)))
    number, state = int(number), device(leaves, state)
  while number < PARTS:
    state = part(state)
    number += 1
    save(path, number, host(state), half=number == fatal)
  digest = hashlib.sha256()
  for leaf in host(state):
    digest.update(repr((leaf.dtype.str, leaf.shape)).encode() + leaf.tobytes())
  print(digest.hexdigest())


if __name__ == '__main__':
  main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
