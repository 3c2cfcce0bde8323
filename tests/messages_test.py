"""Messages about bad input name arguments that the caller knows, in four packages.

What a message names is read from the sources: the first word of what is said to be
wrong, in every public function and in what it calls by name in its own package.
Methods are not looked at.
"""

from __future__ import annotations

import ast
import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1] / 'bitjax'
PACKAGES = ('scans', 'transforms', 'descent', 'measures', 'packed', 'searches')
# A message begins with what is wrong: 'order must be ...', 'budget.radius must ...'.
NAMED = re.compile(r"([a-z_]\w*)(?:\.\w+)? (?:must|'\w+' needs)\b")


def functions(package):
  """Returns name -> the functions of that name at the top of a package's files."""
  found: dict[str, list[ast.AST]] = {}
  path = ROOT / package
  files = (
    sorted(path.glob('*.py')) if path.is_dir() else [ROOT / f'{package}.py']
  )
  for file in files:
    for node in ast.parse(file.read_text()).body:
      if isinstance(node, ast.FunctionDef):
        found.setdefault(node.name, []).append(node)
  return found


def text(node):
  """Returns the beginning of a literal message; empty for any other."""
  if isinstance(node, ast.JoinedStr) and node.values:
    node = node.values[0]
  value = node.value if isinstance(node, ast.Constant) else ''
  return value if isinstance(value, str) else ''


def named(node):
  """Yields the arguments that the checks in a function's body name."""
  for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
    called = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
    if called.startswith('check_') and call.args:
      word = text(call.args[0]).partition('.')[0]
      if word.isidentifier():
        yield word
    elif called == 'BadInput' and (match := NAMED.match(text(call.args[0]))):
      yield match[1]


def parameters(node):
  given = node.args
  return [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def passed(node, origin, known):
  """Yields the functions that one calls, with the origins of their parameters."""
  for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
    called = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
    for inner in known.get(called, []):
      pairs = [*zip(parameters(inner), call.args, strict=False)]
      pairs += [(keyword.arg, keyword.value) for keyword in call.keywords]
      yield (
        inner,
        {
          parameter: origin[value.id]
          for parameter, value in pairs
          if isinstance(value, ast.Name) and value.id in origin
        },
      )


def strays(known, public):
  """Returns what messages call otherwise than the caller of a public function.

  Args:
    known: name -> functions of the package.
    public: names of the public ones.
  """
  found = set()
  for name in public:
    first = known[name][0]
    todo = [(first, {p: p for p in parameters(first)})]
    seen = []
    while todo:
      node, origin = todo.pop()
      if (node, origin) in seen:
        continue
      seen.append((node, origin))
      own = parameters(node)
      for word in named(node):
        # What a function chooses by itself cannot be the caller's mistake.
        if origin.get(word, word) != word:
          found.add(f'{name}({origin[word]}): {word} in {node.name}')
        elif node is first and word not in own:
          found.add(f'{name}: {word}')
      todo += passed(node, origin, known)
  return sorted(found)


def surface(package, known):
  """Returns the names of the public functions of a package."""
  module = importlib.import_module(f'bitjax.{package}')
  return [name for name in module.__all__ if name in known]


@pytest.mark.parametrize('package', PACKAGES)
def test_they_name_arguments_of_the_function_that_was_called(package):
  known = functions(package)
  public = surface(package, known)
  assert public
  assert not strays(known, public)


PLANTED = """
def scan(view, order, radius, width):
  check_order(view, order)
  types.check_positive('size', radius)
  types.check_positive('budget.radius', radius)
  check_width(width)
  check_width(3)

def check_order(view, signal):
  if signal is None:
    raise types.BadInput(f'signal must be given; got {signal}.')

def check_width(width):
  types.check_positive('width', width)
"""


def test_what_is_planted_is_found():
  known = {node.name: [node] for node in ast.parse(PLANTED).body}
  assert strays(known, ['scan']) == [
    'scan(order): signal in check_order',
    'scan: budget',
    'scan: size',
  ]
