"""What `complaints` finds in figures, which the smoke tests apply to every study."""

from matplotlib import figure
import pytest

from bitjax.evidence import plots


def plain(**form):
  fig = figure.Figure(figsize=form.pop('figsize', (3.25, 2)))
  ax = fig.subplots()
  ax.plot([0, 1], [0, 1])
  ax.set_xlabel(form.pop('label', 'loss (nats)'), **form)
  return fig, ax


@pytest.mark.parametrize(
  ('form', 'words'),
  [
    ({}, None),
    ({'figsize': (7.5, 2)}, 'do not fit a page'),
    ({'figsize': (3, 9.5)}, 'do not fit a page'),
    ({'fontsize': 6.5}, 'smaller than 7 points'),
    ({'label': 'log_loss'}, "'log_loss' is the name of something in code"),
    ({'label': '$L_1$ (nats)'}, None),
    ({'label': ''}, 'an x axis has no label'),
  ],
)
def test_what_no_journal_would_print(form, words, complaints):
  with plots.style():
    fig, _ = plain(**form)
    found = complaints(fig)
  assert len(found) == (words is not None)
  assert words is None or words in found[0]


@pytest.mark.parametrize(
  ('place', 'words'),
  [
    (((0.2, 0.5), (0.2, 0.5)), "'one' lies on 'two'"),
    (((0.9, 0.5), (2.0, 0.5)), "'two' leaves the figure"),
  ],
)
def test_words_that_cannot_be_read(place, words, complaints):
  with plots.style():
    fig, ax = plain()
    for text, (x, y) in zip(('one', 'two'), place, strict=True):
      ax.text(x, y, text, in_layout=False)
    assert complaints(fig) == [words]
