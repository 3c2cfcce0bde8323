"""Fixtures that the tests of studies share."""

import numpy as np
import pytest

from bitjax import cli
from bitjax import evidence


@pytest.fixture
def refused(tmp_path, capsys):
  """Checks that flags end in one line and status 2, and that nothing is written."""

  def check(study, flags, words):
    out = tmp_path / 'run'
    assert cli.launch(study, [f'--out={out}', *flags]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0], lines
    assert not out.exists()

  return check


@pytest.fixture
def as_if_not_run():
  """Checks that verdicts treat seeds whose losses are NaN as if they had not run.

  Whatever else the table says about these seeds, it is not evidence; but the verdicts
  say that they were lost, and if all were, nothing is claimed.
  """

  def check(judge, results, losses, lost=(1, 4)):
    gone = results.seed.isin(list(lost))

    def masked(where):
      return results.assign({n: results[n].where(~where) for n in losses})

    found = list(judge(masked(gone)))
    wanted = list(judge(results.sel(seed=~gone)))
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
      assert (one.finding, one.verdict) == (other.finding, other.verdict)
      assert one.num_seeds == other.num_seeds
      for name in ('effect', 'low', 'high'):
        np.testing.assert_allclose(
          getattr(one, name), getattr(other, name), atol=1e-12, rtol=1e-6
        )
      assert f'{len(lost)} of {results.seed.size} samples' in one.caveat
    for one in judge(masked(gone | ~gone)):
      assert one.verdict == evidence.divergence.DIVERGED, one.finding
      assert one.num_seeds == 0

  return check
