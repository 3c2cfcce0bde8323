"""Verdicts: what they refuse, how they are stored, how they read."""

import json
import math

import numpy as np
import pytest

from bitjax import evidence
from bitjax.evidence import verdicts


def _verdict(**changed):
  options = {
    'finding': 'N9a',
    'claim': 'Noise finds better points.',
    'verdict': 'supported',
    'effect': np.float32(0.5),
    'low': 0.25,
    'high': math.inf,
    'unit': 'nats',
    'num_seeds': 8,
    'protocol': 'oracle',
  }
  return evidence.Verdict(**(options | changed))


def test_verdicts_survive_json():
  verdict = _verdict(details={'draws': np.int64(3), 'ratio': math.nan})
  text = json.dumps(verdict.to_json(), allow_nan=False)
  again = evidence.Verdict.from_json(json.loads(text))
  assert (again.effect, again.high) == (0.5, math.inf)
  assert again.details['draws'] == 3 and math.isnan(again.details['ratio'])


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'verdict': 'true'}, 'must be one of supported, contradicted'),
    ({'low': 1.0, 'high': 0.0}, 'low must be <= high'),
    ({'finding': ''}, 'needs the label'),
    ({'claim': ''}, 'needs the label'),
    ({'num_seeds': -1}, 'num_seeds must be >= 0'),
  ],
)
def test_bad_verdicts(changed, message):
  with pytest.raises(ValueError, match=message):
    _verdict(**changed)


def test_verdicts_read_well():
  text = verdicts.text(
    [
      _verdict(num_seeds=1),
      _verdict(
        finding='N10',
        primary=True,
        caveat='words ' * 30,
        details={'margin': 0.125},
      ),
    ],
    width=60,
  )
  lines = text.splitlines()
  assert lines[0] == 'N10  SUPPORTED'  # The primary contrast comes first.
  assert '     effect 0.5 nats, 95 % [0.25, inf]; 8 seeds; oracle;' in lines
  assert '     margin = 0.125' in lines
  assert 'N9a  SUPPORTED' in lines
  assert lines[-1].endswith('1 seed; oracle; exploratory.') or (
    lines[-1].strip() == 'exploratory.'
  )
  assert max(map(len, lines)) <= 60
  assert verdicts.text([]) == ''


@pytest.mark.parametrize('length', [30, 59, 90])
def test_a_long_name_leaves_room_for_its_claim(length):
  finding = 'f' * length
  verdict = _verdict(finding=finding)
  name, *rest = verdicts.text([verdict], width=60).splitlines()
  assert name.split()[0] == finding
  shown = ' '.join([*name.split()[1:], *(line.strip() for line in rest)])
  assert shown.startswith(f'{verdict.verdict.upper()} {verdict.claim}'[:60])
  assert all(len(line) <= 60 for line in rest) and len(rest) < 12
