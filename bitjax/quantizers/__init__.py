"""Quantizers: what the forward pass does, and what the backward pass pretends.

A *staircase* is the function that the forward pass computes; its derivative is
zero wherever it exists. An *estimator* says what the backward pass puts in the
place of that derivative. `attach` joins one of each to a quantizer. All three
are callable pytrees: their hyperparameters are leaves, so a sweep may vmap over
them and a schedule may anneal them.
"""

from bitjax.quantizers._annealed import error_decay
from bitjax.quantizers._annealed import rbnn
from bitjax.quantizers._annealed import reste
from bitjax.quantizers._annealed import shrinking_window
from bitjax.quantizers._attach import Annealed
from bitjax.quantizers._attach import Estimator
from bitjax.quantizers._attach import Quantizer
from bitjax.quantizers._attach import Staircase
from bitjax.quantizers._attach import attach
from bitjax.quantizers._estimators import clip
from bitjax.quantizers._estimators import clip_quantile
from bitjax.quantizers._estimators import identity
from bitjax.quantizers._estimators import window
from bitjax.quantizers._gradient_scaling import ewgs
from bitjax.quantizers._gradient_scaling import ewgs_delta
from bitjax.quantizers._relaxed import DISTANCES
from bitjax.quantizers._relaxed import SCHEDULES
from bitjax.quantizers._relaxed import parq
from bitjax.quantizers._relaxed import progressive_hardtanh
from bitjax.quantizers._relaxed import proximal
from bitjax.quantizers._scaling import COUPLINGS
from bitjax.quantizers._scaling import Scaling
from bitjax.quantizers._scaling import mean_abs
from bitjax.quantizers._shaped import dspike
from bitjax.quantizers._shaped import magnitude_aware
from bitjax.quantizers._shaped import polynomial
from bitjax.quantizers._shaped import swish_sign
from bitjax.quantizers._soft import SOFT_STEPS
from bitjax.quantizers._soft import dsq
from bitjax.quantizers._staircases import sign
from bitjax.quantizers._stochastic import stochastic_round
from bitjax.quantizers._stochastic import stochastic_sign

__all__ = [
  'COUPLINGS',
  'DISTANCES',
  'SCHEDULES',
  'SOFT_STEPS',
  'Annealed',
  'Estimator',
  'Quantizer',
  'Scaling',
  'Staircase',
  'attach',
  'clip',
  'clip_quantile',
  'dspike',
  'dsq',
  'error_decay',
  'ewgs',
  'ewgs_delta',
  'identity',
  'magnitude_aware',
  'mean_abs',
  'parq',
  'polynomial',
  'progressive_hardtanh',
  'proximal',
  'rbnn',
  'reste',
  'shrinking_window',
  'sign',
  'stochastic_round',
  'stochastic_sign',
  'swish_sign',
  'window',
]
