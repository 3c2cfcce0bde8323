"""Exact scans: questions about one layer, answered without approximation.

A `LayerView` is a network as one of its layers sees it. Each question about the
layer is one function of the view, which chooses the fastest exact path from
static facts, can be told which to use, and says which it used.
"""

from bitjax.scans._central import central_difference
from bitjax.scans._certificates import Certificate
from bitjax.scans._certificates import flip_certificate
from bitjax.scans._certificates import merge_gains
from bitjax.scans._certificates import stream_gains
from bitjax.scans._convolution import Convolution
from bitjax.scans._convolution import Window
from bitjax.scans._coordinate import CoordinateDescent
from bitjax.scans._coordinate import coordinate_discrete_gradient
from bitjax.scans._discrete import DiscretePath
from bitjax.scans._discrete import DiscreteStep
from bitjax.scans._discrete import discrete_gradient
from bitjax.scans._discrete import multi_step_discrete_gradient
from bitjax.scans._discrete_prefixes import PrefixScan
from bitjax.scans._discrete_prefixes import prefix_scan
from bitjax.scans._exhaustive import Optimum
from bitjax.scans._exhaustive import exhaustive
from bitjax.scans._flip_descent import FlipDescent
from bitjax.scans._flip_descent import flip_descent
from bitjax.scans._flip_pairs import PairGains
from bitjax.scans._flip_pairs import pair_gains
from bitjax.scans._flip_sets import SetGains
from bitjax.scans._flip_sets import set_gains
from bitjax.scans._flip_walk import FlipWalk
from bitjax.scans._flip_walk import flip_walk
from bitjax.scans._flips import FlipGains
from bitjax.scans._flips import brute_force_gains
from bitjax.scans._flips import flip_gains
from bitjax.scans._flips_averaged import AveragedFactorial
from bitjax.scans._flips_averaged import averaged_factorial
from bitjax.scans._flips_factorial import FlipFactorial
from bitjax.scans._flips_factorial import flip_factorial
from bitjax.scans._flips_moves import Moves
from bitjax.scans._flips_moves import Neighbours
from bitjax.scans._flips_moves import moves
from bitjax.scans._line import LineScan
from bitjax.scans._line import LineStart
from bitjax.scans._line import line_scan
from bitjax.scans._line import line_start
from bitjax.scans._line_profile import LineProfile
from bitjax.scans._line_profile import line_profile
from bitjax.scans._network import Network
from bitjax.scans._network import network_view
from bitjax.scans._plan import Plan
from bitjax.scans._plan import PlannedScan
from bitjax.scans._plan import plan
from bitjax.scans._sample import Estimate
from bitjax.scans._sample import Sample
from bitjax.scans._sample import SampledAgreement
from bitjax.scans._sample import draw_sample
from bitjax.scans._smoothed import SmoothedGains
from bitjax.scans._smoothed import smoothed_gains
from bitjax.scans._stages import Activation
from bitjax.scans._stages import Add
from bitjax.scans._stages import Affine
from bitjax.scans._stages import BatchNorm
from bitjax.scans._stages import Conv
from bitjax.scans._stages import Dense
from bitjax.scans._stages import Examplewise
from bitjax.scans._stages import Mean
from bitjax.scans._stages import Opaque
from bitjax.scans._stages import Pointwise
from bitjax.scans._stages import Residual
from bitjax.scans._stages import Stage
from bitjax.scans._view import LayerView

__all__ = [
  'Activation',
  'Add',
  'Affine',
  'AveragedFactorial',
  'BatchNorm',
  'Certificate',
  'Conv',
  'Convolution',
  'CoordinateDescent',
  'Dense',
  'DiscretePath',
  'DiscreteStep',
  'Estimate',
  'Examplewise',
  'FlipDescent',
  'FlipFactorial',
  'FlipGains',
  'FlipWalk',
  'LayerView',
  'LineProfile',
  'LineScan',
  'LineStart',
  'Mean',
  'Moves',
  'Neighbours',
  'Network',
  'Opaque',
  'Optimum',
  'PairGains',
  'Plan',
  'PlannedScan',
  'Pointwise',
  'PrefixScan',
  'Residual',
  'Sample',
  'SampledAgreement',
  'SetGains',
  'SmoothedGains',
  'Stage',
  'Window',
  'averaged_factorial',
  'brute_force_gains',
  'central_difference',
  'coordinate_discrete_gradient',
  'discrete_gradient',
  'draw_sample',
  'exhaustive',
  'flip_certificate',
  'flip_descent',
  'flip_factorial',
  'flip_gains',
  'flip_walk',
  'line_profile',
  'line_scan',
  'line_start',
  'merge_gains',
  'moves',
  'multi_step_discrete_gradient',
  'network_view',
  'pair_gains',
  'plan',
  'prefix_scan',
  'set_gains',
  'smoothed_gains',
  'stream_gains',
]
