"""Sizes that suit a device: how much of a computation is done at a time.

A block that fills a CPU's cache leaves a GPU idle: there, each step of a loop costs
the launch of its kernels, some microseconds, however small it is. So the sizes of
blocks are static choices by the kind of device, all of them here, read while a
program is traced. They decide speed and memory, not what is computed; but another size
may order sums differently, so that numbers are those of one kind of device, up to
rounding.

Those of the CPU were chosen by measurements. Those of GPUs and TPUs were not measured
yet. They follow from a count: blocks so large that the arithmetic of a step takes
longer than its launches, and so small that all blocks of a scan of 8192 examples and
256 units stay below 256 MiB.
"""

from __future__ import annotations

import dataclasses

import jax

from bitjax import types

__all__ = ['SEEDS', 'Sizes', 'here', 'of']

SEEDS = ('vmap', 'map', 'stream')  # How seeds may run together.


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes for one kind of device.

  Attributes:
    sign_examples: examples of which `scans.flip_gains` holds all products at a time,
      before a sign.
    sign_group: examples that are unrolled into one pass over the sums of all moves.
    sign_pairs: pairs of an example and a unit whose other sign shares one product.
    sums_examples: examples that one flip of `scans.flip_descent` visits at a time.
    rank_one_examples: examples of which `scans.flip_gains` holds all products at a
      time, before any other activation.
    rank_one_group: examples whose tables of moves are built together.
    rank_one_rows: rows of these tables that are evaluated at a time, at most.
    rank_one_numbers: floats that are in memory while some rows are evaluated.
    pooled_numbers: floats that are in memory while some examples of a convolution
      before pooling are evaluated.
    mask_numbers: words and floats that are in memory while the masks of signs of some
      examples are sorted.
    mask_lanes: floats of one activation, of examples whose signs turned, that are
      evaluated at a time.
    tail_numbers: entries of one activation that `scans.flip_gains` holds at a time while
      it runs the rest of a network.
    kinks: kinks of an example that are unrolled into one step.
    coordinate_examples: examples whose losses one attempt of a descent evaluates at a
      time.
    prefix_share: moves cost as much as the whole product if they are one weight in
      this many.
    line_breakpoints: breakpoints of a quantized line that are processed at a time.
    line_pairs: pairs of a breakpoint and an example whose losses are evaluated at a
      time.
    line_kernels: kernels of a line that are evaluated at a time, each by a forward pass.
    line_loop: whether losses are passed on from breakpoint to breakpoint in a loop, or
      for a whole block at once, with more memory.
    line_sorted: breakpoints up to which a list of only those that are met is sorted.
    affine_rates: rates of a full-precision line that are scanned at a time.
    affine_examples: examples that restart behind a kink at a time.
    updates: updates of a training that one launch runs, and between two checkpoints.
    evaluated: examples of a batch in evaluation.
    seeds: how the seeds of one training run together, one of ``SEEDS``.
  """

  sign_examples: int
  sign_group: int
  sign_pairs: int
  sums_examples: int
  rank_one_examples: int
  rank_one_group: int
  rank_one_rows: int
  rank_one_numbers: int
  pooled_numbers: int
  mask_numbers: int
  mask_lanes: int
  tail_numbers: int
  kinks: int
  coordinate_examples: int
  prefix_share: int
  line_breakpoints: int
  line_pairs: int
  line_kernels: int
  line_loop: bool
  line_sorted: int
  affine_rates: int
  affine_examples: int
  updates: int
  evaluated: int
  seeds: str

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if field.type == 'int':
        types.check_integer(field.name, getattr(self, field.name), 1)
    types.check_choice('seeds', self.seeds, SEEDS)


_CPU = Sizes(
  sign_examples=1024,
  sign_group=16,
  sign_pairs=2048,
  sums_examples=64,
  rank_one_examples=256,
  rank_one_group=4,
  rank_one_rows=64,
  rank_one_numbers=1 << 18,
  pooled_numbers=1 << 20,
  mask_numbers=1 << 22,
  mask_lanes=1 << 19,
  tail_numbers=1 << 18,
  kinks=4,
  coordinate_examples=256,
  prefix_share=64,
  line_breakpoints=64,
  line_pairs=1024,
  line_kernels=1,
  line_loop=True,
  line_sorted=8192,
  affine_rates=64,
  affine_examples=512,
  updates=50,
  evaluated=500,
  seeds='map',
)
_GPU = Sizes(
  sign_examples=4096,
  sign_group=32,
  sign_pairs=16_384,
  sums_examples=512,
  rank_one_examples=1024,
  rank_one_group=16,
  rank_one_rows=256,
  rank_one_numbers=1 << 24,
  pooled_numbers=1 << 26,
  mask_numbers=1 << 26,
  mask_lanes=1 << 24,
  tail_numbers=1 << 24,
  kinks=8,
  coordinate_examples=2048,
  # A move is a few launches; so is the whole product, which fills the device.
  prefix_share=4096,
  line_breakpoints=256,
  line_pairs=8192,
  line_kernels=8,
  line_loop=False,
  line_sorted=65_536,
  affine_rates=256,
  affine_examples=4096,
  updates=400,
  evaluated=1000,
  # With vmap, convolutions of several kernels become grouped ones.
  seeds='map',
)
_KINDS = {'cpu': _CPU, 'gpu': _GPU, 'tpu': _GPU}


def here() -> Sizes:
  """Returns the sizes for the device that JAX computes on by default."""
  return of(jax.default_backend())


def of(kind: str) -> Sizes:
  """Returns the sizes for a kind of device.

  Args:
    kind: as ``jax.default_backend`` names it; one that is not known, such as a
      plugin's, is taken for a GPU.
  """
  return _KINDS.get(kind, _GPU)
