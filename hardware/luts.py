"""Look-up tables of a unit: as Yosys maps it to an FPGA, beside FINN's formula."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import tempfile

from amaranth.back import rtlil

from hardware.matrix_vector import MatrixVector

__all__ = ['YOSYS', 'synthesise']

YOSYS = 'yosys'  # The command; version 0.23, of Debian 12, was tried.

# Seven series of Xilinx, with 6-input look-up tables, as FINN's formula has them.
_SCRIPT = """
read_rtlil {source}
synth_xilinx -family xc7 -flatten -nodsp -nobram -noiopad -noclkbuf -top {top}
tee -o {report} stat -json
"""
# Look-up tables of a cell; memories in look-up tables take one for each port and bit.
_LUTS = {f'LUT{n}': 1 for n in range(1, 7)} | {
  'INV': 1,
  'RAM32M': 4,
  'RAM64M': 4,
  'RAM32X1D': 2,
  'RAM64X1D': 2,
  'RAM128X1D': 4,
  'SRL16E': 1,
  'SRLC32E': 1,
}


def synthesise(unit: MatrixVector) -> dict[str, int]:
  """Maps a unit to an FPGA of Xilinx' series 7, without block memory.

  Args:
    unit: the unit.

  Returns:
    How many cells of each kind it takes, and ``'luts'``, the look-up tables.

  Raises:
    RuntimeError: if Yosys is not installed or fails, with its last words; and if the
      circuit lacks registers of the unit, so that it is not the unit (as with a newer
      version that was tried).
  """
  if shutil.which(YOSYS) is None:
    raise RuntimeError('Yosys is not installed; on Debian: apt install yosys.')
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    (path / 'unit.il').write_text(rtlil.convert(unit, name='unit'))
    (path / 'unit.ys').write_text(
      _SCRIPT.format(source='unit.il', top='unit', report='cells.json')
    )
    done = subprocess.run(
      [YOSYS, '-q', 'unit.ys'], cwd=path, capture_output=True, text=True
    )
    if done.returncode:
      raise RuntimeError(
        f'{YOSYS} failed: {(done.stderr or done.stdout)[-500:]}'
      )
    report = json.loads((path / 'cells.json').read_text())
  (cells,) = [
    module['num_cells_by_type'] for module in report['modules'].values()
  ]
  registers = sum(n for name, n in cells.items() if name.startswith('FD'))
  if registers != unit.registers:
    raise RuntimeError(
      f'the unit has {unit.registers} registers; what {YOSYS} made has {registers}.'
    )
  luts = sum(_LUTS.get(name, 0) * count for name, count in cells.items())
  return {**cells, 'luts': luts}
