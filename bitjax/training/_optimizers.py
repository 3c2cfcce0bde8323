"""Optimisers for networks with latent weights, which treat groups of leaves apart.

Weight decay acts on kernels only, or on all leaves; the clipping level of PACT and the
softness of DSQ may have a decay of their own. Binary kernels can be updated by
Bop, which has no latent weights. Frozen leaves are not updated at all.
"""

from __future__ import annotations

from collections.abc import Sequence
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bitjax import transforms
from bitjax import types

__all__ = ['DECAYED', 'OPTIMIZERS', 'MultiplierState', 'optimizer']

OPTIMIZERS = ('sgd', 'adam', 'adamw', 'bop')
DECAYED = ('kernels', 'all')


class MultiplierState(NamedTuple):
  """A factor on the learning rate; as part of the state it needs no recompilation."""

  multiplier: types.Array  # shape=(), float32.


def optimizer(
  name: str,
  learning_rate: optax.ScalarOrSchedule,
  *,
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  decayed: str = 'kernels',
  quantizer_rate: float = 1.0,
  quantizer_decay: float | None = None,
  clip_latent: float | None = None,
  bop_threshold: float = 1e-8,
  bop_gamma: float = 1e-4,
  binary: Sequence[str] = (),
  frozen: Sequence[str] = (),
) -> optax.GradientTransformation:
  """Builds an optimiser.

  ``'sgd'`` (with momentum), ``'adam'`` (decay added to the gradient, as in most
  published recipes) and ``'adamw'`` (decoupled) update all leaves; ``'bop'`` flips
  the kernels of the binary layers and leaves the rest to Adam.

  Args:
    name: one of `OPTIMIZERS`.
    learning_rate: a number or a schedule; with ``'bop'``, that of Adam. The state
      holds a factor on it (`MultiplierState`), so that networks that differ in this
      factor share a program.
    momentum: momentum of SGD, in [0, 1).
    weight_decay: >= 0; does not act on kernels that Bop flips.
    decayed: ``'kernels'`` only, or ``'all'`` leaves, including scales and offsets of
      normalisations, biases and the parameters of quantizers. Most published code
      decays all, since it passes all parameters of a network to the optimiser.
    quantizer_rate: factor on the learning rate for the parameters of quantizers.
    quantizer_decay: weight decay of the alphas of `bitjax.quantizers.pact` and
      `bitjax.quantizers.learned_dsq`, which both papers penalise (PACT with the decay
      of the weights); None to treat them as ``decayed`` says. They are the leaves
      whose path ends with ``_quantizer/alpha``.
    clip_latent: bound on the magnitude of the binary layers' weights; None for
      none.
    bop_threshold: threshold tau of Bop; see `bitjax.transforms.bop`.
    bop_gamma: gamma of Bop.
    binary: regular expressions; layers whose path contains a match are binary. They
      are needed for ``'bop'`` and ``clip_latent``.
    frozen: regular expressions; leaves whose path contains a match never change.

  Raises:
    BadInput: for an unknown name, numbers out of range, an invalid regular
      expression, or ``binary`` where it is needed and empty; from the optimiser's
      ``init``, for an expression that no leaf matches.

  References:
    Helwegen et al., Latent weights do not exist, 2019, for Bop and its defaults
    here (https://arxiv.org/abs/1906.02107).
  """
  types.check_choice('name', name, OPTIMIZERS)
  types.check_range('momentum', momentum, 0.0, 1.0 - 1e-12)
  types.check_non_negative('weight_decay', weight_decay, finite=True)
  types.check_choice('decayed', decayed, DECAYED)
  types.check_positive('quantizer_rate', quantizer_rate, finite=True)
  if quantizer_decay is not None:
    types.check_non_negative('quantizer_decay', quantizer_decay, finite=True)
  if clip_latent is not None:
    types.check_positive('clip_latent', clip_latent)
  types.check_non_negative('bop_threshold', bop_threshold)
  types.check_range('bop_gamma', bop_gamma, 0.0, 1.0)
  if (name == 'bop' or clip_latent is not None) and not binary:
    raise types.BadInput(
      "binary must name the binary layers for 'bop' and for clip_latent; got "
      'none.'
    )
  if not callable(learning_rate):
    types.check_positive('learning_rate', learning_rate, finite=True)
  is_binary, is_frozen = _searcher(binary, 'kernel'), _searcher(frozen)
  decay = _decay(weight_decay, decayed, quantizer_decay)
  rate = optax.scale_by_learning_rate(learning_rate)
  if name == 'sgd':
    main = [decay, optax.trace(momentum) if momentum else optax.identity()]
  elif name == 'adamw':
    main = [optax.scale_by_adam(), decay]
  else:
    main = [decay, optax.scale_by_adam()]
  links = [*main, rate, _scale_by_multiplier()]
  if quantizer_rate != 1.0:
    links.append(optax.masked(optax.scale(quantizer_rate), _quantizers))
  base = optax.chain(*links)
  if name == 'bop':
    base = optax.partition(
      {'binary': transforms.bop(bop_threshold, bop_gamma), 'rest': base},
      lambda params: _labels(params, 'binary', is_binary),
    )
  links = [base]
  if clip_latent is not None:
    clip = transforms.clip_latent(clip_latent)
    links.append(optax.masked(clip, lambda params: _mask(params, is_binary)))
  tx = optax.chain(*links)
  if frozen:
    tx = optax.partition(
      {'frozen': optax.set_to_zero(), 'rest': tx},
      lambda params: _labels(params, 'frozen', is_frozen),
    )
  needed = binary if name == 'bop' or clip_latent is not None else ()

  def init(params):
    _check_matches(params, 'kernel', needed)
    _check_matches(params, '', frozen)
    return tx.init(params)

  def update(updates, state, params=None, **extra_args):
    with types.as_optax():
      return optax.with_extra_args_support(tx).update(
        updates, state, params, **extra_args
      )

  return optax.GradientTransformationExtraArgs(init, update)


def _decay(weight_decay, decayed, quantizer_decay):
  mask = _kernels if decayed == 'kernels' else None
  if quantizer_decay is None:
    return optax.add_decayed_weights(weight_decay, mask=mask)
  others = mask or (lambda params: _mask(params, lambda path: not _alpha(path)))
  alphas = optax.add_decayed_weights(
    quantizer_decay, mask=lambda params: _mask(params, _alpha)
  )
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=others), alphas
  )


def _alpha(path):
  """Returns whether a path is that of an alpha of PACT or DSQ.

  They are known by their names: layers call their quantizers ``kernel_quantizer`` and
  ``input_quantizer``, and both of these quantizers call the parameter ``alpha``.
  """
  return path.endswith('_quantizer/alpha')


def _scale_by_multiplier():
  def init(params):
    del params
    return MultiplierState(jnp.ones((), jnp.float32))

  def update(updates, state, params=None):
    del params
    scaled = jax.tree.map(
      lambda u: (state.multiplier * u).astype(u.dtype), updates
    )
    return scaled, state

  return optax.GradientTransformation(init, update)


def _kernels(params):
  return _mask(params, lambda path: path.endswith('kernel'))


def _quantizers(params):
  return _mask(params, lambda path: 'quantizer' in path)


def _mask(params, holds):
  return jax.tree.map_with_path(lambda path, _: holds(_text(path)), params)


def _labels(params, label, holds):
  return jax.tree.map(
    lambda yes: label if yes else 'rest', _mask(params, holds)
  )


def _searcher(patterns, ending=''):
  """Returns a function: whether a path matches a pattern and ends with ``ending``."""
  for pattern in patterns:
    try:
      re.compile(pattern)
    except re.error as error:
      raise types.BadInput(
        f'{pattern!r} is no regular expression: {error}.'
      ) from error

  def search(path: str) -> bool:
    found = any(re.search(pattern, path) for pattern in patterns)
    return found and path.endswith(ending)

  return search


def _check_matches(params, ending, patterns):
  """Raises `BadInput` for an expression that no leaf matches."""
  paths = jax.tree.leaves(
    jax.tree.map_with_path(lambda path, _: _text(path), params)
  )
  for pattern in patterns:
    search = _searcher([pattern], ending)
    if not any(search(path) for path in paths):
      raise types.BadInput(
        f'no {ending or "leaf"} has a path that contains {pattern!r}; the '
        f'leaves are {", ".join(paths)}.'
      )


def _text(path):
  return jax.tree_util.keystr(path, simple=True, separator='/')
