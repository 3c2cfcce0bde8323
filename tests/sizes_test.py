"""Sizes by kind of device: what they may change, and what they may not."""

import dataclasses
import re

import jax
import pytest

from bitjax import sizes
from bitjax import types


def test_they_are_those_of_the_default_device(monkeypatch):
  assert sizes.here() == sizes.of('cpu')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert sizes.here() == sizes.of('gpu') != sizes.of('cpu')


def test_a_device_that_is_not_known_counts_as_a_gpu():
  assert sizes.of('metal') == sizes.of('gpu')


def test_each_size_says_what_it_counts():
  doc = sizes.Sizes.__doc__
  for field in dataclasses.fields(sizes.Sizes):
    line = re.search(rf'^ *{field.name}: (.+)$', doc, re.MULTILINE)
    assert line and len(line[1].split()) > 3, field.name


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'kinks': 0}, 'kinks must be an integer >= 1; got 0'),
    ({'updates': 2.5}, 'updates must be'),
    ({'seeds': 'pmap'}, 'seeds must be'),
  ],
)
def test_what_cannot_be_a_size(change, message):
  with pytest.raises(types.BadInput, match=message):
    dataclasses.replace(sizes.of('cpu'), **change)


def test_groups_fill_the_blocks_of_examples():
  """Blocks are rounded up to whole groups, which should cost nothing."""
  for kind in ('cpu', 'gpu', 'tpu'):
    size = sizes.of(kind)
    assert size.sign_examples % size.sign_group == 0
    assert size.sums_examples % size.sign_group == 0
    assert size.rank_one_examples % size.rank_one_group == 0
