"""How often two one-sided tests accept an effect that lies on the margin, by simulation."""

import math

import numpy as np
import pytest

from bitjax.evidence import contrasts

MARGIN = 1.0


def normal(rng, shape):
  return rng.standard_normal(shape)


def skewed(rng, shape):
  """Gamma noise of skewness 1.4, centred, of variance 1."""
  return (rng.gamma(2.0, size=shape) - 2) / math.sqrt(2)


def mean(rng, num, effect, noise):
  return {'samples': effect + 0.4 * noise(rng, num)}


def share(rng, num, effect, noise):
  """Of a whole that is itself known to a tenth only, with four seeds."""
  whole = 5 + noise(rng, num)
  return {'samples': effect * whole + 2 * noise(rng, num), 'whole': whole}


def crossed(rng, num, effect, noise, examples=60):
  parts = noise(rng, (num, 1)), noise(rng, (1, examples))
  both = noise(rng, (num, examples))
  cells = effect + 0.3 * parts[0] + 0.5 * parts[1] + both
  return {'samples': cells, 'crossed': True}


def accepted(draw, num, effect, noise, trials):
  """Returns the share of trials in which the equivalence is accepted."""
  rng = np.random.default_rng(num)

  def verdict():
    drawn = draw(rng, num, effect, noise)
    return contrasts.equivalent(
      'A', 'a.', margin=MARGIN, unit='', protocol='', **drawn
    ).verdict

  return np.mean([verdict() == 'supported' for _ in range(trials)])


@pytest.mark.parametrize('draw', [mean, share, crossed])
@pytest.mark.parametrize('end', [-MARGIN, MARGIN])
def test_size(draw, end):
  """It is 5 %, here within three standard errors."""
  assert 0.021 <= accepted(draw, 12, end, normal, 500) <= 0.079


@pytest.mark.parametrize('draw', [mean, share, crossed])
def test_power(draw):
  """What does not differ at all is accepted, and what differs twice as much is not."""
  assert accepted(draw, 30, 0.0, normal, 20) == 1
  assert accepted(draw, 30, 2 * MARGIN, normal, 20) == 0


@pytest.mark.slow
@pytest.mark.parametrize('draw', [mean, share, crossed])
@pytest.mark.parametrize('num', [4, 7, 19, 48])
@pytest.mark.parametrize('end', [-MARGIN, MARGIN])
def test_size_for_many_sizes(draw, num, end):
  """It is 5 %, here within four standard errors."""
  assert 0.03 <= accepted(draw, num, end, normal, 2000) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize('draw', [mean, share, crossed])
@pytest.mark.parametrize(('num', 'most'), [(4, 0.16), (12, 0.13), (30, 0.11)])
def test_size_of_skewed_noise(draw, num, most):
  """One test rejects too often and the other too seldom, as Student's t does.

  Of the mean of n samples whose skewness is g, it exceeds 5 % by about 0.11 g / sqrt(n).
  """
  sizes = [accepted(draw, num, e, skewed, 2000) for e in (-MARGIN, MARGIN)]
  print(draw.__name__, num, sizes)
  assert min(sizes) <= 0.05 and max(sizes) <= most
