"""Rates of trainings whose durations are known."""

import subprocess
import types

from bitjax.studies import network_benchmark


def test_the_rate_is_that_of_the_median_chunk(monkeypatch):
  # The first chunk compiles; one of the others is disturbed.
  clock = iter([0.0, 100.0, 102.0, 104.0, 124.0, 126.0])
  seen = {}

  def fit(phases, feeds, seeds, *, chunk, mesh, report):
    report.begin(60, 0)
    seen.update(chunk=chunk, mesh=mesh, batch=feeds[0].batch_size)
    seen['widths'] = phases[0].task.model.widths
    for _ in range(6):
      report.advance(10, '')

  monkeypatch.setattr(network_benchmark.training, 'fit', fit)
  monkeypatch.setattr(
    network_benchmark,
    'time',
    types.SimpleNamespace(perf_counter=clock.__next__),
  )
  rate = network_benchmark.training_rate(None, 4, (1, 1))
  assert rate == 4 * seen['chunk'] / 2.0
  assert seen['mesh'] is None and seen['batch'] == 4
  assert seen['widths'] == (16, 32)


def test_cores_are_compared_with_one_device(monkeypatch):
  rates = {'batch:3': '300.0\n', 'batch:1': '150.0\n'}

  def run(command, **options):
    assert command[2:] == [
      'bitjax.studies.network_benchmark',
      command[3],
      '12',
      '3,3',
    ]
    return subprocess.CompletedProcess(command, 0, rates[command[3]])

  monkeypatch.setattr(network_benchmark.subprocess, 'run', run)
  monkeypatch.setattr(network_benchmark.os, 'cpu_count', lambda: 3)
  found = network_benchmark.over_cores(12, (3, 3))
  assert found == {'ResNet training, over the cores': 2.0}
