"""Fixtures that the tests of studies share."""

import itertools
import re

import numpy as np
import pytest

from bitjax import cli
from bitjax import evidence
from bitjax.data import pictures

WIDTH, HEIGHT = 7.0, 9.0  # Inches: a page of a paper.
SMALLEST = 7  # Points.


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
def pairs_folder(tmp_path):
  """Three images to train on, and one to test on."""
  pytest.importorskip('PIL')
  draw = np.random.default_rng(0)
  home = tmp_path / 'data'
  for part, names in (('train', 'abc'), ('Set5', 'd')):
    (home / part).mkdir(parents=True)
    for name in names:
      image = draw.integers(0, 256, (24, 28, 3), np.uint8)
      pictures.write(home / part / f'{name}.png', image)
  return home


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


@pytest.fixture(scope='session')
def complaints():
  """Lists what keeps a figure from being printed as it is; see `_complaints`."""
  return _complaints


def _complaints(fig, *, identifiers=False):
  """Lists what a journal would not print, as far as a program can tell.

  Args:
    fig: the figure; it is laid out here.
    identifiers: whether it may name what the library calls something.
  """
  from matplotlib import text as text_lib

  fig.draw_without_rendering()
  found = []
  width, height = fig.get_size_inches()
  if width > WIDTH or height > HEIGHT:
    found.append(f'{width:g} x {height:g} inches do not fit a page')
  undrawn = _undrawn(fig)
  texts = [
    text
    for text in fig.findobj(text_lib.Text)
    if text.get_visible() and text.get_text().strip() and text not in undrawn
  ]
  for text in texts:
    words = text.get_text()
    if text.get_fontsize() < SMALLEST:
      found.append(f'{words!r} is smaller than {SMALLEST} points')
    if not identifiers and '_' in re.sub(r'\$[^$]*\$', '', words):
      found.append(f'{words!r} is the name of something in code')
  boxes = [text.get_window_extent().padded(-1.5) for text in texts]
  for text, box in zip(texts, boxes, strict=True):
    if not (
      fig.bbox.x0 <= box.x0 <= box.x1 <= fig.bbox.x1
      and fig.bbox.y0 <= box.y0 <= box.y1 <= fig.bbox.y1
    ):
      found.append(f'{text.get_text()!r} leaves the figure')
  for (one, a), (other, b) in itertools.combinations(
    zip(texts, boxes, strict=True), 2
  ):
    if a.overlaps(b):
      found.append(f'{one.get_text()!r} lies on {other.get_text()!r}')
  for ax in fig.axes:
    labelled = set(ax.get_xticklabels()) & set(texts)
    if ax.has_data() and labelled and not _has_xlabel(ax):
      found.append(f'an x axis has no label: {ax.get_title()!r}')
  return found


def _has_xlabel(ax):
  """Whether an x axis has a label: its own, the figure's, or that of its column."""
  parents = {ax.figure, ax.get_figure(root=True)}
  left = ax.get_window_extent().x0
  column = [
    other
    for other in ax.get_figure(root=True).axes
    if abs(other.get_window_extent().x0 - left) < 1
  ]
  return (
    ax.get_label() == '<colorbar>'
    or any(other.get_xlabel() for other in column)
    or any(parent.get_supxlabel() for parent in parents)
  )


def _undrawn(fig):
  """Returns the tick labels that matplotlib keeps but does not draw."""
  found = set()
  for ax in fig.axes:
    for axis in (ax.xaxis, ax.yaxis):
      drawn = axis._update_ticks() if ax.axison and ax.get_visible() else []
      for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
        if tick not in drawn:
          found |= {tick.label1, tick.label2}
  return found
