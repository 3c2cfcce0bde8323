"""Quantizers: what the forward pass does, and what the backward pass pretends.

A *staircase* is the function that the forward pass computes; its derivative is
zero wherever it exists. An *estimator* says what the backward pass puts in the
place of that derivative. `attach` joins one of each to a quantizer. All three
are callable pytrees: their hyperparameters are leaves, so a sweep may vmap over
them and a schedule may anneal them.
"""

from bitjax.quantizers._attach import Estimator
from bitjax.quantizers._attach import Quantize
from bitjax.quantizers._attach import Staircase
from bitjax.quantizers._attach import attach
from bitjax.quantizers._estimators import clip
from bitjax.quantizers._estimators import identity
from bitjax.quantizers._estimators import window
from bitjax.quantizers._scaling import COUPLINGS
from bitjax.quantizers._scaling import Scaling
from bitjax.quantizers._scaling import mean_abs
from bitjax.quantizers._staircases import sign

__all__ = [
  'COUPLINGS',
  'Estimator',
  'Quantize',
  'Scaling',
  'Staircase',
  'attach',
  'clip',
  'identity',
  'mean_abs',
  'sign',
  'window',
]
