"""Tables of plain text, for what is said of a model layer by layer."""

from __future__ import annotations

__all__ = ['align', 'shorten']


def shorten(name: str, width: int) -> str:
  """The end of a name that is too long."""
  return name if len(name) <= width else f'…{name[1 - width :]}'


def align(table: list[list[str]], num_names: int) -> list[str]:
  """Lines of equal columns, names to the left and numbers to the right.

  Args:
    table: rows of cells; the first is the head.
    num_names: how many columns hold names.

  Returns:
    The lines, with a rule below the head.
  """
  sizes = [max(map(len, column)) for column in zip(*table, strict=True)]
  lines = []
  for row in table:
    cells = [
      cell.ljust(size) if place < num_names else cell.rjust(size)
      for place, (cell, size) in enumerate(zip(row, sizes, strict=True))
    ]
    lines.append('  '.join(cells).rstrip())
  rule = '-' * max(map(len, lines))
  return [lines[0], rule, *lines[1:]]
