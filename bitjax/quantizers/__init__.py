"""Quantizers: what the forward pass does, and what the backward pass pretends.

A *staircase* is the function that the forward pass computes; its derivative is
zero wherever it exists. An *estimator* says what the backward pass puts in
place of that derivative. `attach` joins a staircase and an estimator into a
quantizer. All three are callable pytrees: their hyperparameters are leaves, so a
sweep may vmap over them and a schedule may anneal them. A quantizer with learned
parameters is a `Quantizer`: a pair of functions, ``init`` and ``apply``.
"""

from bitjax.quantizers._annealed import error_decay
from bitjax.quantizers._annealed import rbnn
from bitjax.quantizers._annealed import reste
from bitjax.quantizers._annealed import shrinking_window
from bitjax.quantizers._attach import Annealed
from bitjax.quantizers._attach import Estimator
from bitjax.quantizers._attach import Quantize
from bitjax.quantizers._attach import Staircase
from bitjax.quantizers._attach import attach
from bitjax.quantizers._attach import observed
from bitjax.quantizers._attach import staircase
from bitjax.quantizers._calibrated import calibrated
from bitjax.quantizers._compositions import DOREFA_VARIANTS
from bitjax.quantizers._compositions import dorefa_activations
from bitjax.quantizers._compositions import dorefa_weights
from bitjax.quantizers._compositions import scaled
from bitjax.quantizers._compositions import standardized
from bitjax.quantizers._estimators import clip
from bitjax.quantizers._estimators import clip_quantile
from bitjax.quantizers._estimators import identity
from bitjax.quantizers._estimators import window
from bitjax.quantizers._gradient_scaling import ewgs
from bitjax.quantizers._gradient_scaling import ewgs_delta
from bitjax.quantizers._hysteresis import hysteretic_sign
from bitjax.quantizers._hysteresis import hysteretic_uniform
from bitjax.quantizers._hysteresis import initial_state
from bitjax.quantizers._keywords import at_progress
from bitjax.quantizers._keywords import is_random
from bitjax.quantizers._keywords import is_stateful
from bitjax.quantizers._learned import Quantizer
from bitjax.quantizers._learned import bind
from bitjax.quantizers._learned_dsq import DSQ_LEVELS
from bitjax.quantizers._learned_dsq import learned_dsq
from bitjax.quantizers._lsq import lsq
from bitjax.quantizers._named import named
from bitjax.quantizers._pact import pact
from bitjax.quantizers._react import rprelu
from bitjax.quantizers._react import rsign
from bitjax.quantizers._relative import RELATIVE_KEEPS
from bitjax.quantizers._relative import initial_spread
from bitjax.quantizers._relative import next_spread
from bitjax.quantizers._relative import relative
from bitjax.quantizers._relative import spread_momentum
from bitjax.quantizers._relative import spread_of
from bitjax.quantizers._relative import with_spread
from bitjax.quantizers._relaxed import DISTANCES
from bitjax.quantizers._relaxed import SCHEDULES
from bitjax.quantizers._relaxed import parq
from bitjax.quantizers._relaxed import progressive_hardtanh
from bitjax.quantizers._relaxed import proximal
from bitjax.quantizers._rescaled import freeze_scale
from bitjax.quantizers._residual import residual_sign
from bitjax.quantizers._scaling import COUPLINGS
from bitjax.quantizers._scaling import Scaling
from bitjax.quantizers._scaling import max_abs
from bitjax.quantizers._scaling import mean_abs
from bitjax.quantizers._scaling import power_of_two
from bitjax.quantizers._shaped import dspike
from bitjax.quantizers._shaped import gaussian
from bitjax.quantizers._shaped import magnitude_aware
from bitjax.quantizers._shaped import polynomial
from bitjax.quantizers._shaped import swish_sign
from bitjax.quantizers._soft import SOFT_STEPS
from bitjax.quantizers._soft import dsq
from bitjax.quantizers._staircases import heaviside
from bitjax.quantizers._staircases import is_sign
from bitjax.quantizers._staircases import shifted_sign
from bitjax.quantizers._staircases import sign
from bitjax.quantizers._staircases import ternary
from bitjax.quantizers._stochastic import stochastic_round
from bitjax.quantizers._stochastic import stochastic_sign
from bitjax.quantizers._ttq import ttq
from bitjax.quantizers._uniform import uniform

__all__ = [
  'COUPLINGS',
  'DISTANCES',
  'DOREFA_VARIANTS',
  'DSQ_LEVELS',
  'RELATIVE_KEEPS',
  'SCHEDULES',
  'SOFT_STEPS',
  'Annealed',
  'Estimator',
  'Quantize',
  'Quantizer',
  'Scaling',
  'Staircase',
  'at_progress',
  'attach',
  'bind',
  'calibrated',
  'clip',
  'clip_quantile',
  'dorefa_activations',
  'dorefa_weights',
  'dspike',
  'dsq',
  'error_decay',
  'ewgs',
  'ewgs_delta',
  'freeze_scale',
  'gaussian',
  'heaviside',
  'hysteretic_sign',
  'hysteretic_uniform',
  'identity',
  'initial_spread',
  'initial_state',
  'is_random',
  'is_sign',
  'is_stateful',
  'learned_dsq',
  'lsq',
  'magnitude_aware',
  'max_abs',
  'mean_abs',
  'named',
  'next_spread',
  'observed',
  'pact',
  'parq',
  'polynomial',
  'power_of_two',
  'progressive_hardtanh',
  'proximal',
  'rbnn',
  'relative',
  'residual_sign',
  'reste',
  'rprelu',
  'rsign',
  'scaled',
  'shifted_sign',
  'shrinking_window',
  'sign',
  'spread_momentum',
  'spread_of',
  'staircase',
  'standardized',
  'stochastic_round',
  'stochastic_sign',
  'swish_sign',
  'ternary',
  'ttq',
  'uniform',
  'window',
  'with_spread',
]
