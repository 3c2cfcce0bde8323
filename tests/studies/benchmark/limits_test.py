"""Targets by kind of device, the peaks they refer to, and ways to run networks."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import cli
from bitjax import nn
from bitjax import scans
from bitjax import studies
from bitjax.studies.benchmark import findings
from bitjax.studies.benchmark import limits
from bitjax.studies.benchmark import networks
from bitjax.studies.benchmark import peaks
from bitjax.studies.benchmark import race
from bitjax.studies.benchmark import together

TINY = [
  '--batch_size=16', '--hidden=6,5', '--gemm=16', '--repeats=1', '--rates=20',
  '--timed_rates=3', '--weights=4', '--images=1', '--stages=1',
]  # fmt: skip


def launch(folder, *argv):
  study = studies.load('benchmark')
  command = [*argv, *TINY, f'--out={folder}', '--nocompilation_cache']
  assert cli.launch(study, command) == 0
  verdicts = json.loads((folder / 'verdicts.json').read_text())
  return {v['finding']: v for v in verdicts}


def test_a_kind_of_device_has_targets_of_its_own():
  cpu, gpu, tpu = (limits.of(kind) for kind in ('cpu', 'gpu', 'tpu'))
  assert set(tpu) < set(gpu) < set(cpu) == set(limits.CASES)
  assert set(cpu) - set(gpu) == {'import', "ResNet step, over XLA's own"}
  assert cpu['flip gains, binary'].limit < gpu['flip gains, binary'].limit
  assert [case for case in gpu if gpu[case].unit != cpu[case].unit] == []


def test_results_are_judged_by_the_device_that_they_come_from():
  targets = pytest.importorskip('bitjax.evidence.targets')
  measured = {'flip gains, binary': 30.0}
  verdicts = {}
  for kind in ('cpu', 'gpu'):
    results = targets.table(limits.of(kind), measured)
    found = findings.judge(results.assign_attrs(device_kind=kind))
    verdicts[kind] = {v.finding: v.verdict for v in found}
  assert verdicts['cpu']['flip gains, binary'] == 'contradicted'
  assert verdicts['gpu']['flip gains, binary'] == 'supported'
  assert 'import' in verdicts['cpu'] and 'import' not in verdicts['gpu']


def test_peaks_count_operations_and_traffic(monkeypatch):
  monkeypatch.setattr(
    race, 'race', lambda contestants, turns: dict.fromkeys(contestants, 2e-6)
  )
  found = peaks.peaks(10, 1000, 1)
  # Eight products of 2000 operations, or 1000 numbers of four bytes, in two us.
  assert found == pytest.approx(
    {
      'float32 highest (GFLOP/s)': 8.0,
      'copy (GB/s)': 32.0,
      'triad (GB/s)': 48.0,
    }
  )
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  names = set(peaks.peaks(10, 1000, 1)) - set(found)
  assert names == {'float32 default (GFLOP/s)', 'bfloat16 (GFLOP/s)'}


def test_what_is_timed_computes_what_it_says():
  np.testing.assert_array_equal(peaks.product(3)(), np.full((3, 3), 3.0))
  a = jnp.arange(4.0)
  copied = jax.jit(jnp.copy)(a)
  assert copied.unsafe_buffer_pointer() != a.unsafe_buffer_pointer()
  np.testing.assert_array_equal(peaks._triad(a, a, 3.0), 4 * np.arange(4.0))


def test_the_way_of_the_device_is_compared_with_the_fastest():
  times = {'vmap': 3.0, 'map': 1.5, 'stream': 2.0, 'default': 3.0}
  assert together.compared({'seeds': times}) == {'seeds together': 2.0}


def test_flips_of_a_convolution_are_not_grouped():
  """Only one kernel differs, so vectorised flips are wider convolutions."""
  model = nn.ResNet(stages=(1,), widths=(2,), kernel_quantizer=networks.sign())
  images = jnp.ones((2, 4, 4, 3))
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))

  def gains(variables):
    labels = jnp.zeros(2, int)
    view = nn.layer_view(
      model, variables, images, labels, 'Block_0/Conv_0', train=False
    )
    return scans.flip_gains(
      view, coordinates=jnp.arange(6), path='brute_force', chunk=6
    ).gains

  program = jax.make_jaxpr(gains)(variables)
  text = str(program)
  assert text.count('conv_general_dilated') >= 2
  assert text.count('feature_group_count=1\n') == text.count(
    'feature_group_count='
  )
  assert 'batch_group_count=1\n' in text


@pytest.mark.study
def test_parts_alone(tmp_path):
  found = launch(tmp_path / 'run', '--parts=updates')
  known = {name for name, v in found.items() if v['verdict'] != 'inconclusive'}
  assert known == {'multi-step, full precision', 'multi-step, binary'}
  details = found['multi-step, full precision']['details']
  assert min(details['copy (GB/s)'], details['triad (GB/s)']) > 0


@pytest.mark.study
@pytest.mark.slow
@pytest.mark.parametrize('argv', [('--preset=gpu',), ('--parts=seeds',)])
def test_presets_and_parts_run(tmp_path, argv):
  found = launch(tmp_path / 'run', *argv)
  known = {name for name, v in found.items() if v['verdict'] != 'inconclusive'}
  if argv == ('--preset=gpu',):
    assert 'ResNet step' in known and 'import' not in known
  else:
    assert known == {'seeds together', 'flips of a convolution together'}
    assert set(found['seeds together']['details']) == {
      'vmap', 'map', 'stream', 'default'
    }  # fmt: skip
