"""Several devices: the same numbers, to the bit where that is promised.

One process with eight virtual devices computes everything (`device_checks`).
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.study

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  out = tmp_path_factory.mktemp('devices') / 'found.npz'
  flags = os.environ.get('XLA_FLAGS', '')
  flags += ' --xla_force_host_platform_device_count=8'
  done = subprocess.run(
    [sys.executable, ROOT / 'tests' / 'device_checks.py', out],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return dict(np.load(out))


def same(a, b):
  return (
    a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
  )


class TestDevices:
  """21 lanes in blocks of 4, which no number of devices divides."""

  @pytest.mark.parametrize('variable', ['loss', 'flips'])
  def test_one_two_and_four_devices_are_bitwise_equal(self, found, variable):
    one = found[f'sweep.1.{variable}']
    assert one.shape[:3] == (2, 7, 3)
    assert same(one, found[f'sweep.2.{variable}'])
    assert same(one[1:], found[f'sweep.4.{variable}'])

  def test_eight_devices(self, found):
    one, eight = found['sweep.1.loss'], found['sweep.8.loss']
    np.testing.assert_allclose(eight, one[1:], rtol=1e-6)

  def test_programs_are_those_of_one_device(self, found):
    assert found['programs'] == 1

  def test_diverged_lanes_stay_alone(self, found):
    for name in ('1', '2', '4', '8'):
      bad = ~np.isfinite(found[f'sweep.{name}.loss']).all(-1)
      assert bad[..., 2].all() and not bad[..., :2].any()

  def test_a_batch_that_is_split(self, found):
    one, split = found['sweep.1.loss'][1:], found['batch.2.loss']
    assert not same(one, split)  # The sums over examples are.
    np.testing.assert_allclose(split[..., :2, :], one[..., :2, :], rtol=1e-4)

  def test_grids(self, found):
    for name in ('curve', 'key'):
      plain = found[f'grid.plain.jit.{name}']
      assert plain.shape[:2] == (3, 4)
      assert same(found[f'grid.mesh.jit.{name}'], plain)
      assert same(found[f'grid.mesh.eager.{name}'], plain)

  def test_trainings(self, found):
    """Seeds over lanes, every batch in halves: the same to rounding."""
    one = {
      name.removeprefix('fit.one.'): value
      for name, value in found.items()
      if name.startswith('fit.one.')
    }
    assert any('Block_0' in name for name in one) and 'odd_loss' in one
    for name, value in one.items():
      np.testing.assert_allclose(
        found[f'fit.four.{name}'], value, rtol=1e-4, atol=1e-5, err_msg=name
      )

  def test_trainings_split_batches(self, found):
    assert found['fit.spread'] == 4 and found['fit.all_reduces'] > 0
    assert found['fit.rows_2'] > 0 and found['fit.rows_4'] == 0

  @pytest.mark.parametrize('name', ['gains', 'losses'])
  def test_scans_of_a_layer(self, found, name):
    plain = found[f'{name}.plain']
    assert np.unique(plain).size >= 3
    np.testing.assert_allclose(found[f'{name}.mesh'], plain, atol=1e-6)

  def test_populations(self, found):
    """Three parents on four devices."""
    plain = found['evolve.plain.lowest']
    assert np.unique(plain).size > 1
    np.testing.assert_allclose(found['evolve.mesh.lowest'], plain, atol=1e-6)
    np.testing.assert_array_equal(
      found['evolve.mesh.masks'], found['evolve.plain.masks']
    )

  @pytest.mark.parametrize('path', ['pooled', 'masks', 'tail'])
  @pytest.mark.parametrize('way', ['auto', 'images', 'places'])
  def test_gains_of_convolutions(self, found, path, way):
    for name in ('gains', 'squares', 'loss'):
      plain = found[f'conv.{path}.plain.{name}']
      assert name == 'loss' or np.unique(plain.round(5)).size > 50
      got = found[f'conv.{path}.{way}.{name}']
      if name == 'loss' and way == 'places':  # That of each device.
        assert got.shape == (8,)
        plain = np.broadcast_to(plain, 8)
      assert got.shape == plain.shape
      np.testing.assert_allclose(got, plain, rtol=1e-5, atol=1e-6)

  def test_reports(self, found):
    """Twelve steps; the first device speaks for all."""
    shares = np.floor(100 * np.arange(1, 13) / 12) / 100
    for name in ('mesh', 'split'):
      np.testing.assert_allclose(found[f'report.{name}'], shares)
    np.testing.assert_allclose(found['report.raised'], shares[:1])


def test_sharded_parameters_and_inputs(found):
  """Their checks are assertions of the process itself, which has ended well."""
  assert found
