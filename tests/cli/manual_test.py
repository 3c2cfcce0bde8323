"""The manual page."""

import dataclasses
import os

import pytest

from bitjax import studies
from bitjax.cli import manual


@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help(launch, flag, capsys, tmp_path, monkeypatch):
  monkeypatch.setenv('COLUMNS', '200')
  assert launch(flag, '--preset=nonsense') == 0
  out, err = capsys.readouterr()
  assert err == ''
  assert 'A sample study, as small as one can be.' in out
  for text in (
    'smoke\n      seeds=0, learning_rates=0.01,0.1',
    'quick (default)',
    '--seeds=INT,...\n      Seeds. (>= 0; default: 0:3)',
    '--networks=NAME,...',
    'one of binary, full_precision',
    '--learning_rates=GRID',
    '> 0; default: log:1e-3:1e-1:4',
    '--[no]literal',
    'default: none',
    '--out=NAME',
    'runs/sample_study/<preset>',
    '--chunk=INT',
  ):
    assert text in out
  words = ' '.join(out.split())
  assert 'or 1 for trainings on a CPU; >= 1)' in words
  assert 'integers are at most 2147483647, other numbers 0 or from' in words
  assert max(map(len, out.splitlines())) <= 100
  assert list(tmp_path.iterdir()) == []


def test_help_is_quick(start):
  # Its own time, whatever else the machine does.
  begin = seconds_of_children()
  process = start('--help')
  out, err = process.communicate(timeout=60)
  took = seconds_of_children() - begin
  assert (process.returncode, err) == (0, '')
  assert out.startswith('sample_study\n\nA sample study')
  assert took < 6  # Promised: 3 s on an idle machine.


def seconds_of_children():
  used = os.times()
  return used.children_user + used.children_system


DOC = """Is a long question that names what it is about still one paragraph here?

Prose is filled to the width of the terminal, whatever width
its author chose for the
lines of the source, *stars* included:

  bitjax sample --preset=a_name_that_is_longer_than_forty_columns

- a list keeps its lines, however short
  or long they are
- always

name    | size
--------|-----
one     | 1

```
code in a fence stays
as it is
```
The end comes right
after it.
"""


@pytest.mark.parametrize('columns', [40, 60, 100])
def test_paragraphs_are_filled_and_all_else_keeps_its_lines(
  sample, columns, monkeypatch
):
  monkeypatch.setenv('COLUMNS', str(columns))
  study = dataclasses.replace(sample.STUDY, doc=DOC)
  text = manual.page(study, 'bitjax sample').partition('\n\nUSAGE')[0]
  kept, lines = '\n'.join(DOC.splitlines()[5:20]), text.splitlines()
  assert kept.startswith('\n  bitjax') and kept.endswith('as it is\n```')
  assert f'{kept}\nThe end' in text
  for start, end in (('Prose', 'included:'), ('Is a', 'here?'), ('The', 'it.')):
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    last = next(i for i, line in enumerate(lines) if line.endswith(end))
    words = ' '.join(lines[first : last + 1]).split()
    # As few lines as there can be: the next line's first word would not have fitted.
    assert lines[first : last + 1] == _greedy(words, columns)


def _greedy(words, columns):
  lines = [words[0]]
  for word in words[1:]:
    if len(lines[-1]) + 1 + len(word) <= columns:
      lines[-1] += f' {word}'
    else:
      lines.append(word)
  return lines


@pytest.mark.parametrize('name', studies.NAMES)
@pytest.mark.parametrize('columns', [60, 100])
def test_no_line_of_a_study_s_page_is_a_left_over(name, columns, monkeypatch):
  monkeypatch.setenv('COLUMNS', str(columns))
  page = manual.page(studies.load(name), f'bitjax {name}')
  prose = page.partition('\n\nUSAGE')[0].split('\n\n')[1:]
  for paragraph in prose:
    lines = paragraph.splitlines()
    if not any(line.startswith(' ') for line in lines):
      assert lines == _greedy(paragraph.split(), columns)
