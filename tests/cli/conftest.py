"""The sample study, in this process and in one of its own."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest

from bitjax import cli

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def sample():
  """The sample study as a module."""
  import importlib.util

  path = HERE / 'sample_study.py'
  spec = importlib.util.spec_from_file_location('sample_study', path)
  module = importlib.util.module_from_spec(spec)
  sys.modules['sample_study'] = module
  spec.loader.exec_module(module)
  yield module
  del sys.modules['sample_study']


@pytest.fixture
def launch(sample, tmp_path, monkeypatch):
  """Runs the sample study in an empty working directory."""
  monkeypatch.chdir(tmp_path)

  def blank(results):
    from matplotlib import figure

    return figure.Figure(figsize=(1, 1))

  def run(*argv, **replaced):
    replaced = {'plot': blank} | replaced  # Drawing takes most of the time.
    return cli.launch(dataclasses.replace(sample.STUDY, **replaced), argv)

  return run


@pytest.fixture
def start(tmp_path):
  """Starts the sample study as a process of its own."""
  started = []

  def run(*argv):
    process = subprocess.Popen(
      [sys.executable, str(HERE / 'sample_study.py'), *argv],
      cwd=tmp_path,
      env=os.environ | {'PYTHONPATH': str(ROOT)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    started.append(process)
    return process

  yield run
  for process in started:
    process.kill()
    process.communicate()
