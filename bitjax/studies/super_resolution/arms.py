"""The networks that the study compares: one design, and departures from it in one part.

The declared design of one bit has a shortcut around every convolution, beside which the
branch is multiplied by 0.1, no normalisation, head, upsampler and tail of full precision,
and a window as estimator; that of two bits has a learned symmetric range of
activations. Every other arm differs from one of them in one part, except for the naive
one, which differs in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bitjax import types

__all__ = [
  'ARMS',
  'BATCH_NORM',
  'BLOCK',
  'BOTH_ENDS',
  'FEWER',
  'FOUR_EQUAL',
  'FULL',
  'NAIVE',
  'ONE',
  'PRIMARY',
  'TWO',
  'TWO_EQUAL',
  'Arm',
  'Design',
  'check',
]


class Design(NamedTuple):
  """What is quantized, and how.

  Attributes:
    bits: of weights and activations of quantized layers; 32 for no quantizers.
    shortcut: ``'each'`` or ``'block'``, as in `bitjax.nn.SuperResolution`.
    multiplier: of the branch beside a shortcut.
    norm: whether a batch normalisation follows every convolution of the body.
    ends: whether head and tail are quantized.
    upsampler: whether the upsampler is quantized.
    estimator: of one-bit activations: ``'window'``, ``'identity'`` or ``'bireal'``.
    ranges: the range of activations of several bits: ``'learned'`` (symmetric, as in
      PAMS), ``'ends'`` (both ends, as in DDTB), ``'fixed'`` at [-1, 1], or ``'batch'``.
    share: width as a share of that of the others: 1 / n. A body of b bits in 1 / b of
      the channels takes b^2 / b^2 times the bit operations of one of one bit.
  """

  bits: int = 1
  shortcut: str = 'each'
  multiplier: float = 0.1
  norm: bool = False
  ends: bool = False
  upsampler: bool = False
  estimator: str = 'window'
  ranges: str = 'learned'
  share: int = 1


class Arm(NamedTuple):
  """A network of the study.

  Attributes:
    design: how it is made low-bit.
    base: the arm from which it departs; '' for none.
    part: what is different, as the subject of a claim that it costs decibels.
  """

  design: Design
  base: str = ''
  part: str = ''


FULL, ONE, TWO = 'full precision', '1 bit', '2 bits'
BLOCK, NAIVE = '1 bit with block shortcut', 'naive'
BATCH_NORM = '1 bit with BatchNorm'
BOTH_ENDS = '2 bits with both ends learned'
TWO_EQUAL, FOUR_EQUAL = '2 bits at equal BOPs', '4 bits at equal BOPs'
PRIMARY = (ONE, BLOCK)

_ONE, _TWO = Design(), Design(bits=2)

ARMS: dict[str, Arm] = {
  FULL: Arm(Design(bits=32, shortcut='block', multiplier=1.0)),
  ONE: Arm(_ONE, FULL, 'one bit for the body, in the declared design,'),
  BLOCK: Arm(
    _ONE._replace(shortcut='block'),
    ONE,
    'a shortcut around each block, not around every convolution,',
  ),
  '1 bit with multiplier 1': Arm(
    _ONE._replace(multiplier=1.0),
    ONE,
    'a branch that is not multiplied by 0.1 beside its shortcut',
  ),
  '1 bit with block shortcut and multiplier 1': Arm(
    _ONE._replace(shortcut='block', multiplier=1.0),
    BLOCK,
    'a branch that is not multiplied by 0.1 beside the shortcut of its block',
  ),
  BATCH_NORM: Arm(
    _ONE._replace(norm=True), ONE, 'BatchNorm after every convolution'
  ),
  '1 bit with head and tail': Arm(
    _ONE._replace(ends=True), ONE, 'one bit for head and tail'
  ),
  '1 bit with upsampler': Arm(
    _ONE._replace(upsampler=True), ONE, 'one bit for the upsampler'
  ),
  '1 bit with identity': Arm(
    _ONE._replace(estimator='identity'),
    ONE,
    'the identity as estimator, instead of a window,',
  ),
  '1 bit with Bi-Real': Arm(
    _ONE._replace(estimator='bireal'),
    ONE,
    "Bi-Real's polynomial as estimator, instead of a window,",
  ),
  NAIVE: Arm(
    Design(
      shortcut='block', multiplier=1.0, norm=True, ends=True, upsampler=True
    ),
    ONE,
    'everything at one bit, with BatchNorm and a shortcut a block,',
  ),
  TWO: Arm(_TWO, FULL, 'two bits for the body, in the declared design,'),
  BOTH_ENDS: Arm(
    _TWO._replace(ranges='ends'),
    TWO,
    'a range with two learned ends, instead of a symmetric one,',
  ),
  '2 bits with fixed range': Arm(
    _TWO._replace(ranges='fixed'),
    TWO,
    'the fixed range [-1, 1], instead of a learned one,',
  ),
  '2 bits with range of the batch': Arm(
    _TWO._replace(ranges='batch'),
    TWO,
    "the batch's range, instead of a learned one,",
  ),
  TWO_EQUAL: Arm(
    _TWO._replace(share=2),
    ONE,
    'two bits in half the width, as many bit operations as one bit,',
  ),
  FOUR_EQUAL: Arm(
    _TWO._replace(bits=4, share=4),
    ONE,
    'four bits in a quarter of the width, as many bit operations as one bit,',
  ),
}

# Those of a short run: at least one of each part.
FEWER = tuple(name for name in ARMS if name not in (BOTH_ENDS, FOUR_EQUAL))


def check(arms: Sequence[str], width: int) -> None:
  """Raises `BadInput` for arms that lack the primary contrast, or do not fit the width."""
  if missing := [name for name in PRIMARY if name not in arms]:
    raise types.BadInput(
      f'arms must list "{missing[0]}", which the primary contrast compares; got '
      f'{"; ".join(arms)}.'
    )
  for name in arms:
    if width % ARMS[name].design.share:
      raise types.BadInput(
        f'channels must be a multiple of {ARMS[name].design.share} for the arm '
        f'"{name}"; got {width}.'
      )
