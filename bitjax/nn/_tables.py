"""Plain-text tables for reports about the layers of a model."""

from __future__ import annotations

__all__ = ['align', 'shorten']


def shorten(name: str, width: int) -> str:
  """Shortens a name to ``width`` characters; the end of a long name is kept."""
  return name if len(name) <= width else f'…{name[1 - width :]}'


def align(table: list[list[str]], num_names: int) -> list[str]:
  """Formats a table with aligned columns, names to the left and numbers to the right.

  Args:
    table: rows of cells; the first row is the head.
    num_names: number of leading columns that hold names.

  Returns:
    The lines, with a rule below the head.
  """
  sizes = [max(map(len, column)) for column in zip(*table, strict=True)]
  lines = []
  for row in table:
    cells = [
      cell.ljust(size) if index < num_names else cell.rjust(size)
      for index, (cell, size) in enumerate(zip(row, sizes, strict=True))
    ]
    lines.append('  '.join(cells).rstrip())
  rule = '-' * max(map(len, lines))
  return [lines[0], rule, *lines[1:]]
