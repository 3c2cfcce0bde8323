"""Verdicts: what a study concludes about its claims, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
import shutil
import textwrap
from typing import Any

from bitjax.evidence import divergence

__all__ = ['VERDICTS', 'Verdict', 'text']

VERDICTS = (
  'supported',
  'contradicted',
  'inconclusive',
  'equivalent',
  divergence.DIVERGED,
  'inert',
)


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A judged claim.

  Attributes:
    finding: label of the finding, such as ``'N9a'``.
    claim: the claim in one sentence.
    verdict: ``'supported'``, ``'contradicted'``, ``'inconclusive'``, ``'equivalent'``
      (if there is an effect, it is smaller than what counts),
      ``'inconclusive: diverged'`` (too few samples are left), or ``'inert'``: what
      was varied had no effect at all on anything.
    effect: the estimated effect.
    low: lower end of its 95 % interval, or of what its assumptions allow if there are no
      seeds; ``-inf`` if unknown.
    high: upper end; ``inf`` if unknown.
    unit: unit of the effect.
    num_seeds: number of independent seeds (clusters) behind the estimate; 0 for what is
      counted, not estimated.
    protocol: how it was measured ('oracle', 'deployable', ...).
    primary: whether it is the study's one primary contrast; all other verdicts
      are exploratory.
    caveat: what could overturn the verdict.
    details: name -> further number.

  Raises:
    ValueError: for an unknown verdict, ``low > high``, an empty finding or claim,
      or a negative number of seeds.
  """

  finding: str
  claim: str
  verdict: str
  effect: float
  low: float
  high: float
  unit: str
  num_seeds: int
  protocol: str
  primary: bool = False
  caveat: str = ''
  details: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.verdict not in VERDICTS:
      raise ValueError(
        f'verdict must be one of {", ".join(VERDICTS)}; got {self.verdict!r}.'
      )
    if not self.finding or not self.claim:
      raise ValueError('a verdict needs the label of a finding and a claim.')
    for name in ('effect', 'low', 'high'):
      object.__setattr__(self, name, float(getattr(self, name)))
    if self.low > self.high:
      raise ValueError(f'low must be <= high; got {self.low} > {self.high}.')
    object.__setattr__(self, 'num_seeds', int(self.num_seeds))
    if self.num_seeds < 0:
      raise ValueError(f'num_seeds must be >= 0; got {self.num_seeds}.')
    details = {str(name): float(v) for name, v in self.details.items()}
    object.__setattr__(self, 'details', details)

  def to_json(self) -> dict[str, Any]:
    """Returns a dictionary for strict JSON: infinities are strings, NaN is None."""
    entry = dataclasses.asdict(self)
    for name in ('effect', 'low', 'high'):
      entry[name] = _number(entry[name])
    entry['details'] = {k: _number(v) for k, v in self.details.items()}
    return entry

  @classmethod
  def from_json(cls, entry: Mapping[str, Any]) -> Verdict:
    """Returns the verdict that `to_json` encoded."""
    entry = dict(entry)
    for name in ('effect', 'low', 'high'):
      entry[name] = _decoded(entry[name])
    entry['details'] = {k: _decoded(v) for k, v in entry['details'].items()}
    return cls(**entry)


def text(verdicts: Sequence[Verdict], width: int | None = None) -> str:
  """Returns the verdicts as readable text, primary ones first.

  Args:
    verdicts: verdicts of one study.
    width: number of columns; None for the terminal's, within 50 to 100.
  """
  if width is None:
    width = max(50, min(100, shutil.get_terminal_size().columns))
  ordered = sorted(verdicts, key=lambda verdict: not verdict.primary)
  longest = max((len(verdict.finding) for verdict in ordered), default=0)
  indent = min(2 + longest, width // 3)  # Long names reach beyond it.
  return '\n'.join(_block(verdict, width, indent) for verdict in ordered)


def _block(verdict: Verdict, width: int, indent: int) -> str:
  rank = 'primary' if verdict.primary else 'exploratory'
  effect = f'{verdict.effect:.3g} {verdict.unit}'.rstrip()
  interval = f'[{verdict.low:.3g}, {verdict.high:.3g}]'
  seeds = f'{verdict.num_seeds} seed{"s" if verdict.num_seeds != 1 else ""}'
  facts = [f'effect {effect}, 95 % {interval}', seeds, verdict.protocol, rank]
  if not verdict.num_seeds:
    facts[:2] = [f'effect {effect}, within {interval}']
  name, word = f'{verdict.finding:<{indent - 2}}', verdict.verdict.upper()
  fits = len(name) + 2 + len(word) <= width
  lines = [f'{name}  {word}'] if fits else [name, ' ' * indent + word]
  paragraphs = [verdict.claim, '; '.join(fact for fact in facts if fact) + '.']
  if verdict.details:
    shown = (f'{name} = {v:.3g}' for name, v in verdict.details.items())
    paragraphs.append(', '.join(shown))
  if verdict.caveat:
    paragraphs.append(f'Caveat: {verdict.caveat}')
  for paragraph in paragraphs:
    lines.extend(
      textwrap.wrap(
        paragraph,
        width,
        initial_indent=' ' * indent,
        subsequent_indent=' ' * indent,
        break_on_hyphens=False,
      )
    )
  return '\n'.join(lines)


def _number(value: float) -> float | str | None:
  if math.isnan(value):
    return None
  return value if math.isfinite(value) else str(value)


def _decoded(value: float | str | None) -> float:
  return math.nan if value is None else float(value)
