"""Packed networks: trained networks as integers, in memory, on disk and in arithmetic.

`pack_network` makes a `Network` of a trained model: packed words and small arrays, and a
pure function of images, equal to the model's own operations to the bit. `save` and
`load` keep it in a file of one bit a binary weight. `export_program` and `export_onnx`
write it for other programs.
"""

from bitjax.deploy._export import export_onnx
from bitjax.deploy._export import export_program
from bitjax.deploy._export import load_program
from bitjax.deploy._file import load
from bitjax.deploy._file import save
from bitjax.deploy._network import Network
from bitjax.deploy._network import pack_network

__all__ = [
  'Network',
  'export_onnx',
  'export_program',
  'load',
  'load_program',
  'pack_network',
  'save',
]
