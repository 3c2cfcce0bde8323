"""The style sheet of the pages, and the frame around them."""

from __future__ import annotations

from collections.abc import Sequence
import html
import re

__all__ = ['code', 'figures', 'page', 'swatch', 'table']

_SHEET = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --ink: #1c2128; --soft: #57606a; --rule: #d0d7de;
  --panel: #f6f8fa; --grid: #d8dee4; --zero: #8c959f; --link: #0a58ca;
  --a: #0068a8; --b: #b3540e; --c: #00756a; --normal: #6e6e6e;
  --good: #0a6640; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161b; --ink: #e6e9ed; --soft: #a3acb7; --rule: #39424d;
    --panel: #1a2027; --grid: #333c46; --zero: #77828e; --link: #79b8ff;
    --a: #5ab4f5; --b: #f2a164; --c: #4fd1bd; --normal: #b0b5bb;
    --good: #6fd39b; --bad: #ff9d94;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 76rem;
  background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans',
    sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
p, ul { max-width: 46rem; margin: .4rem 0 .8rem; }
ul { padding-left: 1.3rem; }
a { color: var(--link); }
code { font: .92em ui-monospace, 'DejaVu Sans Mono', monospace; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.short { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px;
  padding: .7rem 1rem; margin: 1rem 0; }
.short ul { margin: 0; padding-left: 1.1rem; max-width: none; }
.figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0; max-width: 36rem; border: 1px solid var(--rule); border-radius: 8px;
  padding: .7rem .7rem .3rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, 'DejaVu Sans', sans-serif; }
svg .grid { stroke: var(--grid); stroke-width: .8; }
svg .zero { stroke: var(--zero); stroke-width: 1.4; }
svg .line { fill: none; stroke-width: 2; stroke: var(--ink); }
svg .thin { stroke-width: 1.1; }
svg .dot { stroke-width: 1.6; fill: var(--ground); }
svg .line.a, svg .dot.a { stroke: var(--a); } svg .dot.a { fill: var(--a); }
svg .line.b, svg .dot.b { stroke: var(--b); } svg .dot.b { fill: var(--b); }
svg .line.c, svg .dot.c { stroke: var(--c); } svg .dot.c { fill: var(--c); }
svg .line.normal, svg .dot.normal { stroke: var(--normal); }
svg .line.a-normal, svg .dot.a-normal { stroke: var(--a); }
svg .line.b-normal, svg .dot.b-normal { stroke: var(--b); }
svg .line.c-normal, svg .dot.c-normal { stroke: var(--c); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .4rem 0 .7rem;
  font-size: .92rem; }
.legend span { display: inline-flex; align-items: center; gap: .4rem; }
svg .dot.bare { display: none; }
.legend svg { width: 26px; height: 12px; flex: none; }
.scroll { overflow-x: auto; margin: .8rem 0; border: 1px solid var(--rule);
  border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .7rem; border-top: 1px solid var(--rule);
  vertical-align: top; }
thead th { border-top: 0; background: var(--panel); font-weight: 600;
  vertical-align: bottom; }
th[scope=row] { font-weight: 400; min-width: 9rem; }
th[scope=rowgroup] { background: var(--panel); font-weight: 600; }
.board th[scope=row] { position: sticky; left: 0; background: var(--ground);
  border-right: 1px solid var(--rule); }
.board thead th:first-child { position: sticky; left: 0; }
.board td { min-width: 7.5rem; }
@media (min-width: 60rem) { .board th[scope=row] { min-width: 13rem; } }
.facts { max-width: 46rem; }
td .ends { color: var(--soft); white-space: nowrap; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
details { margin: .8rem 0; } summary { cursor: pointer; }
@media (max-width: 40rem) {
  body { padding: .8rem .75rem 3rem; }
  h1 { font-size: 1.35rem; }
  th, td { padding: .3rem .6rem; }
  .board th[scope=row] { max-width: 9rem; min-width: 9rem; }
  .board code { font-size: .82em; }
  .stacked thead { position: absolute; left: -99rem; }
  .stacked table, .stacked tbody, .stacked tr, .stacked th, .stacked td { display: block; }
  .stacked th[scope=row] { padding-bottom: 0; font-weight: 600; }
  .stacked th[scope=rowgroup] { color: var(--soft); }
  .stacked td { border-top: 0; padding-top: 0; padding-bottom: .1rem; display: flex;
    justify-content: space-between; gap: 1rem; }
  .stacked td > span { text-align: right; }
  .stacked td::before { content: attr(data-label); color: var(--soft); }
}
"""


def page(title: str, body: Sequence[str]) -> str:
  """Returns a whole page; parts of the body are HTML already."""
  sheet = re.sub(r'\s*\n\s*', '\n', _SHEET.strip())
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{html.escape(title)}</title>\n<style>\n{sheet}\n</style>\n</head>\n'
    '<body>\n<main>\n' + '\n'.join(body) + '\n</main>\n</body>\n</html>\n'
  )


def code(text: str) -> str:
  """Returns a text as code."""
  return f'<code>{html.escape(text)}</code>'


def figures(drawn: Sequence[tuple[str, str]]) -> str:
  """Returns figures side by side, or below each other in a narrow window.

  Args:
    drawn: captions and drawings.
  """
  parts = [
    f'<figure><h3>{html.escape(caption)}</h3>{drawing}</figure>'
    for caption, drawing in drawn
  ]
  return f'<div class="figures">{"".join(parts)}</div>'


def swatch(kind: str, words: str, dash: str = '') -> str:
  """Returns an entry of a legend; words are HTML."""
  return (
    '<span><svg viewBox="0 0 26 12" aria-hidden="true">'
    f'<line class="line {kind}" stroke-dasharray="{dash}" x1="0" x2="26" y1="6" '
    f'y2="6"/><circle class="dot {kind}" cx="13" cy="6" r="3.6"/></svg>{words}</span>'
  )


def table(
  head: Sequence[str],
  rows: Sequence[Sequence[str]],
  *,
  kind: str = 'stacked',
  groups: Sequence[str] = (),
) -> str:
  """Returns a table; cells are HTML.

  Args:
    head: titles of the columns.
    rows: cells of each row.
    kind: ``'stacked'``: in a narrow window the cells of a row stand below each other;
      ``'board'``: the table scrolls by itself, its first column stays. More words are
      classes of the style sheet.
    groups: the heading under which each row stands; empty for none.
  """
  titles = ''.join(f'<th scope="col">{cell}</th>' for cell in head)
  lines, last = [], None
  for index, (first, *rest) in enumerate(rows):
    if groups and groups[index] != last:
      last = groups[index]
      lines.append(
        f'<tr><th scope="rowgroup" colspan="{len(head)}">{last}</th></tr>'
      )
    cells = ''.join(
      f'<td data-label="{title}"><span>{cell}</span></td>'
      for title, cell in zip(head[1:], rest, strict=True)
    )
    lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
  return (
    f'<div class="scroll {kind}" tabindex="0"><table><thead><tr>{titles}</tr></thead>'
    f'<tbody>{"".join(lines)}</tbody></table></div>'
  )
