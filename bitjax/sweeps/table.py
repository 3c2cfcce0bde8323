"""The table of a sweep's results, filled in block by block and labelled at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bitjax import types
from bitjax.sweeps import plan

if TYPE_CHECKING:
  import xarray

__all__ = ['Table', 'Template', 'host', 'stored', 'template_of']

# Output name -> (shape of one lane's value, dtype).
Template = dict[str, tuple[tuple[int, ...], np.dtype]]


class Table:
  """Arrays of shape [*static axes, *lane axes, *own axes], one per output."""

  def __init__(
    self,
    sweep: plan.Plan,
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
  ):
    self._plan = sweep
    self._dims = {name: tuple(own) for name, own in dims.items()}
    self._coords = dict(coords)
    self._arrays: dict[str, np.ndarray] = {}
    self.template: Template | None = None

  def fill(self, block: plan.Block, outputs: dict[str, np.ndarray]) -> None:
    """Stores a block's outputs, each of shape [lanes, *own axes]."""
    if self.template is None:
      self.use({k: (v.shape[1:], v.dtype) for k, v in outputs.items()})
    for name, array in self._arrays.items():
      array[block.combination, block.start : block.stop] = outputs[name]

  def use(self, template: Template) -> None:
    """Allocates arrays for the outputs, and checks that their axes are named.

    Raises:
      BadInput: naming the output and the axes that it needs, or what netCDF cannot
        hold.
    """
    _check_dims(self._plan, template, self._dims, self._coords)
    _check_stored(self._plan, template, self._dims, self._coords)
    lead = (len(self._plan.combinations), self._plan.num_lanes)
    self.template = template
    self._arrays = {
      name: np.zeros(lead + shape, dtype)
      for name, (shape, dtype) in template.items()
    }

  def diverged(self) -> tuple[int, dict[str, int]]:
    """Counts the lanes with any non-finite output, and those of each output."""
    lanes = np.zeros((len(self._plan.combinations), self._plan.num_lanes), bool)
    counts = {}
    for name, array in self._arrays.items():
      if array.dtype.kind != 'f':
        continue
      bad = ~np.isfinite(array).all(axis=tuple(range(2, array.ndim)))
      counts[name] = int(bad.sum())
      lanes |= bad
    return int(lanes.sum()), counts

  def dataset(self) -> xarray.Dataset:
    """Returns the arrays as a labelled dataset, without copying them."""
    import xarray

    total, counts = self.diverged()
    variables = {}
    for name, array in self._arrays.items():
      own = self._dims.get(name, ())
      shape = self._plan.shape + array.shape[2:]
      attrs = {'diverged': counts[name]} if name in counts else {}
      variables[name] = (self._plan.dims + own, array.reshape(shape), attrs)
    used = {dim for own in self._dims.values() for dim in own}
    coords: dict[str, Any] = {
      axis: np.asarray(values)
      for axis, values in (self._plan.static | self._plan.lanes).items()
    }
    coords |= {k: np.asarray(v) for k, v in self._coords.items() if k in used}
    return xarray.Dataset(variables, coords, {'diverged': total})


def template_of(outputs: Any) -> Template:
  """Describes a traced function's outputs, each [lanes, *own axes].

  Raises:
    TypeError: unless they are a dictionary of real arrays.
  """
  if not isinstance(outputs, dict) or not outputs:
    raise TypeError(
      "a sweep's function must return a dictionary, output name -> array; got "
      f'{type(outputs).__name__}.'
    )
  template: Template = {}
  for name, leaf in outputs.items():
    real = isinstance(leaf, jax.ShapeDtypeStruct) and jax.numpy.isdtype(
      leaf.dtype, ('bool', 'integral', 'real floating')
    )
    if not real:
      raise TypeError(f'output {name!r} must be an array of real numbers.')
    template[name] = (leaf.shape[1:], stored(leaf.dtype))
  return template


def host(
  outputs: dict[str, jax.Array], template: Template
) -> dict[str, np.ndarray]:
  """Fetches outputs to the host, in the template's dtypes, which files can hold."""
  fetched = jax.device_get(outputs)
  return {
    name: np.asarray(fetched[name]).astype(dtype, copy=False)
    for name, (_, dtype) in template.items()
  }


def stored(dtype: Any) -> np.dtype:
  """Returns the dtype in which netCDF, with no floats below 32 bits, keeps another."""
  dtype = np.dtype(dtype)
  if jax.numpy.issubdtype(dtype, jax.numpy.floating) and dtype.itemsize < 4:
    return np.dtype(np.float32)
  # NumPy knows no kind for JAX's integers of fewer than 8 bits.
  if dtype.kind not in 'iu' and jax.numpy.issubdtype(dtype, jax.numpy.integer):
    signed = jax.numpy.issubdtype(dtype, jax.numpy.signedinteger)
    return np.dtype(np.int8 if signed else np.uint8)
  return dtype


def _check_dims(sweep, template, dims, coords) -> None:
  unknown = sorted(set(dims) - set(template))
  if unknown:
    raise types.BadInput(
      f'dims names {unknown[0]!r}, which is not an output of the sweep '
      f'{sweep.name!r}; the outputs are {", ".join(template)}.'
    )
  sizes = {name: np.asarray(values).shape for name, values in coords.items()}
  for name, (shape, _) in template.items():
    own = dims.get(name, ())
    if len(own) != len(shape):
      raise types.BadInput(
        f'output {name!r} has shape {shape} in each lane; name its axes with '
        f"dims={{'{name}': (...)}}, {len(shape)} of them (got {own})."
      )
    taken = {*sweep.dims, *template} & set(own)
    if taken:
      raise types.BadInput(
        f'the axis {sorted(taken)[0]!r} of output {name!r} is also the name of '
        'an axis of the sweep or of an output; rename it.'
      )
    for axis, size in zip(own, shape, strict=True):
      if sizes.setdefault(axis, (size,)) != (size,):
        raise types.BadInput(
          f'the axis {axis!r} has size {size} in output {name!r}, elsewhere '
          f'{sizes[axis]}.'
        )
  both = set(sweep.dims) & set(template)
  if both:
    raise types.BadInput(f'{sorted(both)[0]!r} is both an axis and an output.')


def _check_stored(sweep, template, dims, coords) -> None:
  """Raises `BadInput` for names and labels that could not be saved at the end."""
  own = {axis for name in template for axis in dims.get(name, ())}
  for name in [*sweep.dims, *template, *sorted(own)]:
    if not name or '/' in name or not name.isprintable():
      raise types.BadInput(
        f'the sweep {sweep.name!r} has an axis or output named {name!r}; netCDF '
        "needs printable names without '/'."
      )
  for axis, values in {**sweep.static, **coords}.items():
    labels = np.asarray(values)
    fits = labels.dtype.kind in 'biufU' and stored(labels.dtype) == labels.dtype
    if not fits or not all(map(_is_text, labels.ravel().tolist())):
      raise types.BadInput(
        f'the labels of the axis {axis!r} must be numbers of at least 32 bits, or '
        f'texts; got {labels.dtype} {labels.ravel()[:3].tolist()}.'
      )


def _is_text(label: Any) -> bool:
  """Returns whether a label, if it is a text, has UTF-8."""
  return not isinstance(label, str) or not any(
    '\ud800' <= character <= '\udfff' for character in label
  )
