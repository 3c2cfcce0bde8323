"""Bands and colours that figures are made of."""

import numpy as np
import pytest

from bitjax import evidence
from bitjax.evidence import plots


def test_bands():
  from matplotlib import figure

  rng = np.random.default_rng(0)
  with plots.style():
    ax = figure.Figure().subplots()
    samples = rng.normal(size=(4, 9))
    drawn = plots.band(
      ax, [1, 2, 3, 4], samples, color='red', linestyle='--', label='a'
    )
    assert drawn == [evidence.interval(row) for row in samples]
    # A single cluster has no interval: a line without a band.
    drawn[1] = evidence.interval([1.0])
    plots.band(ax, [1, 2, 3, 4], drawn, color='blue')
    np.testing.assert_array_equal(
      ax.lines[1].get_ydata(), [found.mean for found in drawn]
    )
    assert ax.figure.get_layout_engine() is not None
    with pytest.raises(ValueError, match='3 points'):
      plots.band(ax, [1, 2, 3], samples, color='red')


def test_colours_of_the_palette_are_apart():
  from matplotlib import colors

  names = [n for n in plots.__all__ if str(getattr(plots, n)).startswith('#')]
  assert {'BLUE', 'RED', 'TEAL', 'ORANGE', 'GREY'} <= set(names)
  found = np.array([colors.to_rgb(getattr(plots, name)) for name in names])
  distance = np.abs(found[:, None] - found[None]).sum(-1)
  assert distance[~np.eye(len(names), dtype=bool)].min() > 0.3
