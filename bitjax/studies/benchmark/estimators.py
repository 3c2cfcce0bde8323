"""Measures what an attached estimator costs beyond a function fused by hand."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bitjax import quantizers
from bitjax.studies.benchmark import race

__all__ = ['overheads']


def _by_hand():
  """Returns backward rules at progress 1, written as for a kernel fused by hand."""
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


def overheads(size: int, turns: int) -> dict[str, float]:
  """Returns the time of sign with each estimator over that of one fused function.

  Both compute a forward and a backward pass.

  Args:
    size: rows and columns of the weights.
    turns: timed turns of each contestant.
  """
  key = jax.random.key(0)
  x, g = jax.random.normal(key, (2, size, size), jnp.float32)
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

    # Times are comparable only if both compute the same function.
    for ours, theirs in zip(attached(quantize, x, g), fused(x, g), strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    seconds = race.race(
      {
        'attached': functools.partial(attached, quantize, x, g),
        'fused': functools.partial(fused, x, g),
      },
      turns,
    )
    ratios[name] = seconds['attached'] / seconds['fused']
  return ratios
