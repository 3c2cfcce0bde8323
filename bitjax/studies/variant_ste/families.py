"""The variants of the straight-through estimator that N11 asks about, by family.

Each family varies one thing at several settings. The half-widths of windows come from
the study's flag; the estimators of the literature are taken at settings that their
papers use, and at one that is narrower or wider. A family acts on the activations
unless its name says otherwise; only ``'value clip'`` acts on weights and activations.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitjax import quantizers
from bitjax.studies import toy

__all__ = [
  'HALF',
  'KEPT',
  'LAYERWISE',
  'NAMES',
  'RELATIVE',
  'WINDOWS',
  'layerwise',
  'places',
  'variants',
]

WINDOWS = (
  'window on activations',
  'window on weights',
  'window on both',
)
NAMES = (
  *WINDOWS,
  'gain 1/c on activations',
  'gain 1/c on weights',
  'value clip',
  'quantile clip',
  'quantile clip on weights',
  'per-example clip',
  'identity',
  'Bi-Real',
  'SwishSign',
  'EDE at progress',
  'ReSTE at progress',
  'DSQ',
  'EWGS',
)

HALF = 0.5  # The half-width of the primary contrast.
KEPT = ', mass kept'  # Ends the names of windows of height 1/c.
RELATIVE = (
  'relative window in '  # Begins the names of windows in units of spreads.
)
LAYERWISE = ('window in ', RELATIVE)
_ORDINALS = ('first', 'second', 'third', 'fourth')


def places(num_hidden: int) -> dict[str, tuple[bool, ...]]:
  """Names the sets of hidden layers whose windows change: each layer, and all.

  Args:
    num_hidden: number of hidden layers.

  Returns:
    Name -> whether each hidden layer is one of them. A single layer is not all.
  """
  found = {
    _place(layer): tuple(layer == other for other in range(num_hidden))
    for layer in range(num_hidden)
  }
  return found | (
    {'all layers': (True,) * num_hidden} if num_hidden > 1 else {}
  )


def _place(layer):
  known = layer < len(_ORDINALS)
  return f'{_ORDINALS[layer]} layer' if known else f'layer {layer + 1}'


def layerwise(
  half_widths: Sequence[float], num_hidden: int
) -> list[toy.Variant]:
  """Lists windows that are the normal STE's, 1, but in some of the layers.

  In these they are `HALF` (of one layer only: of all layers it is one of `variants`),
  or have each of the given half-widths, in units of the layer's own spread.

  Args:
    half_widths: in units of the spread; an empty list for no windows at all.
    num_hidden: number of hidden layers.
  """
  found = []
  for place, inside in places(num_hidden).items():
    if half_widths and not all(inside):
      narrow = toy.Windows(
        tuple(HALF if one else 1.0 for one in inside), (0.0,) * num_hidden
      )
      found.append(toy.Variant(f'{LAYERWISE[0]}{place}', HALF, windows=narrow))
    for c in half_widths:
      own = toy.Windows(
        tuple(0.0 if one else 1.0 for one in inside),
        tuple(c if one else 0.0 for one in inside),
      )
      found.append(toy.Variant(f'{RELATIVE}{place}', c, windows=own))
  return found


def variants(
  families: Sequence[str],
  half_widths: Sequence[float],
  num_examples: int,
  own: Sequence[str] = (),
) -> list[toy.Variant]:
  """Lists the normal STE, then every setting of the given families.

  Args:
    families: some of `NAMES`.
    half_widths: of the windows; on the activations, 1 is the normal STE.
    num_examples: number of examples over which a loss is averaged, for the clip of
      per-example gradients.
    own: names for `quantizers.named` of further estimators of the activations, at
      progress 1.
  """
  found = [toy.NORMAL]

  def add(family, setting, **estimators):
    if family in families:
      found.append(toy.Variant(family, setting, **estimators))

  window, clip = quantizers.window, quantizers.clip
  for c in sorted({*half_widths, 1.0}):
    add('window on weights', c, kernel=window(c))
    if c != 1:
      add('window on activations', c, activation=window(c))
      add('window on both', c, kernel=window(c), activation=window(c))
  for c in (0.05, 0.5):
    add('gain 1/c on activations', c, activation=window(c, 1 / c))
    add('gain 1/c on weights', c, kernel=window(c, 1 / c))
  add('value clip', 0.5, kernel=clip(0.5), activation=clip(0.5))
  for quantile in (0.9, 0.99):
    limit = quantizers.clip_quantile(quantile)
    add('quantile clip', quantile, activation=limit)
    add('quantile clip on weights', quantile, kernel=limit)
  for limit in (0.01, 0.5):
    add('per-example clip', limit, activation=clip(limit, num_examples))
  add('identity', 0, activation=quantizers.identity())
  add('Bi-Real', 0, activation=quantizers.polynomial())
  for beta in (1.0, 5.0):
    add('SwishSign', beta, activation=quantizers.swish_sign(beta))
  for progress in (0.5, 1.0):
    decay, reste = quantizers.error_decay(), quantizers.reste()
    add('EDE at progress', progress, activation=decay, progress=progress)
    add('ReSTE at progress', progress, activation=reste, progress=progress)
  for alpha in (0.1, 0.5):
    add('DSQ', alpha, activation=quantizers.dsq(alpha))
  for delta in (0.1, 1.0):
    add('EWGS', delta, activation=quantizers.ewgs(delta))
  for name in own:
    found.append(toy.Variant(name, 0, activation=quantizers.named(name)))
  return found
