"""Files of results: every number comes back, and CSV is the same every time."""

import contextlib
import csv
import os
import subprocess

import numpy as np
import pytest
import xarray

from bitjax import cli
from bitjax import evidence


@pytest.fixture
def dataset():
  loss = np.array(
    [[0.1, np.nan, np.inf], [-np.inf, 1e-30, 3.0]], dtype=np.float32
  )
  return xarray.Dataset(
    {
      'loss': (('network', 'lr'), loss, {'diverged': 2, 'units': 'seconds'}),
      'wide': (('lr', 'step'), np.arange(6.0).reshape(3, 2) / 3),
      'flips': (('network',), np.array([2**40, 3])),
      'best': (('network',), np.array([True, False])),
      'total': ((), np.float64(np.pi)),
    },
    {'network': ['binary', 'full, "real"'], 'lr': [0.1, 0.2, 1e-5]},
    {'diverged': 2},
  )


def test_netcdf_round_trip(dataset, tmp_path):
  cli.results.save(dataset, tmp_path)
  loaded = cli.results.load(tmp_path)
  xarray.testing.assert_equal(loaded, dataset)
  assert loaded.attrs == {'diverged': 2}
  assert loaded.loss.attrs == {'diverged': 2, 'units': 'seconds'}
  for name in dataset:
    assert loaded[name].dtype == dataset[name].dtype
  cli.results.save(loaded, tmp_path)
  assert cli.results.load(tmp_path).identical(loaded)


def test_csv_round_trip(dataset, tmp_path):
  cli.results.save(dataset, tmp_path)
  content = (tmp_path / 'results.csv').read_bytes()
  with open(tmp_path / 'results.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert list(rows[0]) == ['variable', 'network', 'lr', 'step', 'value']
  assert len(rows) == sum(variable.size for variable in dataset.values())
  for row in rows:
    variable = dataset[row['variable']]
    indices = {}
    for dim in variable.dims:
      labels = dataset[dim].values if dim in dataset.coords else [0, 1]
      indices[dim] = [str(label) for label in labels].index(row[dim])
    assert all((row[dim] == '') == (dim not in indices) for dim in dataset.dims)
    expected = variable.isel(indices).values
    found = float(row['value'])
    if expected.dtype == np.float32:
      found = np.float32(found)
    np.testing.assert_array_equal(found, expected)
  assert b'loss,binary,0.1,,0.1\n' in content
  cli.results.save(dataset, tmp_path)
  assert (tmp_path / 'results.csv').read_bytes() == content


def test_long_csv_is_streamed(tmp_path):
  num = 200_000
  values = np.arange(num, dtype=np.float64) / 7
  dataset = xarray.Dataset({'a': (('x',), values)})
  cli.results.save(dataset, tmp_path)
  lines = (tmp_path / 'results.csv').read_text().splitlines()
  assert len(lines) == num + 1
  for row in (0, 65535, 65536, num - 1):
    assert lines[row + 1] == f'a,{row},{values[row]!s}'


def test_figures_embed_their_fonts(tmp_path):
  from matplotlib import figure

  with evidence.plots.style():
    drawn = figure.Figure()
    drawn.subplots().set_xlabel('learning rate')
    paths = cli.results.save_figure(drawn, tmp_path)
  assert [path.name for path in paths] == ['figure.png', 'figure.pdf']
  content = paths[1].read_bytes()
  assert b'/Type0' in content and b'/Type3' not in content
  again = cli.results.save_figure(drawn, tmp_path)
  assert again[1].read_bytes() == content


def test_checksums_are_those_of_sha256sum(dataset, tmp_path):
  cli.results.save(dataset, tmp_path)
  checked = ['sha256sum', '--check', '--strict', cli.results.CHECKSUMS]
  done = subprocess.run(checked, cwd=tmp_path, capture_output=True, text=True)
  assert done.stdout == 'results.nc: OK\nresults.csv: OK\n'


def test_every_damaged_byte_is_found(dataset, tmp_path):
  archive, table = cli.results.save(dataset, tmp_path)
  whole = archive.read_bytes()
  for position in range(0, len(whole), len(whole) // 200):
    flipped = bytearray(whole)
    flipped[position] ^= 1 << position % 8
    archive.write_bytes(flipped)
    with pytest.raises(cli.results.Damaged, match='checksum'):
      cli.results.load(tmp_path)
  for content in (b'', whole[:-1], whole[: len(whole) // 2], whole + b'x'):
    archive.write_bytes(content)
    with pytest.raises(cli.results.Damaged):
      cli.results.load(tmp_path)
  archive.write_bytes(whole)
  assert cli.results.load(tmp_path).identical(dataset)
  assert cli.results.sound(table)
  table.write_bytes(table.read_bytes().replace(b'0.1', b'0.2', 1))
  assert not cli.results.sound(table)


@pytest.mark.parametrize(
  'damage', [lambda text: b'', lambda text: text[:40], lambda text: b'\xff\n']
)
def test_damaged_checksums_fit_nothing(dataset, tmp_path, damage):
  cli.results.save(dataset, tmp_path)
  checksums = tmp_path / cli.results.CHECKSUMS
  checksums.write_bytes(damage(checksums.read_bytes()))
  with pytest.raises(cli.results.Damaged, match='checksum'):
    cli.results.load(tmp_path)
  checksums.unlink()  # As in runs that were made before there were checksums.
  assert cli.results.load(tmp_path).identical(dataset)
  assert not cli.results.has_checksum(tmp_path)


def test_results_never_lack_their_checksum(dataset, tmp_path, monkeypatch):
  """Whatever write is the last one: sound results, or none that pass for sound."""
  cli.results.save(dataset, tmp_path)
  before = cli.results.load(tmp_path)
  replace = os.replace
  for last in range(4):
    turns = iter(range(4))

    def stop(source, target, last=last, turns=turns):
      if next(turns) == last:
        raise KeyboardInterrupt
      replace(source, target)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
      patch.setattr(os, 'replace', stop)
      cli.results.save(dataset + 1, tmp_path)
    try:
      found = cli.results.load(tmp_path)
    except cli.results.Damaged:
      assert last == 2  # The checksums are new, the results are old.
    else:
      xarray.testing.assert_equal(found, before if last < 2 else dataset + 1)
    cli.results.save(dataset, tmp_path)


def test_damaged_results_are_an_os_error(tmp_path):
  (tmp_path / 'results.nc').write_bytes(b'nonsense')
  with pytest.raises(OSError):
    cli.results.load(tmp_path)
