"""Flags of the study of variants: what is refused, and one state alone."""

import json

import pytest

from bitjax import cli
from bitjax.studies import variant_ste

pytestmark = pytest.mark.study


@pytest.mark.parametrize(
  ('flag', 'words'),
  [
    ('--states=trained', 'states must list initialised'),
    ('--states=initialised,initialised', 'states lists initialised twice'),
    ('--half_widths=0.25', 'half_widths must list 0.5'),
    ('--families=identity', "families 'window on activations'"),
    ('--relative_widths=0', 'relative_widths must be > 0'),
    ('--thresholds=0.5,0.5', 'thresholds lists 0.5 twice'),
    ('--num_groups=3', 'num_groups must divide the batch size, 64'),
  ],
)
def test_bad_input(refused, flag, words):
  refused(variant_ste.STUDY, ['--preset=smoke', flag], words)


def test_one_state_is_judged_and_drawn(tmp_path, capsys):
  flags = [
    '--preset=smoke',
    '--states=initialised',
    '--families=window on activations,identity',
    f'--out={tmp_path}',
    '--nocompilation_cache',
  ]
  assert cli.launch(variant_ste.STUDY, flags) == 0, capsys.readouterr().err
  assert (tmp_path / 'figure.png').stat().st_size
  verdicts = json.loads((tmp_path / 'verdicts.json').read_text())
  assert sum(verdict['primary'] for verdict in verdicts) == 1
