"""Every Python example of the documentation and of the docstrings runs.

A block that must not run is marked ``<!-- no-test -->`` on a line before it.
"""

import doctest
import importlib
import pathlib
import re

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
  ROOT / 'README.md',
  ROOT / 'CONTRIBUTING.md',
  *sorted((ROOT / 'docs').rglob('*.md')),
]
# What these compute takes seconds.
LONG = (
  'docs/interop.md',
  'docs/scans.md',
  'docs/super_resolution.md',
  'docs/training.md',
  'docs/tutorial.md',
)
MODULES = [
  '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix(
    '.__init__'
  )
  for path in sorted((ROOT / 'bitjax').rglob('*.py'))
]
BLOCK = re.compile(
  r'(?P<skip><!--\s*no-test\s*-->\s*)?'
  r'^(?P<indent>[ \t]*)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$',
  re.MULTILINE | re.DOTALL,
)


def blocks(text):
  """The ``python`` blocks to run: code at the line that it has in the page."""
  for match in BLOCK.finditer(text):
    if not match['skip']:
      line = text[: match.start('code')].count('\n')
      indent = match['indent']
      code = re.sub(f'^{indent}', '', match['code'], flags=re.MULTILINE)
      yield '\n' * line + code


def run_page(text, name):
  """Runs a page's blocks in order, in one namespace, which it returns."""
  namespace = {'__name__': name}
  for code in blocks(text):
    exec(compile(code, name, 'exec'), namespace)
  return namespace


def run_docstrings(module):
  """Runs the examples of a module's docstrings; number tried and a report."""
  finder = doctest.DocTestFinder(exclude_empty=True)
  runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
  report = []
  for test in finder.find(module):
    runner.run(test, out=report.append)
  return runner.summarize(verbose=False), ''.join(report)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.study if name in LONG else ())
    for name in (str(page.relative_to(ROOT)) for page in PAGES)
  ],
)
def test_page(name, tmp_path, monkeypatch):
  page = ROOT / name
  monkeypatch.chdir(tmp_path)
  with jax.numpy_rank_promotion('allow'):  # Pages show other people's code.
    run_page(page.read_text(), str(page))


@pytest.mark.parametrize('name', MODULES)
def test_docstrings(name):
  result, report = run_docstrings(importlib.import_module(name))
  assert result.failed == 0, report


PAGE = """# Title

```python
x = 1
```

```bash
exit 1
```

<!-- no-test -->
```python
raise RuntimeError('skipped')
```

- item

  ```python
  for _ in range(2):
    x += 1
  ```

```python
{last}
```
"""


class TestPlanted:
  """The checks above would catch a broken example."""

  def test_blocks_share_a_namespace_and_skips_are_skipped(self):
    assert run_page(PAGE.format(last='y = x'), 'page')['y'] == 3
    assert len(list(blocks(PAGE))) == 3

  @pytest.mark.parametrize(
    ('last', 'error'),
    [
      ('assert x == 4', AssertionError),
      ('undefined', NameError),
      ('x = = 2', SyntaxError),
      ('import bitjax.nothing', ModuleNotFoundError),
    ],
  )
  def test_broken_block_fails(self, last, error):
    with pytest.raises(error) as info:
      run_page(PAGE.format(last=last), 'page.md')
    if error is AssertionError:
      assert info.traceback[-1].lineno + 1 == 24  # The line of the page.

  def test_only_the_marked_block_is_skipped(self):
    text = '<!-- no-test -->\n```python\n1/0\n```\n\n```python\n1/0\n```\n'
    with pytest.raises(ZeroDivisionError):
      run_page(text, 'page')

  def test_broken_docstring_fails(self, tmp_path, monkeypatch):
    good, bad = '>>> 1 + 1\n2', '>>> 1 + 1\n3'
    for name, example, failed in (('good', good, 0), ('bad', bad, 1)):
      source = f'"""Example.\n\n{example}\n"""\n'
      (tmp_path / f'planted_{name}.py').write_text(source)
      monkeypatch.syspath_prepend(tmp_path)
      module = importlib.import_module(f'planted_{name}')
      result, report = run_docstrings(module)
      assert (result.failed, result.attempted) == (failed, 1)
      assert bool(report) == bool(failed)
