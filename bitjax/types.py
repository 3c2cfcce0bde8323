"""The vocabulary that every module shares: arrays, norms, the budget, bad input.

A *budget* is a ball around a point in parameter space. All methods that a study
compares move inside the same ball, so a budget names everything that defines
one: radius, norm, and the point it is anchored at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import functools
import operator
from typing import Any, Literal, Protocol, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
  'ANCHORS',
  'NORMS',
  'Anchor',
  'Array',
  'BadInput',
  'Budget',
  'Norm',
  'PyTree',
  'Scalar',
  'Staged',
  'as_optax',
  'check_axis',
  'check_choice',
  'check_finite',
  'check_fraction',
  'check_integer',
  'check_labels',
  'check_non_negative',
  'check_number',
  'check_open_interval',
  'check_positive',
  'check_range',
  'check_seed',
  'integer',
  'nan_where',
  'one_line',
  'promoted',
  'shown',
  'widened',
]

Array: TypeAlias = jax.Array
Scalar: TypeAlias = float | jax.Array
PyTree: TypeAlias = Any

Norm: TypeAlias = Literal['l2', 'linf', 'l1', 'flips']
Anchor: TypeAlias = Literal['start', 'noised']

NORMS: tuple[str, ...] = get_args(Norm)
ANCHORS: tuple[str, ...] = get_args(Anchor)


class Staged(Protocol):
  """A network that says what it computes, as named stages in order.

  Exact scans look into such a network. Its output must be that of its stages, applied
  one after another to its inputs as a float matrix, [examples, features]: views
  flatten what an example has more axes of. Nobody checks that.
  """

  def stages(
    self, inputs: Array, **kwargs: Any
  ) -> Mapping[str, Callable[[Array], Array]]:
    """Returns the stages, such as those of `bitjax.scans`, by name and in order.

    Args:
      inputs: a batch; only its shape and dtype matter.
      **kwargs: keywords of the network's call, such as ``progress`` or ``train``.
    """
    ...


class BadInput(ValueError):
  """An argument, a flag or a file is wrong, and the caller can correct it.

  Its message names what is wrong and what would be right. Commands print it as one
  line; every other exception, a plain ``ValueError`` included, is a defect of the
  program and keeps its traceback.
  """


def one_line(error: BaseException) -> str:
  """Returns an exception's message in one line: of an ``OSError``, file and reason."""
  if isinstance(error, OSError) and error.strerror and error.filename:
    return f'{error.filename}: {error.strerror}'
  return ' '.join(str(error).split()) or type(error).__name__


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Budget:
  r"""The ball ``{w : ||w - anchor||_norm <= radius}`` of allowed parameters.

  Attributes:
    radius: radius of the ball, in the units of the parameters (``l2``, ``linf``,
      ``l1``) or a number of sign changes (``flips``). A leaf: it may be traced.
    norm: ``'l2'``, ``'linf'``, ``'l1'`` or ``'flips'`` (how many weights have
      another sign than the anchor, with sign(0) = +1).
    anchor: ``'start'`` centres the ball at the original parameters, before any
      noise; ``'noised'`` at the perturbed start.

  Raises:
    BadInput: for an unknown norm or anchor, or a radius that is negative or
      NaN (checked only where the radius is a concrete number).
  """

  radius: Scalar
  norm: Norm = dataclasses.field(default='l2', metadata={'static': True})
  anchor: Anchor = dataclasses.field(default='start', metadata={'static': True})

  def __post_init__(self):
    check_choice('norm', self.norm, NORMS)
    check_choice('anchor', self.anchor, ANCHORS)
    # JAX rebuilds budgets with placeholders and with stacks of radii: those pass.
    if isinstance(self.radius, (str, bytes, bool, complex)):
      raise BadInput(f'radius must be a number; got {self.radius!r}.')
    if isinstance(self.radius, (int, float, np.ndarray, np.number, jax.Array)):
      check_non_negative('radius', self.radius, arrays=True)

  def __repr__(self) -> str:
    parts = [shown(self.radius)]
    parts += [repr(self.norm)] if self.norm != 'l2' else []
    parts += [f'anchor={self.anchor!r}'] if self.anchor != 'start' else []
    return f'Budget({", ".join(parts)})'


def promoted(*values: Any) -> np.dtype:
  """Returns the dtype of the sum of ``values``, under strict promotion as well.

  Where JAX promotes strictly, it refuses to name the wider of bfloat16 and float32.

  Args:
    *values: arrays, Python numbers or dtypes.
  """
  with jax.numpy_dtype_promotion('standard'):
    return jnp.result_type(*values)


def widened(x: Any) -> Array:
  """Returns ``x`` as an array of at least float32: 16 bits are few for a sum."""
  x = jnp.asarray(x)
  return x.astype(promoted(x, jnp.float32))


def nan_where(mask: Array, x: Array) -> Array:
  """Returns NaN where ``mask`` holds, and ``x`` elsewhere.

  It is ``jnp.where(mask, jnp.nan, x)``, but holds no NaN that is not in the result:
  under ``jax_debug_nans`` and ``jax_disable_jit`` such a constant is an error.
  """
  one = jnp.where(mask, 0, 1).astype(x.dtype)
  return jnp.where(
    mask, one / one, x
  )  # Not a product: XLA takes 0 * NaN to be 0.


def shown(value: Any) -> str:
  """Returns a value as the code for it, in one line, as messages and reprs show it.

  Arrays are shown by dtype and shape, as in ``float32[3]``, those without axes as
  numbers if they are concrete; functions by name; and partial ones as calls.
  """
  if isinstance(value, str):
    return repr(str(value))  # NumPy's strings too.
  if hasattr(value, 'dtype') and isinstance(getattr(value, 'shape', 0), tuple):
    sizes = ', '.join(map(str, value.shape))
    return f'{value.dtype}[{sizes}]' if sizes else _shown_scalar(value)
  if isinstance(value, dict):
    items = (f'{shown(k)}: {shown(v)}' for k, v in value.items())
    return f'{{{", ".join(items)}}}'
  if type(value) is list:
    return f'[{", ".join(map(shown, value))}]'
  if type(value) is tuple:
    return f'({", ".join(map(shown, value))}{"," * (len(value) == 1)})'
  if type(value).__repr__ is functools.partial.__repr__:
    parts = [f'{name}={shown(v)}' for name, v in value.keywords.items()]
    parts = [*map(shown, value.args), *parts]
    return shown(value.func) + (f'({", ".join(parts)})' if parts else '')
  if hasattr(value, '__name__') and not isinstance(value, type):
    return value.__name__
  return repr(value).replace('\n', ' ')


def _shown_scalar(value):
  try:
    return str(np.asarray(value, value.dtype)[()])
  except (TypeError, RuntimeError):  # A tracer, a random key, what is deleted.
    return f'{value.dtype}[]'


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
  """Raises `BadInput` listing ``choices`` unless ``value`` is one."""
  if value not in choices:
    raise BadInput(
      f'{name} must be one of {", ".join(choices)}; got {shown(value)}.'
    )


def check_number(name: str, value: Any, *, arrays: bool = False) -> None:
  """Raises `BadInput` unless ``value`` is a real number.

  Numbers are Python's, NumPy's and JAX's, traced ones included, but no bools, complex
  numbers or strings. NaN and infinity pass.

  Args:
    name: what the caller's own argument is called.
    value: what is checked.
    arrays: whether arrays of numbers pass too, and not only those without axes.
  """
  _check_kind(name, value, 'a number', arrays)


def check_non_negative(
  name: str, value: Any, *, finite: bool = False, arrays: bool = False
) -> None:
  """Raises `BadInput` unless ``value`` is a number, and if concrete >= 0, not NaN."""
  if finite:
    _check(
      name,
      value,
      lambda x: (x >= 0) & np.isfinite(x),
      '>= 0 and finite',
      arrays,
    )
  else:
    _check(name, value, lambda x: x >= 0, '>= 0 and not NaN', arrays)


def check_positive(
  name: str, value: Any, *, finite: bool = False, arrays: bool = False
) -> None:
  """Raises `BadInput` unless ``value`` is a number, and if concrete > 0, not NaN.

  A number so small that float32 takes it as 0 is not positive.
  """
  dtype = np.dtype(jax.dtypes.canonicalize_dtype(float))
  tiny = np.finfo(dtype).tiny
  wanted = f'> 0 and {"finite" if finite else "not NaN"}'
  wanted += f' ({dtype} takes numbers below {tiny:.3g} as 0)'

  def holds(x):
    return (x >= tiny) & (np.isfinite(x) if finite else True)

  _check(name, value, holds, wanted, arrays)


def check_finite(name: str, value: Any, *, arrays: bool = False) -> None:
  """Raises `BadInput` unless ``value`` is a number, and if concrete finite."""
  _check(name, value, np.isfinite, 'finite', arrays)


def check_open_interval(
  name: str, value: Any, low: float, high: float, *, arrays: bool = False
) -> None:
  """Raises `BadInput` unless ``value`` is a number, and if concrete in (low, high)."""
  _check(
    name,
    value,
    lambda x: (x > low) & (x < high),
    f'in ({low}, {high})',
    arrays,
  )


def check_range(
  name: str, value: Any, low: float, high: float, *, arrays: bool = False
) -> None:
  """Raises `BadInput` unless ``value`` is a number, and if concrete in [low, high]."""
  _check(
    name,
    value,
    lambda x: (x >= low) & (x <= high),
    f'in [{low}, {high}]',
    arrays,
  )


def check_fraction(name: str, value: Any, *, arrays: bool = False) -> None:
  """Raises `BadInput` unless ``value`` is a number, and if concrete in [0, 1)."""
  _check(name, value, lambda x: (x >= 0) & (x < 1), 'in [0, 1)', arrays)


def check_integer(name: str, value: Any, low: int) -> int:
  """Returns ``value`` as Python's integer, in [low, 2^31), as of an int32.

  Raises:
    BadInput: for any other value.
  """
  number = _integer(name, value, low)
  if number >= 1 << 31:
    raise BadInput(f'{name} must be an integer below 2^31; got {value}.')
  return number


def _integer(name: str, value: Any, low: int) -> int:
  number = integer(value)
  if number is None or number < low:
    raise BadInput(f'{name} must be an integer >= {low}; got {shown(value)}.')
  return number


def integer(value: Any) -> int | None:
  """Returns an integer of Python, NumPy or JAX as Python's; None for all else.

  Neither bools nor tracers are integers.
  """
  try:
    return None if isinstance(value, bool) else operator.index(value)
  except TypeError:
    return None


def check_labels(name: str, value: Any, num_examples: int) -> None:
  """Raises `BadInput` unless ``value`` holds one integer class for each example."""
  shape = np.shape(value)
  wanted = f'{name} must be integers, one class for each example'
  if len(shape) == 2 and shape[0] == num_examples:
    raise BadInput(
      f'{wanted}; got shape {shape}. Of one-hot {name}, pass '
      f'{name}.argmax(axis=1).'
    )
  if shape != (num_examples,):
    raise BadInput(
      f'{wanted}: inputs and {name} must hold the same number of examples; got '
      f'{num_examples} examples and {name} of shape {shape}.'
    )
  dtype = value.dtype if hasattr(value, 'dtype') else np.asarray(value).dtype
  if not jnp.issubdtype(dtype, jnp.integer):
    raise BadInput(f'{wanted}; got the dtype {dtype}.')


def check_seed(name: str, value: Any) -> None:
  """Raises `BadInput` unless ``value`` is an integer that every generator takes.

  These are the integers of 32 bits, without a sign: ``jax.random.key`` drops the further
  bits of larger ones, so that two of them would give the same numbers.
  """
  if _integer(name, value, 0) >= 1 << 32:
    raise BadInput(f'{name} must be < 2**32; got {value}.')


def check_axis(name: str, value: Any, *, optional: bool = True) -> Any:
  """Returns ``value``, as Python's integer or, if ``optional``, None.

  Raises:
    BadInput: for any other value.
  """
  axis = integer(value)
  if axis is None and not (value is None and optional):
    wanted = 'an integer or None' if optional else 'an integer'
    raise BadInput(f'{name} must be {wanted}; got {shown(value)}.')
  return axis


def _check_kind(name, value, wanted, arrays):
  is_number = isinstance(value, (int, float, np.ndarray, np.generic, jax.Array))
  if is_number and not isinstance(value, bool):
    # A random key has a dtype that NumPy does not know.
    kind = getattr(value, 'dtype', float)
    is_number = jnp.issubdtype(kind, jnp.floating)
    is_number |= jnp.issubdtype(kind, jnp.integer)
  if not is_number or isinstance(value, bool):
    raise BadInput(f'{name} must be {wanted}; got {shown(value)}.')
  if np.ndim(value) and not arrays:
    raise BadInput(
      f'{name} must be one number; got an array of shape {np.shape(value)}. Sweep '
      'it with jax.vmap.'
    )


def _check(name, value, holds, wanted, arrays=False):
  _check_kind(name, value, f'a number {wanted}', arrays)
  if isinstance(value, jax.core.Tracer):  # It has no value yet.
    return
  numbers = np.asarray(value)
  if numbers.dtype == object:  # A Python integer of more than 64 bits.
    try:
      numbers = np.asarray(float(value))
    except OverflowError:
      numbers = np.asarray(np.inf if value > 0 else -np.inf)
  wrong = numbers[~holds(numbers)]
  if wrong.size:
    among = f' among {numbers.size}' if numbers.ndim else ''
    raise BadInput(f'{name} must be {wanted}; got {wrong[0]}{among}.')


def as_optax() -> contextlib.AbstractContextManager[None]:
  """Lets dtypes promote as optax relies on, inside ``with``, under any setting."""
  return jax.numpy_dtype_promotion('standard')
