"""Flags: what is valid, what is not, and how that is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bitjax import cli
from bitjax import types
from bitjax.cli import command
from bitjax.cli import costs
from bitjax.cli import flags
from bitjax.cli import kinds


def study(config, presets=None):
  """A study that has flags and presets only."""
  return cli.Study('study', 'What?', config, presets or {}, *[None] * 3)


@pytest.mark.parametrize(
  'spec, values',
  [
    ('0.01, 0.02', [0.01, 0.02]),
    ('3', [3.0]),
    ('lin:0:1:3', [0.0, 0.5, 1.0]),
    ('log:1e-2:1:3', [0.01, 0.1, 1.0]),
    ('', []),
  ],
)
def test_grid_values(spec, values):
  np.testing.assert_allclose(cli.Grid(spec).values, values, rtol=1e-12)


def test_grid_hits_its_ends_and_is_a_value():
  grid = cli.Grid('log:1e-5:1e-1:200')
  assert (grid.values[0], grid.values[-1], len(grid)) == (1e-5, 1e-1, 200)
  assert grid == cli.Grid(' log:1e-5:1e-1:200')
  assert hash(grid) == hash(cli.Grid('log:1e-5:1e-1:200'))
  assert len(cli.Grid('lin:1e-5:1e-1:10000')) == 10000


@pytest.mark.parametrize(
  'spec',
  [
    'a,b',
    '1,,2',
    '1,1',
    'nan',
    'inf',
    'log:0:1:3',
    'log:-1:1:3',
    'log:1:0.1:3',
    'lin:0:1',
    'lin:0:1:1',
    'lin:0:1:1e3',
    'lin:0:1:99999999999',
    'geo:1:2:3',
    'lin:nan:1:3',
    3.0,
  ],
)
def test_bad_grids(spec):
  with pytest.raises(types.BadInput):
    cli.Grid(spec)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'num_steps': 0}, 'num_steps must be >= 1; got 0.'),
    ({'num_steps': 1.5}, 'num_steps must be an integer; got 1.5.'),
    ({'num_steps': True}, 'num_steps must be an integer; got True.'),
    ({'budget': -0.1}, 'budget must be >= 0; got -0.1.'),
    ({'budget': float('nan')}, 'budget must be finite; got nan.'),
    ({'budget': float('inf')}, 'budget must be finite; got inf.'),
    ({'budget': '0.1'}, "budget must be a number; got '0.1'."),
    ({'noise': (0.0, 1.5)}, 'noise must be <= 1; got 1.5.'),
    ({'noise': (float('nan'),)}, 'noise must be finite; got nan.'),
    ({'seeds': ()}, 'seeds needs at least one value.'),
    ({'seeds': [0]}, 'seeds must be a tuple of integers; got [0].'),
    (
      {'networks': ('ternary',)},
      "networks must be one of binary, full_precision; got 'ternary'.",
    ),
    (
      {'learning_rates': cli.Grid('0,1')},
      'learning_rates must be > 0; got 0.0.',
    ),
    (
      {'learning_rates': cli.Grid('')},
      'learning_rates needs at least one value.',
    ),
    ({'split': ''}, 'split must not be empty.'),
  ],
)
def test_python_gets_value_errors(sample, fields, message):
  with pytest.raises(types.BadInput) as caught:
    sample.Config(**fields)
  assert str(caught.value) == message


def test_numpy_numbers_are_numbers(sample):
  config = sample.Config(num_steps=np.int64(2), budget=np.float32(0.5))
  encoded = flags.encode(config)
  assert type(encoded['num_steps']) is int
  assert type(encoded['budget']) is float


def test_unique_lists():
  @dataclasses.dataclass(frozen=True)
  class Config:
    seeds: tuple[int, ...] = cli.flag((0,), '', unique=True)

  with pytest.raises(types.BadInput, match='seeds lists 3 twice'):
    command.parse(study(Config), ['--seeds=1,3,2:4'])


def test_defaults_then_preset_then_flags(sample):
  def resolve(*argv):
    return command.parse(sample.STUDY, argv)

  plain = resolve()
  assert plain.preset == 'quick'
  assert plain.config == sample.Config()
  smoke = resolve('--preset=smoke')
  assert smoke.config.seeds == (0,)
  assert smoke.config.learning_rates == cli.Grid('0.01,0.1')
  # Given explicitly, the default itself overrides the preset.
  given = resolve('--preset', 'smoke', '--seeds=0,1,2')
  assert given.config.seeds == (0, 1, 2)
  assert given.config.learning_rates == cli.Grid('0.01,0.1')
  assert study(sample.Config, {'a': {}, 'b': {}}).default_preset == 'a'
  assert command.parse(study(sample.Config), []).preset is None


def test_every_type_of_flag(sample):
  request = command.parse(
    sample.STUDY,
    [
      '--num_steps=7',
      '--budget=1e-2',
      '--networks=full_precision,binary',
      '--seeds=0:3, 10, 20:22',
      '--noise',
      '0.25',
      '--learning_rates=lin:1:2:3',
      '--split=test',
      '--literal',
      '--out=somewhere',
      '--overwrite',
      '--chunk=3',
      '--width=2',
    ],
  )
  assert request.config == sample.Config(
    num_steps=7,
    budget=0.01,
    networks=('full_precision', 'binary'),
    seeds=(0, 1, 2, 10, 20, 21),
    noise=(0.25,),
    learning_rates=cli.Grid('lin:1:2:3'),
    split='test',
    literal=True,
  )
  assert (request.out, request.overwrite) == ('somewhere', True)
  assert (request.chunk, request.width) == (3, 2)
  assert request.compilation_cache
  off = command.parse(
    sample.STUDY, ['--noliteral', '--split=none', '--nocompilation_cache']
  )
  assert (off.config.literal, off.config.split) == (False, None)
  assert not off.compilation_cache


def test_what_is_shown_can_be_typed(sample):
  for field in flags.fields(sample.Config):
    shown = field.kind.show(field.default)
    assert field.kind.parse(shown) == field.default
  ints = kinds.kind_of(tuple[int, ...])
  assert ints.show((0, 1, 2, 3, 7, 8, 5)) == '0:4,7,8,5'


BAD = {
  '--num_steps=abc': "flag --num_steps=abc: 'abc' is not an integer",
  '--num_steps=0': 'num_steps must be >= 1; got 0.',
  '--num_steps': 'Missing value for flag --num_steps',
  '--budget=-1': 'budget must be >= 0; got -1.0.',
  '--budget=nan': 'budget must be finite; got nan.',
  '--budget=': "flag --budget=: '' is not a number",
  '--noise=0.1,,0.2': "the list '0.1,,0.2' has an empty entry",
  '--noise=-0.5': 'noise must be >= 0; got -0.5.',
  '--seeds=': 'seeds needs at least one value.',
  '--seeds=3:3': "the range '3:3' is empty",
  '--seeds=0:99999999999': 'is longer than 1000000',
  '--networks=ternary': 'must be one of binary, full_precision',
  '--learning_rates=log:0:1:3': 'LOW must be > 0',
  '--learning_rates=0': 'learning_rates must be > 0; got 0.0.',
  '--literal=maybe': (
    "flag --literal=maybe: 'maybe' is neither true nor false"
  ),
  '--noliteral=1': 'does not take an argument',
  '--bugdet=1': 'unknown flag --bugdet; did you mean --budget?',
  '--xyzzy=1': 'unknown flag --xyzzy; --help lists the flags.',
  '--undefok=xyzzy': 'unknown flag --undefok',
  '--flagfile=/nowhere': '/nowhere',
  '--preset=huge': (
    "unknown preset 'huge'; valid presets: smoke, quick, many."
  ),
  '--chunk=0': 'chunk must be >= 1; got 0.',
  '--width=-3': 'width must be >= 1; got -3.',
  '--out=': 'out must not be empty.',
  '--mesh=lanes:\u00b2': "mesh is 'auto', 'lanes:N'",
  '--mesh=lanes:9999999999': 'N and M from 1 to 999999999',
  '--num_processes=0': 'num_processes must be >= 1; got 0.',
  '--chunk=2147483648': 'chunk must be <= 2147483647; got 2147483648.',
  '--num_steps=\u0663': 'is not an integer',
  '--num_steps=1_000': "'1_000' is not an integer",
  '--budget=1_0': "'1_0' is not a number",
  '--budget=1e400': 'budget must be finite; got inf.',
  '--budget=1e39': 'budget must be at most 3.4e+38 in size, to be finite in',
  '--budget=1e-39': 'budget must be 0 or at least 1.2e-38 in size, as smaller',
  '--out=/proc/none/x': '/proc/none',
  '--out=/dev/null/x': '/dev/null',
  '--seeds=0,0': "lane axis 'seed' lists 0 twice.",
  '--seeds=99999999999': 'seeds must be <= 2147483647; got 99999999999.',
  '--batch_size=1000': 'a batch of 1000 needs 100 examples; use fewer.',
  'quick': "unexpected argument 'quick'; flags are written --name=value.",
}


@pytest.mark.parametrize('argument', BAD)
def test_bad_input_is_one_line_and_writes_nothing(
  launch, argument, capsys, tmp_path
):
  assert launch(argument) == 2
  out, err = capsys.readouterr()
  assert out == ''
  assert err.count('\n') == 1 and err.endswith('\n')
  assert err.startswith('sample_study: ')
  assert BAD[argument] in err
  assert list(tmp_path.iterdir()) == []


def test_bad_input_as_a_process(start, tmp_path):
  process = start('--budget=-1')
  out, err = process.communicate(timeout=60)
  assert (process.returncode, out) == (2, '')
  assert err == 'sample_study: budget must be >= 0; got -1.0.\n'
  assert list(tmp_path.iterdir()) == []


def test_presets_set_fields_only(launch, capsys):
  assert launch(presets={'quick': {'seed': 1}}) == 2
  assert "preset 'quick' sets 'seed', which is not a field" in (
    capsys.readouterr().err
  )


def test_errors_in_a_traced_function_say_where(launch, capsys, tmp_path):
  def run(config, sweep):
    def fn(seed):
      raise types.BadInput('no such thing')

    return sweep(fn, name='a', lanes={'seed': config.seeds})

  assert launch(run=run) == 2
  err = capsys.readouterr().err
  assert err.count('\n') == 1
  assert "no such thing (sweep 'a', flags_test.py:" in err
  assert list(tmp_path.iterdir()) == []


def test_errors_of_the_program_keep_their_traceback(launch):
  def run(config, sweep):
    raise KeyError('oops')

  with pytest.raises(KeyError, match='oops'):
    launch(run=run)
  with pytest.raises(ValueError, match='oops'):
    launch('--preset=smoke', verdicts=lambda _: _raise(ValueError('oops')))


@pytest.mark.parametrize('traced', [False, True])
def test_a_value_error_of_a_run_is_a_defect(launch, traced):
  """Unlike bad input, it passes through, from the line that raised it."""

  def run(config, sweep):
    if not traced:
      raise ValueError('a defect')
    defect = lambda seed: {'a': _raise(ValueError('a defect'))}
    return sweep(defect, name='a', lanes={'seed': config.seeds})

  with pytest.raises(ValueError, match='a defect') as caught:
    launch('--preset=smoke', run=run)
  assert type(caught.value) is ValueError
  assert {'run', '_raise'} & {entry.name for entry in caught.traceback}


def _raise(error):
  raise error


@pytest.mark.parametrize('annotation', [dict, tuple[bool, ...], 'list[int]'])
def test_types_without_a_flag_are_refused(annotation):
  config = dataclasses.make_dataclass(
    'Config', [('field', annotation, dataclasses.field(default=None))]
  )
  with pytest.raises(TypeError, match=r'Config\.field has type'):
    flags.fields(config)


def test_fields_need_defaults_and_free_names():
  @dataclasses.dataclass(frozen=True)
  class Bare:
    seed: int

  @dataclasses.dataclass(frozen=True)
  class Taken:
    chunk: int = 3

  with pytest.raises(TypeError, match=r'Config\.seed needs a default'):
    flags.fields(Bare)
  with pytest.raises(TypeError, match=r'Config\.chunk is the name of a shared'):
    command.parse(study(Taken), [])


def test_exclusive_limits():
  @dataclasses.dataclass(frozen=True)
  class Config:
    share: float = cli.flag(
      0.5, 'A share.', exclusive_minimum=0, exclusive_maximum=1
    )

    def __post_init__(self):
      cli.check(self)

  assert Config(0.999999).share < 1
  for share, sign in ((0.0, '> 0'), (1.0, '< 1')):
    with pytest.raises(types.BadInput, match=f'share must be {sign}'):
      Config(share)


def test_numbers_are_checked_as_arrays_hold_them():
  @dataclasses.dataclass(frozen=True)
  class Config:
    share: float = cli.flag(0.5, '', exclusive_maximum=1)
    noise: tuple[float, ...] = cli.flag((0.0,), '', unique=True, longest=3)
    rates: cli.Grid = cli.flag(cli.Grid('1'), '')
    count: int = cli.flag(1, '')
    size: float | None = cli.flag(None, '')

    def __post_init__(self):
      cli.check(self)

  edge = float(np.nextafter(np.float32(1), np.float32(0)))
  assert Config(share=edge).share == edge
  assert Config(share=-0.0, count=-(2**31)).count == -(2**31)
  assert Config(size=float(np.finfo(np.float32).tiny)).size
  for value in (1 - 1e-12, 1 - 2e-8):
    with pytest.raises(types.BadInput, match='be < 1, also in float32; got'):
      Config(share=value)
  for fields, words in (
    ({'noise': (0.1, 0.100000000001)}, 'noise lists 0.100000000001 twice'),
    ({'noise': (0.0, -0.0)}, 'noise lists -0.0 twice'),
    ({'noise': (1.0, 2.0, 3.0, 4.0)}, 'noise takes at most 3 values; got 4'),
    ({'rates': cli.Grid('1,1.00000001')}, 'rates lists 1.00000001 twice'),
    ({'rates': cli.Grid('1,1e39')}, 'rates must be at most 3.4e'),
    ({'count': 2**31}, 'count must be <= 2147483647; got 2147483648'),
    ({'count': -(10**5000)}, 'got an integer of 16610 bits'),
    ({'share': 10**400}, 'share must be at most 3.4e'),
    ({'size': 1e-300}, 'size must be 0 or at least 1.2e-38'),
  ):
    with pytest.raises(types.BadInput) as caught:
      Config(**fields)
    assert words in str(caught.value) and len(str(caught.value)) < 130


def test_zero_has_no_sign_and_lists_an_end():
  numbers, integers = (
    kinds.kind_of(tuple[float, ...]),
    kinds.kind_of(tuple[int, ...]),
  )
  (zero,) = numbers.parse('-0')
  assert str(zero) == '0.0'
  many = ','.join(f'{k}000000:{k + 1}000000' for k in range(2))
  with pytest.raises(types.BadInput, match='the list is longer than 1000000'):
    integers.parse(many)


def test_a_run_that_cannot_fit_names_the_flag_that_helps(monkeypatch, capsys):
  @dataclasses.dataclass(frozen=True)
  class Config:
    seeds: tuple[int, ...] = cli.flag((0,), '')
    units: int = cli.flag(100, '')
    name: str = cli.flag('a', '')

    def cost(self):
      seeds = len(self.seeds)
      return cli.Cost(seeds, 10 * seeds, seeds * self.units**2)

  monkeypatch.setattr(costs, 'available', lambda: 2**20)
  cli.admit(Config(), Config.cost)
  assert capsys.readouterr().err == ''
  for config, words in (
    (Config(units=3000), 'units is too large: the run holds at least 34.3 MiB'),
    (Config(seeds=tuple(range(300))), 'seeds is too large: the run holds'),
    # With the default of either flag it would still be large, but less so.
    (Config(tuple(range(300)), 4000), 'units is too large'),
  ):
    with pytest.raises(types.BadInput) as caught:
      cli.admit(config, Config.cost)
    assert words in str(caught.value)
    assert 'this machine has 1 MiB' in str(caught.value)
  cli.admit(Config(tuple(range(20_000)), 1), Config.cost)
  assert capsys.readouterr().err == (
    'a large run: 20000 lanes and 200000 updates in all, with at least 391 KiB '
    'of memory\n'
  )


def test_the_memory_of_the_machine():
  assert costs.available() > 2**28
