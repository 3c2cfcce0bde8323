"""Methods that follow gradients: continued STE, Bop, ADMM, proximal steps, perturbations.

All begin at latent weights of a mean magnitude of 1, the distance of the levels from 0, which
changes no sign. Their units are taken from there: a rate of SGD, a threshold of Bop and
the penalty of ADMM are relative to the root mean square of the first gradient that each
computes, so that one grid serves layers of all sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bitjax import descent
from bitjax import quantizers
from bitjax import scans
from bitjax import searches
from bitjax import training
from bitjax import transforms
from bitjax import types
from bitjax.studies.discrete_optimisers import methods

__all__ = ['METHODS']

_SIGN = quantizers.sign()
_EVERY = 8  # Steps of W in a round of ADMM.
_PERIODS = 4  # Of a rate that restarts.
_TEMPERATURE = 0.5  # Of weighted flips, in the root mean square of the gains.
# Which of the segments stand for the efforts; nothing more is spent beyond all of them.
_READ = [int(min(e, 1) * methods.SEGMENTS) - 1 for e in methods.EFFORTS[1:]]


def _follow(
  view: scans.LayerView,
  start: types.Array,
  key: types.Array,
  spent: methods.Spent,
  make: Callable[[types.Array], optax.GradientTransformation],
  *,
  quantized: bool = True,
  deploy: Callable[[Any, Any], Any] | None = None,
  given: Mapping[str, Any] | None = None,
) -> types.Array:
  """Makes updates of a transform on batches of the view's examples.

  Args:
    view: the layer on all examples.
    start: where parameters begin.
    key: of the batches.
    spent: what may be spent.
    make: root mean square of the first gradient -> an optax transform.
    quantized: whether the network computes with the signs of the parameters.
    deploy: (parameters, state) -> kernel; None for the parameters.
    given: further arguments of the transform's ``update``.

  Returns:
    The deployed kernels after each effort but the first.
  """
  size = view.labels.size
  if not quantized:
    view = dataclasses.replace(view, quantizer=None)

  def gradient(params, key):
    rows = jax.random.randint(key, (spent.batch,), 0, size, jnp.int32)
    batch = dataclasses.replace(
      view, inputs=view.inputs[rows], labels=view.labels[rows]
    )
    return jax.grad(batch.loss)(params)

  measuring, key = jax.random.split(key)
  first = jnp.sqrt(jnp.mean(gradient(start, measuring) ** 2))
  tx = optax.with_extra_args_support(make(jnp.where(first > 0, first, 1.0)))

  def step(carry, key):
    params, state = carry
    found = gradient(params, key)
    with types.as_optax():
      updates, state = tx.update(found, state, params, **(given or {}))
    return (optax.apply_updates(params, updates), state), None

  def segment(carry, keys):
    carry, _ = jax.lax.scan(step, carry, keys)
    return carry, carry[0] if deploy is None else deploy(*carry)

  keys = jax.random.split(
    key, (methods.SEGMENTS, spent.updates // methods.SEGMENTS)
  )
  _, kernels = jax.lax.scan(segment, (start, tx.init(start)), keys)
  return kernels[jnp.asarray(_READ)]


def _start(view):
  """Returns latent weights whose mean magnitude is 1, in each layer of a network."""
  if not hasattr(view.product, 'split'):
    return view.kernel / jnp.mean(jnp.abs(view.kernel))
  parts = view.product.split(view.kernel)
  return jnp.concatenate(
    [(w / jnp.mean(jnp.abs(w))).reshape(-1) for w in parts]
  )


def _sgd(view, key, setting, spent):
  make = lambda size: optax.sgd(setting['rate'] / size)
  return _follow(view, _start(view), key, spent, make)


def _adam(view, key, setting, spent):
  make = lambda size: optax.adam(setting['rate'])
  return _follow(view, _start(view), key, spent, make)


def _bop(view, key, setting, spent):
  make = lambda size: transforms.bop(
    setting['threshold'] * size, setting['gamma']
  )
  return _follow(view, _start(view), key, spent, make)


def _admm(view, key, setting, spent):
  make = lambda size: transforms.admm(
    setting['rho'] * size,
    _SIGN,
    optax.adam(setting['rate']),
    every=_EVERY,
    extragradient=False,
    scale=1.0,
  )
  return _follow(
    view,
    _start(view),
    key,
    spent,
    make,
    quantized=False,
    deploy=transforms.admm_weights,
  )


def _proximal(view, key, setting, spent, *, parq):
  progress: Any = optax.linear_schedule(0.0, 1.0, spent.updates)
  if parq:
    rule = quantizers.parq(setting['steepness'])
  else:
    rule = quantizers.proximal(
      _SIGN,
      0.0,
      setting['end'] / spent.updates,
      distance='l1',
      schedule='linear',
    )
  make = lambda size: transforms.proximal_steps(
    rule, progress, optax.adam(setting['rate']), latent=parq
  )
  return _follow(view, _start(view), key, spent, make, quantized=False)


def _perturbed(view, key, setting, spent, *, budget):
  draw, key = jax.random.split(key)
  start = _start(view)
  start += descent.noise(draw, start, budget(setting, start), 1.0)
  return _adam(dataclasses.replace(view, kernel=start), key, setting, spent)


def _flips(setting, start):
  return types.Budget(setting['share'] * start.size, 'flips')


def _ball(setting, start):
  radius = setting['radius'] * jnp.sqrt(jnp.sum(start**2))
  return types.Budget(radius, 'l2')


def _flip(setting, key, params):
  return searches.flip_signs(params, key, setting['share'] * params.size)


def _weighted(setting, key, params, view):
  """Flips signs, those with larger exact gains on all of A more likely."""
  gains = scans.flip_gains(dataclasses.replace(view, kernel=params)).gains
  size = jnp.sqrt(jnp.mean(gains**2))
  return searches.flip_signs(
    params,
    key,
    setting['share'] * params.size,
    gains=gains,
    temperature=_TEMPERATURE * jnp.where(size > 0, size, 1.0),
  )


def _shake(setting, key, params):
  return params + descent.noise(key, params, _ball(setting, params), 1.0)


def _at_intervals(view, key, setting, spent, *, move):
  """Continues STE by Adam, and perturbs it at the beginning of each segment."""
  draw, key = jax.random.split(key)
  needs = ('view',) if move is _weighted else ()
  make = lambda size: optax.chain(
    optax.adam(setting['rate']),
    transforms.perturb(
      functools.partial(move, setting),
      spent.updates // methods.SEGMENTS,
      draw,
      needs=needs,
    ),
  )
  return _follow(
    view, _start(view), key, spent, make, given={'view': view} if needs else {}
  )


def _decaying(view, key, setting, spent, *, periods):
  """Continues STE by Adam, whose rate falls to 0 in one or several periods."""
  draw, key = jax.random.split(key)
  make = lambda size: optax.adam(
    training.restarts(setting['rate'], spent.updates, periods, draw)
  )
  return _follow(view, _start(view), key, spent, make)


METHODS: dict[str, methods.Method] = {
  'STE, Adam': methods.Method(
    _adam, methods.crossed(rate=(0.003, 0.02, 0.1, 0.3))
  ),
  'STE, SGD': methods.Method(
    _sgd, methods.crossed(rate=(0.003, 0.01, 0.03, 0.1))
  ),
  'Bop': methods.Method(
    _bop, methods.crossed(threshold=(0.3, 1.0), gamma=(0.01, 0.1))
  ),
  'ADMM': methods.Method(
    _admm, methods.crossed(rate=(0.1, 0.3), rho=(0.01, 0.1))
  ),
  'ProxQuant': methods.Method(
    functools.partial(_proximal, parq=False),
    methods.crossed(rate=(0.03, 0.1), end=(1.0, 4.0)),
  ),
  'PARQ': methods.Method(
    functools.partial(_proximal, parq=True),
    methods.crossed(rate=(0.01, 0.1), steepness=(4.0, 10.0)),
  ),
  'flips, then STE': methods.Method(
    functools.partial(_perturbed, budget=_flips),
    methods.crossed(share=(0.01, 0.05), rate=(0.02, 0.1)),
  ),
  'noise, then STE': methods.Method(
    functools.partial(_perturbed, budget=_ball),
    methods.crossed(radius=(0.1, 0.5), rate=(0.02, 0.1)),
  ),
  'flips at intervals': methods.Method(
    functools.partial(_at_intervals, move=_flip),
    methods.crossed(share=(0.01, 0.05), rate=(0.02, 0.1)),
  ),
  'weighted flips at intervals': methods.Method(
    functools.partial(_at_intervals, move=_weighted),
    methods.crossed(share=(0.01, 0.05), rate=(0.02, 0.1)),
  ),
  'noise at intervals': methods.Method(
    functools.partial(_at_intervals, move=_shake),
    methods.crossed(radius=(0.1, 0.5), rate=(0.02, 0.1)),
  ),
  'one fall of the rate': methods.Method(
    functools.partial(_decaying, periods=1),
    methods.crossed(rate=(0.003, 0.02, 0.1, 0.3)),
  ),
  'restarts of the rate': methods.Method(
    functools.partial(_decaying, periods=_PERIODS),
    methods.crossed(rate=(0.003, 0.02, 0.1, 0.3)),
  ),
}
