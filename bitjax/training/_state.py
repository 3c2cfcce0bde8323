"""The state of a training: one pytree of everything that its future depends on.

A state and a feed with random access are enough to resume: the same state gives the
same future, bit for bit, in the same program on the same device. Every leaf has a
leading axis of *seeds*: networks that are trained side by side, each from its own
initialisation, on its own order of examples (`_seeds`).
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import re
from typing import Any, NamedTuple

from flax import core
from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import optax

from bitjax import nn as networks
from bitjax import types
from bitjax.training import _seeds

__all__ = [
  'Totals',
  'TrainState',
  'check_fits',
  'create',
  'finite',
  'kernels',
  'mismatch',
  'switch',
  'variables_of',
]

# Collections that are not part of a state.
_NOT_KEPT = ('intermediates', 'quantized', 'deployed')


class Totals(NamedTuple):
  """Sums over the updates since the last row of the log, of means and of shares.

  Sums of counts would soon leave the integers that float32 can hold.

  Attributes:
    steps: number of updates, int32.
    loss: sum of the batches' mean losses, float32.
    accuracy: sum of the batches' mean values: in a classification, the target
      probabilities of the guessed classes, float32.
    flip_ratio: sum of the shares of latent weights that changed sign, by kernel,
      float32.
  """

  steps: types.Array  # shape=()
  loss: types.Array  # shape=()
  accuracy: types.Array  # shape=()
  flip_ratio: dict[str, types.Array]  # shape=() each.


class TrainState(NamedTuple):
  """The state of networks in training; every leaf has a leading axis of seeds.

  Attributes:
    step: number of updates made, int32.
    key: a typed random key; step t draws from ``fold_in(key, t)``.
    params: parameters, latent weights among them.
    collections: the other variables, such as ``batch_stats``.
    opt_state: state of the optimiser.
    average: exponential moving average of params and collections; None for none.
    totals: sums for the next row of the log.
  """

  step: types.Array
  key: types.Array
  params: types.PyTree
  collections: dict[str, types.PyTree]
  opt_state: types.PyTree
  average: types.PyTree | None
  totals: Totals


def create(
  model: nn.Module,
  tx: optax.GradientTransformation,
  seeds: Sequence[int],
  images: types.Array,
  *,
  variables: types.PyTree | Sequence[types.PyTree] | None = None,
  average: bool = False,
  rates: Sequence[float] | None = None,
) -> TrainState:
  """Initialises one network for each seed.

  Args:
    model: called as ``model.apply(variables, images)``, with ``train=`` and
      ``progress=`` if its ``__call__`` takes them.
    tx: the optimiser.
    seeds: seeds of initialisation and of everything that training draws, integers
      in [0, 2**32).
    images: float32 [examples, ...], as the model sees them; the ranges of learned
      quantizers are initialised from them and the weights.
    variables: variables that every seed starts from, or a list of those of each: of a
      network with the same names and shapes, in full precision or not. Missing ones (of
      learned quantizers) are initialised. None for random weights.
    average: whether to keep a moving average of all variables.
    rates: factors on the learning rate, one for each network; None for 1.

  Raises:
    BadInput: for rates with an optimiser that is not made by `optimizer`, for another
      number of ``variables`` than of seeds, and for ``variables`` that do not fit the
      model, naming the first leaf that does not.
  """

  for seed in seeds:
    types.check_seed('seeds', seed)
  own = isinstance(variables, list | tuple)
  for some in variables if own else [variables]:
    if some is not None:
      check_fits(model, some, images)
  if own:
    if len(variables) != len(seeds):
      raise types.BadInput(
        'a list of variables must have those of each seed; got '
        f'{len(variables)} for {len(seeds)} seeds.'
      )
    variables = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
  keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
  run = _creator(model, tx, len(seeds), average, own)
  state, silent = run(keys, images, variables)
  networks.warn_silent(silent)
  if rates is None:
    return state
  if optax.tree.get(state.opt_state, 'multiplier') is None:
    raise types.BadInput(
      'rates need an optimiser of bitjax.training.optimizer.'
    )
  opt_state = optax.tree.set(
    state.opt_state, multiplier=jnp.asarray(rates, jnp.float32)
  )
  return state._replace(opt_state=opt_state)


@functools.lru_cache(maxsize=16)
def _creator(model, tx, num_seeds, average, own):
  """Returns the jitted part of `create`, cached so that later seeds share a program.

  If each seed has its ``own`` variables, they have a leading axis of seeds.
  """

  def create(keys, images, given):
    def one(key, *mine):
      variables = mine[0] if own else given
      init_key, key = jax.random.split(key)
      silent = {}
      if variables is None:
        names = ('params', 'quantizer')
        rngs = dict(zip(names, jax.random.split(init_key), strict=True))
        found, silent = networks.init_quietly(
          model, rngs, images, train=False, progress=0.0
        )
      else:
        found = _completed(model, variables, init_key, images)
      return _begin(tx, key, found, average), silent

    return _seeds.inside(one, num_seeds)(keys, *([given] if own else []))

  return jax.jit(create)


def check_fits(
  model: nn.Module, variables: types.PyTree, images: types.Array
) -> None:
  """Checks that a network can start from these variables.

  Args:
    model: the network.
    variables: variables of a network with the same names and shapes; the parameters
      of learned quantizers may be absent, or belong to other quantizers.
    images: as the model sees them; only their shape matters.

  Raises:
    BadInput: naming the first leaf that does not fit.
  """
  key = jax.eval_shape(lambda: jax.random.key(0))
  options = networks.call_options(model, train=False)
  wanted = _described(
    jax.eval_shape(
      lambda key: model.init(
        {'params': key, 'quantizer': key}, images, **options
      ),
      key,
    )
  )
  found = {
    path: text
    for path, text in _described(variables).items()
    if path.split('/')[0] not in _NOT_KEPT
  }
  for path, text in found.items():
    if wanted.get(path) != text and not _learned(path):
      raise types.BadInput(
        f'the checkpoint must be one of this network; {path} is {text} there, '
        f'here {wanted.get(path, "absent")}.'
      )
  for path, text in wanted.items():
    if path not in found and not _learned(path):
      raise types.BadInput(
        f'the checkpoint must be one of this network, which has {path} '
        f'({text}); there it is absent.'
      )


def switch(
  state: TrainState,
  model: nn.Module,
  tx: optax.GradientTransformation,
  images: types.Array,
) -> TrainState:
  """Switches to other quantizers; weights and the optimiser's state are kept.

  New variables (the parameters of learned quantizers) are initialised as at the start
  of a training, those that the model no longer has are dropped, and everything else
  is kept, moments and totals included.

  Args:
    state: state at the end of a phase.
    model: the next phase's, with kernels of the same names and shapes.
    tx: the next phase's optimiser, of the same kind.
    images: as for `create`.
  """

  return _switcher(model, tx, state.step.shape[0])(state, images)


@functools.lru_cache(maxsize=16)
def _switcher(model, tx, num_seeds):
  """Returns the jitted `switch`, cached so that later seeds share a program."""

  def switch(state, images):
    def one(state):
      key = jax.random.fold_in(state.key, state.step + (1 << 30))
      found = _completed(model, variables_of(state), key, images)
      fresh = _begin(tx, state.key, found, state.average is not None)
      kept = _graft(fresh.opt_state, state.opt_state)
      average = state.average
      if average is not None:
        average = _graft(fresh.average, average)
      return fresh._replace(
        step=state.step, opt_state=kept, average=average, totals=state.totals
      )

    return _seeds.inside(one, num_seeds)(state)

  return jax.jit(switch)


def variables_of(state: TrainState, *, average: bool = False) -> types.PyTree:
  """Returns a network's variables: as trained, or their moving average if it exists."""
  if average and state.average is not None:
    return state.average
  return {'params': state.params, **state.collections}


def finite(variables: types.PyTree) -> types.Array:
  """Returns which networks have finite variables only, [seeds]; others diverged."""
  return functools.reduce(
    jnp.logical_and,
    [
      jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(axis=1)
      for leaf in jax.tree.leaves(variables)
      if jnp.issubdtype(leaf.dtype, jnp.floating)
    ],
  )


def kernels(params: types.PyTree) -> dict[str, types.Array]:
  """Returns kernels by the path of their layer, in the order of the network."""
  flat: dict[Any, Any] = traverse_util.flatten_dict(core.unfreeze(params))
  found = {path: w for path, w in flat.items() if path[-1] == 'kernel'}
  return {'/'.join(p[:-1]): found[p] for p in sorted(found, key=_natural)}


def mismatch(wanted: types.PyTree, found: types.PyTree) -> str | None:
  """Names the first leaf in which two trees differ by path, shape or dtype, if any."""
  ours, theirs = _described(wanted), _described(found)
  for path in [*ours, *(path for path in theirs if path not in ours)]:
    if ours.get(path) != theirs.get(path):
      here = ours.get(path, 'absent')
      return f'{path}: {here} wanted, {theirs.get(path, "absent")} found'
  return None


def _begin(tx, key, variables, average):
  variables = core.unfreeze(variables)
  params = variables.pop('params')
  collections = {k: v for k, v in variables.items() if k not in _NOT_KEPT}
  kept = {'params': params, **collections} if average else None
  zero = jnp.zeros((), jnp.float32)
  ratios = dict.fromkeys(kernels(params), zero)
  totals = Totals(jnp.zeros((), jnp.int32), zero, zero, ratios)
  step = jnp.zeros((), jnp.int32)
  return TrainState(
    step, key, params, collections, tx.init(params), kept, totals
  )


def _completed(model, variables, key, images):
  """Returns the model's variables: those given, and new ones where some are missing."""
  keys = jax.random.split(key)
  options = networks.call_options(model, train=False)
  wanted = jax.eval_shape(
    lambda: model.init(
      {'params': keys[0], 'quantizer': keys[1]}, images, **options
    )
  )
  found = networks.complete(
    model,
    _without_others(variables, wanted),
    keys[0],
    images,
    train=False,
    progress=0.0,
  )
  return _graft(wanted, found)


def _without_others(variables, wanted):
  """Drops variables of quantizers whose parameters are not those of the model's."""
  ours, theirs = _described(wanted), _described(variables)
  others = {
    _learned(path)
    for path in {*ours, *theirs}
    if ours.get(path) != theirs.get(path)
  }
  flat: dict[Any, Any] = traverse_util.flatten_dict(core.unfreeze(variables))
  return traverse_util.unflatten_dict(
    {
      path: leaf
      for path, leaf in flat.items()
      if _learned('/'.join(path)) not in others - {None}
    }
  )


def _learned(path):
  """Returns the path of the quantizer that a leaf belongs to; None if there is none."""
  found = re.match('.*quantizer[^/]*', path)
  return found and found.group()


def _graft(template, values):
  """Returns ``template`` with leaves from ``values`` where paths and shapes agree."""
  known = dict(_paths(values))
  leaves = [
    known[path] if path in known and known[path].shape == leaf.shape else leaf
    for path, leaf in _paths(template)
  ]
  return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _paths(tree):
  found, _ = jax.tree.flatten_with_path(tree)
  return [(jax.tree_util.keystr(path), leaf) for path, leaf in found]


def _described(tree):
  found, _ = jax.tree.flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): (
      f'{leaf.dtype}{list(leaf.shape)}'
    )
    for path, leaf in found
  }


def _natural(path):
  """Sort key: convolutions, blocks, others; Conv_9, Conv_10, ..., Conv_shortcut."""
  kinds = ('Conv', 'Block')

  def key(word):
    rank = kinds.index(word) if word in kinds else len(kinds)
    return (0, int(word), '') if word.isdigit() else (1, rank, word)

  return [[key(word) for word in name.split('_')] for name in path]
