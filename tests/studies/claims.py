"""Records every interval that a study's verdicts rest on, and says what they cover.

Verdicts show less than was judged: of several arms, the best one. So the functions of
`contrasts` are watched, and every interval that they make is a claim of its own. A
*family* are claims whose intervals are to hold at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect

from bitjax.evidence import contrasts

# Kinds of intervals.
SINGLE, JOINT = 'single', 'simultaneous'
SHARE, BOUNDED = ', share', ', bounded'
VARIANCES, OTHER = 'variance ratio', 'resampled, exact or joined'


@dataclasses.dataclass(frozen=True)
class Claim:
  """An interval.

  Attributes:
    kind: how it was made.
    effect: the estimate; NaN where it is not defined.
    low: its lower end.
    high: its upper end.
    family: what it holds with at once, or None.
    inner: of an equivalence, the ends of its interval at 90 %.
  """

  kind: str
  effect: float
  low: float
  high: float
  family: object = None
  inner: tuple[float, float] | None = None

  def holds(self, value):
    slack = 1e-6 * abs(value)
    return self.low - slack <= value <= self.high + slack


def judged(judge, results):
  """Returns all claims of a study, by label."""
  claims = {}
  with _watched(claims):
    verdicts = list(judge(results))
  for verdict in verdicts:
    key = verdict.finding, verdict.claim, ''
    ends = verdict.low, verdict.high
    known = claims.get(key)
    arms = any(other[:2] == key[:2] for other in claims)
    if known is not None and ends != (known.low, known.high):
      # The study has put another interval in its place.
      claims[key] = Claim(OTHER, verdict.effect, *ends)
    elif not arms:
      claims[key] = Claim(OTHER, verdict.effect, *ends)
  return claims


@contextlib.contextmanager
def _watched(claims):
  """Adds to ``claims`` what functions of `contrasts` judge."""
  functions = {
    'difference': _alone,
    'equivalent': _alone,
    'variances': _alone,
    'any_arm': _arms,
    'family': _cells,
  }
  originals = {name: getattr(contrasts, name) for name in functions}

  def watch(name):
    original, record = originals[name], functions[name]
    signature = inspect.signature(original)

    def watched(*args, **kwargs):
      found = original(*args, **kwargs)
      given = signature.bind(*args, **kwargs).arguments
      claims.update(record(name, given, found))
      return found

    return watched

  try:
    for name in functions:
      setattr(contrasts, name, watch(name))
    yield
  finally:
    for name, original in originals.items():
      setattr(contrasts, name, original)


def _kind(kind, whole, bounds):
  if whole is not None:
    return kind + SHARE
  return kind + BOUNDED if bounds is not None else kind


def _alone(name, given, found):
  kind = _kind(SINGLE, given.get('whole'), given.get('bounds'))
  inner = None
  if name == 'variances':
    kind = VARIANCES
  elif name == 'equivalent':
    inner = found.details['low90'], found.details['high90']
  yield (
    (found.finding, found.claim, ''),
    Claim(kind, found.effect, found.low, found.high, inner=inner),
  )


def _arms(name, given, found):
  wholes, bounds = given.get('wholes'), given.get('bounds')
  kind = _kind(JOINT, wholes, bounds)
  for arm in given['arms']:
    ends = (found.details[f'{arm}{end}'] for end in ('', ' low', ' high'))
    key = found.finding, found.claim
    yield (*key, arm), Claim(kind, *ends, family=key)


def _cells(name, given, found):
  for cell, verdict in zip(given['cells'], found, strict=True):
    kind = _kind(JOINT, cell.whole, given.get('bounds'))
    yield (
      (verdict.finding, verdict.claim, ''),
      Claim(
        kind,
        verdict.effect,
        verdict.low,
        verdict.high,
        family=(found[0].finding, found[0].claim),
      ),
    )
