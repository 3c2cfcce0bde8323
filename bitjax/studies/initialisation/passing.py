r"""How much gradient passes the windows of a network that has not been trained.

After each quantized convolution stands an activation, whose hardtanh is a window. One
gradient of a batch says which share of its l1 norm passes each, and how large it is
where it reaches the latent weights. Does it vanish towards the first layer? Kernels of
one shape, which are those of one stage, can be compared. With :math:`d_l` the number of
layers from layer l to the end, and one constant :math:`a_s` for each shape s,

.. math:: \log_2 \lVert g_l \rVert = a_s - h d_l

is fitted by least squares: h is the number of times that the gradient halves in a layer,
negative where it grows.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from bitjax import data
from bitjax import nn
from bitjax import sweeps
from bitjax import training
from bitjax.studies import recipes
from bitjax.studies.initialisation import arms as arms_lib
from bitjax.studies.initialisation import starts

if TYPE_CHECKING:
  import xarray

  from bitjax.studies.initialisation import study

__all__ = ['batch', 'halvings', 'measure', 'summary']


def measure(
  config: study.Config, train: data.Dataset, sweep: sweeps.Sweep
) -> xarray.Dataset:
  """Measures what passes the windows of every network at every start.

  Returns:
    Over (depth, shortcut, start, seed): ``mass``, the share that passes activations on
    average; ``inner``, the smallest share that passes the window of a quantizer;
    ``halvings``, how often the gradient halves in a layer; ``log_norm``, the mean log2
    norm of the gradient by layer; ``span``, how much larger it is in the last quantized
    layer than in the first; and, with an axis ``position`` of quantized layers from
    first to last, ``mass_at`` and ``log_norm_at``, NaN beyond the last.
  """
  import xarray

  found = []
  for network in config.networks:
    models = {
      shortcut: config.measured(network, shortcut, train.num_classes)
      for shortcut in config.shortcuts
    }
    each = functools.partial(_measured, config, train, models, network)
    layers = 2 * sum(next(iter(models.values())).stages)
    found.append(
      sweep.hosted(
        each,
        name=f'passing_{network}',
        lanes={'seed': config.seeds},
        static={'shortcut': config.shortcuts, 'start': config.passing},
        dims={'mass_at': ('position',), 'log_norm_at': ('position',)},
        coords={'position': np.arange(1, layers + 1)},
        chunk=len(config.seeds),
      ).expand_dims(depth=[network])
    )
  # A shallow network has no numbers at the positions of a deeper one.
  return xarray.concat(found, 'depth', join='outer')


def _measured(
  config, train, models, network, *, shortcut, start, seed, folder, report, mesh
):
  """Measures the networks of some seeds."""
  del folder, report, mesh
  rows = []
  for number in seed.tolist():
    images, labels = batch(train, config.images, number)
    weights = starts.variables(
      models[shortcut],
      arms_lib.measured(start),
      number,
      images,
      labels,
      quantized=recipes.NETWORKS[network].binary,
    )
    passed = nn.gradient_passing(
      models[shortcut], weights, images, labels, train=True
    )
    rows.append(summary(passed, training.kernels(weights['params'])))
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def batch(train: data.Dataset, number: int, seed: int) -> tuple[Any, Any]:
  """Returns so many training images, as networks see them, and labels; drawn by seed."""
  size = min(number, len(train.labels))
  chosen = np.random.default_rng(seed).choice(
    len(train.labels), size, replace=False
  )
  images = training.preparation(train)(jnp.asarray(train.images[chosen]))
  return images, jnp.asarray(train.labels[chosen])


def summary(
  passed: nn.GradientPassing, kernels: dict[str, Any]
) -> dict[str, np.ndarray]:
  """Returns what `measure` keeps of one network.

  Args:
    passed: one gradient of the network.
    kernels: all kernels by path, whose shapes count.
  """
  layers = [row for row in passed.layers if row.kernel_norm is not None]
  windows = [row for row in passed.layers if row.kernel_norm is None]
  windows = windows[len(windows) - len(layers) :]  # Without the first layer's.
  masses = np.asarray([row.input_mass for row in windows], float)
  norms = np.log2(np.asarray([row.kernel_norm for row in layers], float))
  known = {path.removesuffix('/kernel'): k for path, k in kernels.items()}
  shapes = [known[row.path].shape for row in layers]
  found = {
    'mass': masses.mean(),
    'inner': min(float(row.input_mass or np.nan) for row in layers),
    'halvings': halvings(norms, shapes),
    'log_norm': norms.mean(),
    'span': norms[-1] - norms[0],
    'mass_at': masses,
    'log_norm_at': norms,
  }
  return {name: np.asarray(v, np.float32) for name, v in found.items()}


def halvings(norms: np.ndarray, shapes: list[tuple[int, ...]]) -> float:
  """Returns how often the gradient halves in a layer towards the first.

  Args:
    norms: log2 norms of the gradient of each layer's kernel, from first to last.
    shapes: shapes of the kernels; only layers of one shape are compared.
  """
  depths = np.arange(len(norms), dtype=float)
  above = below = 0.0
  for shape in set(shapes):
    at = [index for index, own in enumerate(shapes) if own == shape]
    apart = depths[at] - depths[at].mean()
    above += float(apart @ norms[at])
    below += float(apart @ apart)
  return above / below if below else np.nan
