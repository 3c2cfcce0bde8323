"""Simulates a packed MLP as a chain of matrix-vector units, on the embedded MNIST digits.

  python -m hardware FILE [--images=10] [--cycles=784] [--luts]

FILE is a packed network of bytes of 28 x 28 pixels, all of whose layers are binary, as
`bitjax.deploy.save` and ``bitjax pack`` write it. Each unit takes at most ``--cycles`` for an
image. With ``--luts`` Yosys maps each unit to an FPGA.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import math
import sys

import numpy as np

from bitjax import data
from bitjax import deploy
from bitjax import types

__all__ = ['main']


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0 if the outputs are equal, 1 if not, 2 for bad input."""
  parser = argparse.ArgumentParser(
    prog='python -m hardware',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('file', help='a packed network')
  parser.add_argument('--images', type=int, default=10, help='how many (10)')
  parser.add_argument(
    '--cycles', type=int, default=784, help='at most, of an image (784)'
  )
  parser.add_argument(
    '--luts', action='store_true', help='map units to an FPGA'
  )
  options = parser.parse_args(argv)
  try:
    return _run(options)
  except (types.BadInput, OSError, RuntimeError) as error:
    print(f'python -m hardware: {types.one_line(error)}', file=sys.stderr)
    return 2


def _run(options):
  try:
    from hardware import accelerator
    from hardware import luts
  except ModuleNotFoundError as error:
    raise types.BadInput(f"{error}; pip install 'bitjax[hardware]'.") from None
  number = types.check_integer('images', options.images, 1)
  network = deploy.load(options.file)
  layers = accelerator.layers_of(network)
  folding = accelerator.fold(layers, options.cycles)
  images = data.load('mnist5k', split='test').images[:number]
  if math.prod(network.shape) != images[0].size:
    raise types.BadInput(
      f'{options.file} must be of images of 28 x 28 pixels; got '
      f'{" x ".join(map(str, network.shape))}.'
    )
  images = images.reshape(-1, *network.shape)
  wanted = accelerator.sums_of(network, images)
  chain = accelerator.Accelerator(layers, folding)
  found = accelerator.simulate(chain, images.reshape(len(images), -1))
  print(
    'unit      pe  simd  cycles  LUTs by the formula'
    + '  by Yosys' * options.luts
  )
  for number, (layer, (pe, simd)) in enumerate(
    zip(layers, folding, strict=True)
  ):
    unit = layer.unit(pe, simd)
    line = (
      f'{number:<8} {pe:>3}  {simd:>4}  {unit.cycles:>6,}  {unit.luts:>19,}'
    )
    if options.luts:
      line += f'  {luts.synthesise(chain.units[number])["luts"]:>8,}'
    print(line)
  same = np.array_equal(found.outputs, wanted)
  between = np.unique(np.diff(found.cycles))
  print(
    f'{len(images)} images: the sums are {"equal" if same else "NOT equal"} to the '
    f"packed network's; the first took {found.cycles[0] + 1:,} cycles, each further one "
    f'{", ".join(f"{n:,}" for n in between) or "–"}.'
  )
  return 0 if same else 1


if __name__ == '__main__':
  sys.exit(main())
