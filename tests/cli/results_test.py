"""Files of results: every number comes back, and CSV is the same every time."""

import csv

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


def test_damaged_results_are_an_os_error(tmp_path):
  (tmp_path / 'results.nc').write_bytes(b'nonsense')
  with pytest.raises(OSError):
    cli.results.load(tmp_path)
