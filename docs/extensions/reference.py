"""The reference: the names of a package, signatures as they were written, and links.

The directive ``api`` takes a module and names of it. It begins with a table of one
line for each, and describes them in the order in which they are given. In docstrings
a name in single backquotes is a link, and one that leads nowhere is a warning.
"""

import importlib
import inspect
import pathlib
import re

from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.domains import python
from sphinx.util import nodes
from sphinx.util import parsing

_OWN = 'bitjax'
_DOTTED = re.compile(r'(?<![\w.~\'"])(\w+)((?:\.\w+)+)')
_SIMPLE = (bool, int, float, str, tuple, type(None))


class Api(Directive):
  """Describes what the content names, each on a line of its own."""

  required_arguments = 1
  has_content = True

  def run(self):
    """Returns the nodes."""
    module = importlib.import_module(self.arguments[0])
    names = [name for name in map(str.strip, self.content) if name]
    lines = [f'.. currentmodule:: {module.__name__}', '']
    rows = [name for name in names if callable(getattr(module, name))]
    lines += ['.. autosummary::', '   :nosignatures:', '']
    lines += [*(f'   {name}' for name in rows), '']
    for name in names:
      lines += _described(module, name)
    source = StringList(lines, source=f'{self.state.document.current_source}')
    return parsing.nested_parse_to_nodes(self.state, source)


def _described(module, name):
  value = getattr(module, name)
  if inspect.isclass(value) and issubclass(value, Exception):
    return [f'.. autoexception:: {name}', '']
  if inspect.isclass(value):
    fields = ', '.join(getattr(value, '__annotations__', ()))
    excluded = [f'   :exclude-members: {fields}'] if fields else []
    return [f'.. autoclass:: {name}', '   :members:', *excluded, '']
  if inspect.isroutine(value) or hasattr(value, '__wrapped__'):
    return [f'.. autofunction:: {name}', '']
  return [f'.. py:data:: {name}', '', f'   {_alias(module, name, value)}', '']


def _alias(module, name, value):
  """Returns what a constant or an alias stands for, as its source has it."""
  if isinstance(value, (tuple, dict)):
    return ', '.join(f'``{item!r}``' for item in value) + '.'
  if isinstance(value, str):
    return f'``{value!r}``.'
  written = re.compile(rf'^{name}: TypeAlias = (.+?)(?=^\S|\Z)', re.M | re.S)
  folder = pathlib.Path(module.__file__)
  files = folder.parent.glob('*.py') if folder.stem == '__init__' else [folder]
  for file in files:
    if found := written.search(file.read_text()):
      # A bracket that ends the alias stands at the margin.
      end = ']' if found[1].count('[') > found[1].count(']') else ''
      return f'Stands for ``{" ".join(found[1].split())}{end}``.'
  raise ValueError(f'{module.__name__}.{name} is neither a tuple nor an alias.')


def _signature(app, what, name, obj, options, signature, returned):
  """Returns the signature with annotations as they were written."""
  del app, name, options, signature, returned
  if what not in ('class', 'function', 'method'):
    return None
  try:
    found = inspect.signature(obj)
  except ValueError:  # An exception, say.
    return '', ''
  kept = [
    p.replace(annotation=_text(p.annotation), default=_default(p.default))
    for p in found.parameters.values()
    if p.name not in ('self', 'parent')  # Flax adds the latter.
  ]
  shown = found.replace(parameters=kept, return_annotation=found.empty)
  back = '' if what == 'class' else _text(found.return_annotation)
  return str(shown), None if back in ('', found.empty) else str(back)


class _Text(str):
  __slots__ = ()

  def __repr__(self):
    return str(self)


def _text(annotation):
  if annotation is inspect.Parameter.empty:
    return annotation
  if not isinstance(annotation, str):
    annotation = getattr(annotation, '__forward_arg__', None) or (
      inspect.formatannotation(annotation).replace('NoneType', 'None')
    )
  return _Text(_DOTTED.sub(_short, annotation))


def _short(match):
  """``types.Array`` and ``_attach.Quantize`` are shown without their module."""
  module, name = match.groups()
  if module.startswith('_'):
    return name.removeprefix('.')
  return f'~{module}{name}' if _is_ours(module) else f'{module}{name}'


def _is_ours(module):
  package = importlib.import_module(_OWN)
  return module in (_OWN, *package.__all__, 'files', 'verdicts', 'intervals')


def _default(value):
  if value is inspect.Parameter.empty or isinstance(value, _SIMPLE):
    return value
  return _Text('...') if '<' in repr(value) else value


class Name(python.PyXRefRole):
  """A name in single backquotes: a link, or a warning."""

  def process_link(self, env, refnode, has_explicit_title, title, target):
    """Marks the reference as one that must lead somewhere."""
    refnode['refwarn'] = True
    return super().process_link(env, refnode, has_explicit_title, title, target)


def _resolve(app, env, node, content):
  """Finds what a name means that is not in full, if only one thing ends so."""
  if node.get('refdomain') != 'py':
    return None
  domain, target = env.domains['py'], node['reftarget']
  found = domain.find_obj(env, None, None, target, None, 1)
  if len(found) != 1:
    return None
  name, entry = found[0]
  return nodes.make_refnode(
    app.builder, node['refdoc'], entry.docname, entry.node_id, content, name
  )


def setup(app):
  """Registers the directive, the role and the two listeners."""
  app.add_directive('api', Api)
  app.add_role_to_domain('py', 'name', Name())
  app.connect('autodoc-process-signature', _signature)
  app.connect('missing-reference', _resolve)
  return {'parallel_read_safe': True, 'parallel_write_safe': True}
