"""What the cards cannot tell: it stands on every page."""

from __future__ import annotations

import html

__all__ = ['CAVEATS', 'section']

CAVEATS = (
  'How good another network would be. The networks here are small MLPs (and, where the files '
  'of CIFAR-10 are given, a small ResNet): widths that suit them need not suit yours.',
  'Which estimator is best after its own settings are tuned. An estimator is measured at the '
  'settings in its name; only learning rates and numbers of flips are chosen, on seeds that '
  'are not tested.',
  'What annealing does to gradients in the middle of a training. Nearness, replication, '
  'variance, balls and speed are taken at progress 1; trainings go from 0 to 1.',
  'What the estimator does to weights. It is applied to activations; weights pass their '
  'gradient unchanged.',
  'Whether nearness is what matters. A gradient may be far from the exact gains and still '
  'train well: the trainings, not the correlations, say how well.',
  'How it compares where the trained state differs. The network that is called trained was '
  'trained by the normal STE for all estimators, so that they are compared at one point.',
  'Any claim from the many numbers together. Each interval holds for its own number at 95 %: of '
  'twenty that are truly 0, one lies apart from 0 by chance. The '
  'leaderboard’s column of differences alone holds for all its rows at once.',
  'Speed on another machine. Times are of this one, relative to the normal STE in the same '
  'process.',
)


def section() -> list[str]:
  """Returns the part of a page, as HTML."""
  items = ''.join(f'<li>{html.escape(text)}</li>' for text in CAVEATS)
  return ['<h2>What this cannot tell you</h2>', f'<ul>{items}</ul>']
