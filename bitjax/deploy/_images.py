"""Checks that a network treats every image by itself.

It is traced for one image and for three: all values that depend on the images must have
them along their first axis, so that no operation mixes them.
"""

from __future__ import annotations

from typing import Any

from jax.extend import core

from bitjax import types

__all__ = ['EXAMPLES', 'called', 'check_apart', 'place', 'where']

EXAMPLES = 3
# Primitives that only call what they hold.
_CALLS = (
  'checkpoint',
  'closed_call',
  'custom_jvp_call',
  'custom_vjp_call',
  'jit',
  'pjit',
  'remat',
  'remat2',
)


def called(equation: Any) -> Any:
  """Returns the jaxpr that a primitive only calls; None for another primitive."""
  if equation.primitive.name not in _CALLS:
    return None
  params = equation.params
  return params['jaxpr' if 'jaxpr' in params else 'call_jaxpr']


def where(equation: Any) -> str:
  """Returns the path of the module that computes an equation; '' if unknown."""
  names = str(equation.source_info.name_stack).split('/')[1:]
  return '/'.join(name for name in names if '.' not in name)


def place(path: str) -> str:
  """Returns what to call the module at a path."""
  return path or 'the model'


def _flat(closed):
  """Returns primitives that depend on the images, with the shapes of their outputs."""
  found: list[tuple[str, str, list[tuple[int, ...]]]] = []

  def read(jaxpr, moving, around):
    known = {v for v, m in zip(jaxpr.invars, moving, strict=True) if m}
    for equation in jaxpr.eqns:
      own = [
        not isinstance(a, core.Literal) and a in known for a in equation.invars
      ]
      if not any(own):
        continue
      path = where(equation) or around
      if (body := called(equation)) is not None:
        outs = read(getattr(body, 'jaxpr', body), own, path)
      else:
        outs = [True] * len(equation.outvars)
        shapes = [tuple(v.aval.shape) for v in equation.outvars]
        found.append((equation.primitive.name, path, shapes))
      known |= {v for v, m in zip(equation.outvars, outs, strict=True) if m}
    return [
      not isinstance(a, core.Literal) and a in known for a in jaxpr.outvars
    ]

  count = len(closed.jaxpr.invars)
  read(closed.jaxpr, [False] * (count - 1) + [True], '')
  return found


def check_apart(first: Any, second: Any) -> None:
  """Raises `BadInput` unless the first axis of all values is that of the images.

  Args:
    first: a closed jaxpr of a network, traced for one image, its last argument.
    second: that for `EXAMPLES` images.
  """
  one, three = _flat(first), _flat(second)
  if [name for name, _, _ in one] != [name for name, _, _ in three]:
    raise types.BadInput(
      'model must compute the same for any number of images; its operations differ '
      f'between 1 and {EXAMPLES}.'
    )
  for (name, path, shapes), (_, _, others) in zip(one, three, strict=True):
    wanted = [(EXAMPLES, *shape[1:]) for shape in shapes]
    if others != wanted or any(shape[:1] != (1,) for shape in shapes):
      raise types.BadInput(
        f'{place(path)} computes with several images at a time ({name}): batch '
        'statistics must be replaced by running ones (train=False).'
      )
