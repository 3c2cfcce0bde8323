# amaranth: UnusedElaboratable=no
"""The unit in Amaranth against integers of NumPy, and its cycles against the model's."""

import numpy as np
import pytest

pytest.importorskip('amaranth')

from bitjax import nn
from hardware import accelerator
from hardware import luts
from hardware import matrix_vector

SHAPES = [  # Inputs, outputs, pe, simd, bits of an input, thresholds.
  (6, 4, 2, 3, 1, True),
  (6, 4, 4, 6, 1, True),
  (5, 3, 1, 1, 8, True),
  (12, 6, 3, 4, 8, False),
  (4, 2, 1, 4, 1, False),
  (7, 1, 1, 7, 1, False),
  (1, 1, 1, 1, 1, True),
]


def draw(inputs, outputs, pe, simd, bits, thresholds, seed=0):
  """Returns a unit, vectors that stream into it, and what it should put out."""
  rng = np.random.default_rng(seed)
  weights = rng.choice([-1, 1], (inputs, outputs))
  vectors = rng.integers(0, 2**bits, (5, inputs))
  sums = (vectors if bits > 1 else 2 * vectors - 1) @ weights
  low = flip = None
  wanted = sums
  if thresholds:
    low = sums[0] + rng.integers(0, 2, outputs)  # Ties among them.
    flip = rng.random(outputs) < 0.5
    wanted = (sums >= low) != flip
  unit = matrix_vector.MatrixVector(
    weights, low, flip, pe=pe, simd=simd, input_bits=bits
  )
  return unit, vectors, wanted


@pytest.mark.parametrize('shape', SHAPES)
def test_outputs_and_cycles(shape):
  unit, vectors, wanted = draw(*shape)
  found = accelerator.simulate(unit, vectors)
  np.testing.assert_array_equal(found.outputs, wanted)
  inputs, outputs, pe, simd, bits, thresholds = shape
  model = nn.MatrixVectorUnit(
    inputs=inputs, outputs=outputs, pe=pe, simd=simd, input_bits=bits,
    output_bits=int(thresholds),
  )  # fmt: skip
  # A vector's last output is registered one cycle after its last input was used.
  wanted = model.cycles * np.arange(1, len(vectors) + 1)
  np.testing.assert_array_equal(found.cycles, wanted)


@pytest.mark.parametrize('shape', SHAPES[:4])
def test_a_unit_waits_until_its_outputs_are_taken(shape):
  unit, vectors, wanted = draw(*shape, seed=1)
  taken = [False, False, True, False, True, True, False]
  found = accelerator.simulate(unit, vectors, taken=taken)
  np.testing.assert_array_equal(found.outputs, wanted)


def test_thresholds_that_no_sum_or_every_sum_reaches():
  weights = np.ones((3, 4))
  low = np.array([-(2**31), 2**31 - 1, -3, 4])
  unit = matrix_vector.MatrixVector(weights, low, np.array([0, 0, 0, 1], bool))
  vectors = np.array([[0, 0, 0], [1, 1, 1]])
  found = accelerator.simulate(unit, vectors)
  np.testing.assert_array_equal(found.outputs, [[1, 0, 1, 1]] * 2)


@pytest.mark.parametrize(
  ('weights', 'options', 'words'),
  [
    (np.zeros((4, 4)), {}, 'weights must be a matrix of ±1'),
    (np.ones(4), {}, 'weights must be a matrix of ±1'),
    (np.ones((4, 6)), {'pe': 4}, 'pe must divide 6; got 4'),
    (np.ones((4, 6)), {'simd': 0}, 'simd must divide 4; got 0'),
  ],
)
def test_bad_units(weights, options, words):
  with pytest.raises(ValueError, match=words):
    matrix_vector.MatrixVector(weights, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
  'shape', [(64, 32, 4, 8, 1, True), (16, 4, 2, 8, 8, False)]
)
def test_look_up_tables(shape):
  if luts.shutil.which(luts.YOSYS) is None:
    pytest.skip('Yosys is not installed')
  unit, *_ = draw(*shape)
  cells = luts.synthesise(unit)
  # At least one table for each product of two binary values or each bit of a byte.
  assert shape[2] * shape[3] * shape[4] / 6 < cells['luts'] < 5_000


def test_no_yosys(monkeypatch):
  monkeypatch.setattr(luts.shutil, 'which', lambda name: None)
  unit, *_ = draw(*SHAPES[0])
  with pytest.raises(RuntimeError, match='apt install yosys'):
    luts.synthesise(unit)
