"""Exact scans: questions about one layer, answered without approximation.

A `LayerView` is a network as one of its layers sees it. Each question about the
layer is one function of the view, which chooses the fastest exact path from
static facts, can be told which to use, and says which it used.
"""

from bitjax.scans._line import LineScan
from bitjax.scans._line import line_scan
from bitjax.scans._view import Activation
from bitjax.scans._view import Affine
from bitjax.scans._view import BatchNorm
from bitjax.scans._view import Dense
from bitjax.scans._view import LayerView
from bitjax.scans._view import Opaque
from bitjax.scans._view import Stage

__all__ = [
  'Activation',
  'Affine',
  'BatchNorm',
  'Dense',
  'LayerView',
  'LineScan',
  'Opaque',
  'Stage',
  'line_scan',
]
