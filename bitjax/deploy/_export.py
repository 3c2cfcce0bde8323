"""Packed networks for other programs: StableHLO, and ONNX with or without QONNX's nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os
import pathlib

import jax
from jax import export

from bitjax import extras
from bitjax import files
from bitjax import types
from bitjax.deploy import _network
from bitjax.deploy import _onnx

__all__ = ['export_onnx', 'export_program', 'load_program']

PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def export_program(
  network: _network.Network,
  path: str | os.PathLike[str],
  *,
  platforms: Sequence[str] = ('cpu', 'cuda', 'tpu'),
) -> pathlib.Path:
  """Writes a network as a StableHLO program of any number of images, by ``jax.export``.

  The program holds its packed arrays, and computes what the network does: sums of ±1 values
  by popcount on CPUs, by 8-bit products elsewhere. It is read by `load_program`, or by
  ``jax.export.deserialize`` without bitjax, for as long as JAX promises.

  Args:
    network: the network.
    path: the file; one that exists is replaced.
    platforms: where it shall run, some of ``'cpu'``, ``'cuda'``, ``'rocm'`` and ``'tpu'``.

  Returns:
    The path.

  Raises:
    BadInput: for an unknown platform, or without the package flatbuffers.
    OSError: if the file cannot be written.
  """
  extras.check('export_program', 'flatbuffers', extra=extras.EXPORT)
  for platform in platforms:
    types.check_choice('platforms', platform, PLATFORMS)
  (count,) = export.symbolic_shape('images', constraints=['images >= 1'])
  images = jax.ShapeDtypeStruct((count, *network.shape), network.dtype)
  program = jax.jit(lambda images: network(images))
  exported = export.export(program, platforms=tuple(platforms))(images)
  path = files.expand(path)
  files.write_bytes(path, bytes(exported.serialize()))
  return path


def load_program(
  path: str | os.PathLike[str],
) -> Callable[[types.Array], types.Array]:
  """Reads a program that `export_program` wrote: a function of images, at least one.

  Args:
    path: the file.

  Raises:
    BadInput: for another file, a damaged one, or without the package flatbuffers. Unlike
      `load`, this reads a program; it is compiled by XLA, and has no checksums.
    OSError: if it cannot be read.
  """
  extras.check('load_program', 'flatbuffers', extra=extras.EXPORT)
  path = files.expand(path)
  content = path.read_bytes()
  try:
    return export.deserialize(bytearray(content)).call
  except Exception as error:  # Of flatbuffers, which checks nothing.
    raise types.BadInput(
      f'{path} is no exported program ({types.one_line(error)}).'
    ) from error


def export_onnx(
  network: _network.Network,
  path: str | os.PathLike[str],
  *,
  style: str = 'qonnx',
  batch: int | None = None,
) -> pathlib.Path:
  """Writes a network as an ONNX graph, from ``images`` to ``logits``.

  Sums of ±1 values and thresholds are exact; other operations are those of the network one by
  one, in float32. Products of floats may be summed in another order by what runs the graph,
  and its optimisations may fuse a product and a sum: then values near a sign may turn.

  Args:
    network: the network.
    path: the file; one that exists is replaced.
    style: ``'qonnx'``, with ``BipolarQuant`` and ``Quant`` nodes, or ``'plain'``, with nothing
      but ONNX's own operations, for onnxruntime.
    batch: number of images, which qonnx must know; None for any.

  Returns:
    The path.

  Raises:
    BadInput: for an operation that the graph cannot hold, or without the package onnx.
    OSError: if the file cannot be written.
  """
  types.check_choice('style', style, _onnx.STYLES)
  if batch is not None:
    batch = types.check_integer('batch', batch, 1)
  extras.check('export_onnx', 'onnx', extra=extras.EXPORT)
  graph = _onnx.build(network, style, batch)
  path = files.expand(path)
  files.write_bytes(path, graph.SerializeToString())
  return path
