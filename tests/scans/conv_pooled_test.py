"""Gains of a convolution before pooling and a classifier, against a float64 loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitjax import quantizers
from bitjax import scans
from bitjax import types
from tests.scans import conv_oracle

pytestmark = pytest.mark.optimised  # Arithmetic, to the last bit.

CLASSES = 4


def network(
  inputs='signs',
  examples=3,
  front='residual',
  logits=1.0,
  size=(5, 4),
  dense=True,
  **kwargs,
):
  """A network whose products are small integers, or reals."""
  rng = np.random.default_rng(0)
  out = 4
  x, kernel, after = conv_oracle.draw(
    rng, inputs, examples, size, out, **kwargs
  )
  value = rng.normal(size=(examples, *after, out))
  fronts = {
    'residual': [
      ('affine', rng.normal(size=out) / 4, rng.normal(size=out)),
      ('add', value),
      ('hardtanh',),
    ],
    'relu': [('affine', 0.25, rng.normal(size=out)), ('relu',)],
    'sign': [('affine', 0.5, 1.0), ('sign',), ('affine', -0.5, 0.0)],
    'branches': [
      (
        'residual',
        [('affine', 0.25, 0.0), ('hardtanh',)],
        [('affine', 0.1, 0.0)],
      )
    ],
  }
  tail = [
    *fronts[front],
    ('mean',),
    ('affine', rng.normal(size=out), 0.5),
    (
      'dense',
      logits * rng.normal(size=(out, CLASSES)),
      rng.normal(size=CLASSES),
    ),
    ('affine', 1.5, 0.0),
  ]
  if not dense:  # The channels are the classes.
    del tail[-2]
  labels = rng.integers(0, CLASSES, examples)
  return conv_oracle.Network(x, kernel, labels, tail, **kwargs)


CONV = (np.ones((3, 3, 4, 4)), 1, (1, 1), conv_oracle.SAME)
CASES = {
  'bireal': {},
  'one image': {'examples': 1},
  'no classifier': {'dense': False},
  'strides and groups': {'strides': (2, 2), 'groups': 2},
  'ternary': {'weights': 'ternary', 'pad_value': 1.0},
  'two bits': {'weights': 'two bits'},
  'ties before a sign': {'front': 'sign', 'pad_value': -1.0},
  'padded by a half': {'pad_value': 0.5},
  'large logits': {'logits': 30.0, 'examples': 7},
  'large and small logits': {'logits': 2.0, 'examples': 7},
  'reals': {'inputs': 'reals'},
  'a step': {'inputs': 'reals', 'weights': 'real', 'front': 'relu'},
  'a step on signs': {'weights': 'real', 'front': 'relu'},
  'ternary on reals': {
    'inputs': 'reals',
    'weights': 'ternary',
    'groups': 2,
    'strides': (2, 1),
    'front': 'branches',
  },
}
SLOW = {
  *(
    'one image',
    'padded by a half',
    'ternary',
    'two bits',
    'reals',
    'large and small logits',
    'no classifier',
  ),
  *('a step on signs', 'ternary on reals'),
}


@pytest.mark.parametrize(
  'case',
  [
    pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else [])
    for case in CASES
  ],
)
def test_gains_are_those_of_a_float64_loop(case):
  net = network(**CASES[case])
  step = 0.25 if net.weights == 'real' else None
  found = scans.flip_gains(net.view(), step=step, chunk=2)
  assert found.path == 'pooled'
  decreases = net.decreases(step)
  if net.weights == 'sign':
    decreases = decreases[0]
  quantized = np.asarray(
    net.kernel
    if net.weights == 'real'
    else net.view().quantizer(net.view().kernel)
  )
  loss = net.losses(np.asarray(quantized, float)).mean()
  np.testing.assert_allclose(found.loss, loss, rtol=1e-6)
  atol = 1e-6 * loss
  np.testing.assert_allclose(
    found.gains, decreases.mean(axis=-1), rtol=2e-5, atol=atol
  )
  np.testing.assert_allclose(
    found.second_moments, (decreases**2).mean(axis=-1), rtol=1e-4, atol=atol
  )
  assert np.abs(decreases).max() > 1e3 * atol


@pytest.mark.slow
def test_reports():
  view, shares = network().view(), []
  told = scans.flip_gains(view, chunk=2, report=shares.append)
  assert shares[-1] == 1 and shares == sorted(shares) and len(shares) > 1
  np.testing.assert_array_equal(
    told.gains, scans.flip_gains(view, chunk=2).gains
  )


def test_coordinates_are_picked():
  view = network().view()
  every = scans.flip_gains(view, chunk=2)
  some = jnp.array([5, 0, 71])
  picked = scans.flip_gains(view, chunk=2, coordinates=some)
  assert picked.path == 'pooled'
  np.testing.assert_array_equal(
    picked.gains, every.gains.reshape(-1)[np.asarray(some)]
  )
  assert every.near_ties is None


def test_what_does_not_apply_says_why():
  net = network()
  view = net.view()
  hidden = dataclasses.replace(net, tail=[('conv', *CONV), *net.tail]).view()
  two = dataclasses.replace(
    net, tail=[*net.tail, ('dense', np.eye(CLASSES), np.zeros(CLASSES))]
  ).view()
  norm = scans.BatchNorm(jnp.ones(4), jnp.zeros(4))
  scaled = dataclasses.replace(view, scaling=quantizers.mean_abs())
  for other, match in [
    (hidden, 'other stages before the mean.*Use one of tail, brute_force'),
    (two, 'behind the mean over positions'),
    (dataclasses.replace(view, tail=(norm, *view.tail)), 'batch statistics'),
    (dataclasses.replace(view, tail=(scans.Opaque(abs),)), 'opaque'),
    (scaled, 'freeze_scale'),
    (dataclasses.replace(view, product=jnp.add), 'not a known convolution'),
  ]:
    with pytest.raises(types.BadInput, match=match):
      scans.flip_gains(other, path='pooled')
  assert (
    scans.plan(scaled.freeze_scale(), timed=False).scans[1].path == 'pooled'
  )
  broken = dataclasses.replace(view, inputs=view.inputs.at[0].set(jnp.nan))
  with pytest.raises(types.BadInput, match='loss must be finite'):
    scans.flip_gains(broken, chunk=2)
  gains = jax.jit(lambda view: scans.flip_gains(view, chunk=2).gains)(broken)
  assert np.isnan(gains).all()


def test_a_plan_tells_inputs_that_are_no_signs():
  def passes(**kwargs):
    view = network(**kwargs).view()
    (found,) = (
      scan
      for scan in scans.plan(view, timed=False).scans
      if scan.question == 'flip_gains'
    )
    assert found.path == 'pooled'
    return found.passes

  assert passes() == 9
  assert passes(inputs='reals') == 38
  assert passes(weights='ternary') == 12
  assert passes(inputs='reals', weights='ternary') == 2 * 38
