"""Quantizers: what the forward pass does, and what the backward pass pretends.

A *staircase* is the function that the forward pass computes; its derivative is
zero wherever it exists. An *estimator* says what the backward pass puts in the
place of that derivative. `attach` joins one of each to a quantizer. All three
are callable pytrees: their hyperparameters are leaves, so a sweep may vmap over
them and a schedule may anneal them. A quantizer with parameters that are learned
is a `Quantizer`, an ``init`` and an ``apply``.
"""

from bitjax.quantizers._attach import Estimator
from bitjax.quantizers._attach import Quantize
from bitjax.quantizers._attach import Staircase
from bitjax.quantizers._attach import at_progress
from bitjax.quantizers._attach import attach
from bitjax.quantizers._attach import is_random
from bitjax.quantizers._attach import staircase
from bitjax.quantizers._compositions import DOREFA_VARIANTS
from bitjax.quantizers._compositions import dorefa_activations
from bitjax.quantizers._compositions import dorefa_weights
from bitjax.quantizers._compositions import scaled
from bitjax.quantizers._compositions import standardized
from bitjax.quantizers._estimators import clip
from bitjax.quantizers._estimators import identity
from bitjax.quantizers._estimators import window
from bitjax.quantizers._hysteresis import hysteretic_sign
from bitjax.quantizers._hysteresis import hysteretic_uniform
from bitjax.quantizers._hysteresis import initial_state
from bitjax.quantizers._learned import Quantizer
from bitjax.quantizers._learned import bind
from bitjax.quantizers._learned_dsq import learned_dsq
from bitjax.quantizers._lsq import lsq
from bitjax.quantizers._pact import pact
from bitjax.quantizers._react import rprelu
from bitjax.quantizers._react import rsign
from bitjax.quantizers._scaling import COUPLINGS
from bitjax.quantizers._scaling import Scaling
from bitjax.quantizers._scaling import mean_abs
from bitjax.quantizers._scaling import power_of_two
from bitjax.quantizers._staircases import heaviside
from bitjax.quantizers._staircases import shifted_sign
from bitjax.quantizers._staircases import sign
from bitjax.quantizers._staircases import ternary
from bitjax.quantizers._ttq import ttq
from bitjax.quantizers._uniform import uniform

__all__ = [
  'COUPLINGS',
  'DOREFA_VARIANTS',
  'Estimator',
  'Quantize',
  'Quantizer',
  'Scaling',
  'Staircase',
  'at_progress',
  'attach',
  'bind',
  'clip',
  'dorefa_activations',
  'dorefa_weights',
  'heaviside',
  'hysteretic_sign',
  'hysteretic_uniform',
  'identity',
  'initial_state',
  'is_random',
  'learned_dsq',
  'lsq',
  'mean_abs',
  'pact',
  'power_of_two',
  'rprelu',
  'rsign',
  'scaled',
  'shifted_sign',
  'sign',
  'staircase',
  'standardized',
  'ternary',
  'ttq',
  'uniform',
  'window',
]
