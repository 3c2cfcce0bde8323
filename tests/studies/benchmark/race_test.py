"""Contestants of the benchmark take turns."""

import pytest

from bitjax.studies.benchmark import race


def test_contestants_take_turns_and_the_first_does_not_count(monkeypatch):
  now, order = [0.0], []
  spends = {'quick': [9.0, 1.0, 1.0, 4.0], 'slow': [9.0, 2.0, 3.0, 2.0]}
  monkeypatch.setattr(race.time, 'perf_counter', lambda: now[0])

  def contestant(name):
    def run():
      order.append(name)
      now[0] += spends[name].pop(0)

    return run

  found = race.race({name: contestant(name) for name in spends}, turns=3)
  assert order == ['quick', 'slow'] * 4
  assert found == {'quick': 1.0, 'slow': 2.0}


@pytest.mark.slow
def test_the_flops_are_those_of_the_network():
  view, first, rest = race.problem(4, (3, 5), 'binary', 'Dense_1')
  assert view.kernel.shape == (3, 5) and view.inputs.shape[0] == 4
  assert (first, rest) == (4 * 2 * 784 * 3, 4 * 2 * (3 * 5 + 5 * 10))
