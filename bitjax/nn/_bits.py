"""The bit-width of a quantizer's values, as the quantizer declares it."""

from __future__ import annotations

from typing import Any

import jax

from bitjax import types

__all__ = ['quantizer_bits']


def quantizer_bits(quantizer: Any) -> int:
  """Returns how many bits the values of a quantizer take.

  The quantizer, or the one staircase inside it (however it is wrapped), declares
  this by an attribute ``bits`` or ``num_levels``.

  Args:
    quantizer: any callable pytree.

  Raises:
    BadInput: if nothing in the quantizer declares it, or several nodes do.
  """
  nodes = jax.tree.leaves(quantizer, is_leaf=_declares)
  declaring = [node for node in nodes if _declares(node)]
  if len(declaring) != 1:
    raise types.BadInput(
      'A quantizer must say how many bits its values take, by an attribute '
      f'`bits` (an integer) of it or of its staircase; {quantizer!r} holds '
      f'{len(declaring)} that do.'
    )
  (node,) = declaring
  if getattr(node, 'bits', None) is not None:
    return int(node.bits)
  return max(1, (int(node.num_levels) - 1).bit_length())


def _declares(node: Any) -> bool:
  return getattr(node, 'bits', None) is not None or hasattr(node, 'num_levels')
