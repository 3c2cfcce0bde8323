"""The gallery shows everything that the library exports."""

import numpy as np
import pytest

from bitjax import quantizers
from bitjax.studies import estimator_gallery as gallery


def test_every_staircase_and_estimator_has_a_panel():
  titles = {title.split('\n')[0] for _, title, _ in gallery.panels()}
  kinds = ('Staircase', 'Grid', 'Annealed', 'Estimator')
  for name in quantizers.__all__:
    made = getattr(quantizers, name)
    annotation = getattr(made, '__annotations__', {}).get('return', '')
    if annotation.split('.')[-1] in kinds and name != 'named':
      assert name in titles


@pytest.mark.parametrize(('half_width', 'mass'), [(1.0, 2.0), (0.5, 1.0)])
def test_the_mass_of_a_window_is_its_width(half_width, mass):
  x = np.linspace(-3, 3, 2401, dtype=np.float32)
  window = quantizers.window(half_width)
  drawn = gallery.curve(True, 'window', window, x, 1.0)
  np.testing.assert_allclose(np.trapezoid(drawn, x), mass, atol=0.01)
