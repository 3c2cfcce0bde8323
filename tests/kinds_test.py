"""What is no number is refused by name, wherever the library asks for one.

Signatures say which parameters are numbers. Each is given strings, arrays, bools and
other things, and raises `BadInput` that names it, unless the table says that the
documentation allows that. A new public function joins by itself, and is asked for a
row if it has parameters without defaults.
"""

import contextlib
import dataclasses
import importlib
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bitjax import data
from bitjax import nn
from bitjax import quantizers
from bitjax import scans
from bitjax import searches
from bitjax import training
from bitjax import transforms
from bitjax import types

KEY = jax.random.key(0)
SIGN = quantizers.sign()
BINARY = quantizers.attach(SIGN, quantizers.window())
VIEW = scans.LayerView(
  inputs=jnp.ones((2, 3)),
  kernel=jnp.ones((3, 2)),
  labels=jnp.zeros(2, jnp.int32),
  tail=(),
  quantizer=BINARY,
)
PLAIN = dataclasses.replace(VIEW, quantizer=None)
ADMM = transforms.admm(1.0, SIGN, optax.sgd(0.1))
BUDGET = types.Budget(1.0)
IMAGES = np.zeros((4, 2, 2, 1), np.uint8)
BATCH = {'images': jnp.ones((4, 2, 2, 1)), 'targets': jnp.ones((4, 3))}
DATASET = data.Dataset('d', 'train', IMAGES, np.zeros(4, np.int32), 3, 1.0)
MODEL = nn.MLP(hidden=(3,))
TASK = training.Task(MODEL, optax.sgd(0.1), 3, lambda x: x)
PAIRS = data.make_pairs({'a': np.zeros((4, 4, 3), np.uint8)}, 2)
WORDS = np.zeros((3, 3, 1, 2), np.uint16)
GAINS = scans.FlipGains(*np.ones((2, 3, 2)), 1.0, None, 2, 'sign')

# Values of the parameters that have no default.
GIVEN = {
  'quantizers': {
    'bits': 2,
    'estimator': quantizers.window(),
    'limit': 1.0,
    'margin': 0.25,
    'progress': 0.5,
    'quantize': BINARY,
    'scaling': quantizers.mean_abs(),
    'staircase': SIGN,
    'state': quantizers.initial_spread(jnp.ones(3)),
    'threshold': 0.5,
    'x': jnp.ones(3),
  },
  'transforms': {
    'every': 2,
    'key': KEY,
    'levels': SIGN,
    'max_flips': 3,
    'move': lambda key, params: -params,
    'params': jnp.ones(3),
    'progress': lambda count: 0.5,
    'radius': 0.5,
    'rho': 1.0,
    'rule': SIGN,
    'state': ADMM.init(jnp.ones(3)),
    'tx': optax.sgd(0.1),
    'value': 0.0,
    'x': jnp.ones(3),
  },
  'scans': {
    'budget': BUDGET,
    'destinations': jnp.ones((1, 3)),
    'leaf': 'w',
    'losses': lambda params: params['w'],
    'params': {'w': jnp.ones(3)},
    'direction': jnp.ones((3, 2)),
    'draws': 2,
    'flip_rate': 0.1,
    'gains': GAINS,
    'high': 1.0,
    'key': KEY,
    'labels': VIEW.labels,
    'inputs': VIEW.inputs,
    'learning_rates': jnp.ones(2),
    'low': 0.0,
    'make_view': lambda inputs, labels: VIEW,
    'max_flips': 2,
    'num_pairs': 2,
    'num_rounds': 2,
    'batch_size': 1,
    'sets': np.zeros((1, 2), np.int32),
    'size': 2,
    'stages': [scans.Dense(VIEW.kernel)],
    'view': VIEW,
  },
  'nn': {
    'features': 2,
    'inputs': 4,
    'outputs': 4,
    'kernel_size': 3,
    'scale': 2,
    'x': jnp.ones((1, 1, 4)),
    'model': MODEL,
    'variables': {},
    'images': IMAGES,
  },
  'training': {
    'every': 1,
    'key': KEY,
    'kind': 'cosine',
    'learning_rate': 0.1,
    'logits': jnp.ones((2, 3)),
    'mesh': None,
    'model': MODEL,
    'name': 'sgd',
    'num_classes': 3,
    'num_seeds': 1,
    'num_steps': 10,
    'peak': 0.1,
    'periods': 2,
    'prepare': lambda x: x,
    'task': TASK,
    'teacher_logits': jnp.ones((2, 3)),
    'tx': optax.sgd(0.1),
    'until': 5,
    'variables': {},
    'view': VIEW,
    'other': VIEW,
    'border': 0,
    'image': np.zeros((2, 2, 3), np.uint8),
    'enlarged': lambda image: image,
    'pairs': PAIRS,
    'estimator': quantizers.gaussian,
    'widths': (0.5, 1.0),
  },
  'data': {
    **BATCH,
    'alpha': 1.0,
    'batch_size': 1,
    'dataset': DATASET,
    'epsilon': 0.1,
    'key': KEY,
    'labels': np.zeros(4, np.int32),
    'mean': np.zeros(1),
    'names': ('crop', 'mixup'),
    'num_classes': 3,
    'num_examples': 8,
    'pairs': PAIRS,
    'scale': 1.0,
    'seed': 0,
    'seeds': (0,),
    'side': 1,
    'size': 1,
    'source': [(IMAGES[0], 0)] * 4,
    'split': 'train',
    'std': np.ones(1),
  },
  'descent': {
    'budget': BUDGET,
    'fraction': 0.5,
    'key': KEY,
    'num_steps': 1,
    'params': jnp.ones(3),
    'tx': optax.sgd(0.1),
    'value_and_grad': jax.value_and_grad(jnp.sum),
  },
  'packed': {
    'channels': 3,
    'features': 2,
    'flip': np.zeros(2, bool),
    'fn': lambda sums: sums,
    'high': 3,
    'images': np.ones((2, 4, 4, 3)),
    'kernel': np.ones((3, 3, 3, 2)),
    'length': 3,
    'low': -3,
    'signs': np.ones(3),
    'sums': np.ones((1, 2), np.int32),
    'w': WORDS[0, 0],
    'window': (2, 2),
    'words': WORDS[0, 0, 0],
    'x': WORDS[0, 0],
  },
  'searches': {
    'inputs': np.ones((2, 3)),
    'kernel': VIEW.kernel,
    'key': KEY,
    'labels': np.zeros(2, np.int32),
    'num_children': 2,
    'num_classes': 2,
    'num_generations': 1,
    'num_parents': 2,
    'num_steps': 1,
    'number': 1,
    'temperature': 0.1,
    'view': VIEW,
  },
  'measures': {'a': np.ones(3), 'b': np.ones(3), 'gradient': np.ones(3)}
  | {'gradients': np.ones((2, 3))}
  | dict.fromkeys(('images', 'truth'), np.zeros((12, 12, 3))),
}
# Where another choice of arguments is needed for a number to be read.
ALSO = {
  'channel_statistics': {'images': IMAGES},
  'check_batch_size': {'batch_size': 1},
  'from_arrays': {
    'train_images': IMAGES + np.arange(4, dtype=np.uint8)[:, None, None, None],
    'train_labels': np.arange(4) % 2,
    'test_images': IMAGES + np.arange(4, dtype=np.uint8)[:, None, None, None],
    'test_labels': np.arange(4) % 2,
  },
  'Pairs': {'name': 'd', 'names': ('a',), 'sizes': ((2, 2),), 'read': None}
  | {'scale': 2},
  'load_pairs': {'source': 'photographs'},
  'make_pairs': {'images': {'a': np.zeros((4, 4, 3), np.uint8)}},
  'Dataset': {'images': IMAGES, 'name': 'd'},
  'progress': {'kind': 'linear'},
  'search_and_holdout': {'images': IMAGES},
  'moves': {'view': PLAIN},
  'anneal': {'state': searches.annealing_start(VIEW, KEY)},
  'evolve': {'state': searches.genetic_start(VIEW, KEY, 2)},
  'conv': {'x': WORDS, 'w': WORDS},
  'conv_nhwc': {'x': np.ones((2, 4, 4, 3))},
  'map_images': {'x': WORDS},
  'matmul': {'x': WORDS[0, 0, :, 0]},
  'matmul_bytes': {'x': np.ones((2, 3), np.uint8)},
  'threshold': {'low': np.zeros(2, np.int32)},
  'unpack_images': {'words': WORDS},
  'central_difference': {'view': PLAIN, 'step': 0.5},
  'prefix_scan': {'step': None},
  'learning_rate.milestones': {'kind': 'step'},
  'learning_rate.factor': {'kind': 'step'},
  'coordinate_discrete_gradient.step': {'view': PLAIN, 'key': KEY},
  'discrete_gradient.step': {'view': PLAIN},
  'exhaustive.step': {'view': PLAIN},
  'flip_gains.step': {'view': PLAIN},
  'multi_step_discrete_gradient.step': {'view': PLAIN},
  'pair_gains.step': {'view': PLAIN},
  'standard.cutmix_alpha': {'names': ('cutmix',)},
  'ternary.factor': {'threshold': 'mean_abs'},
}
# Tuples of numbers, of which one is bad; see `wrapped`.
SEVERAL = {'hidden', 'milestones', 'prefixes', 'seeds', 'stages', 'widths'}
# (function, parameter): which of the bad values the documentation allows.
ALLOWED = {
  'admm_lagrangian.value': {'NaN'},
  'ewgs.delta': {'array'},
  'hysteretic_uniform.step': {'array'},
  'uniform.step': {'array'},
  'shifted_sign.threshold': {'array'},
  'standard.fill': {'array'},
  'random_crop.fill': {'array'},
}
# Results, records, and functions whose numbers other tests check.
LEFT = {
  # Results and stages: made by the library, with arrays in place of numbers.
  *('Activation', 'Affine', 'Annealed', 'BatchNorm (scans)', 'FlipGains'),
  *('FlipDescent', 'GradientPassing', 'LayerPassing', 'LayerSummary', 'Feed'),
  *('Network', 'Plan', 'PlannedScan', 'Sample', 'EnergyBand', 'LayerEnergy'),
  *('SmoothedGains', 'FlipWalk'),
  'Quantizer',
  # Made from names and files: bad numbers are refused where they are read.
  *(
    'outcome',
    'fit',
    'load_variables',
    'create',
    'pack_network',
    'evaluator',
    'layout',
    'named',
  ),
}
BAD = {
  'string': 'x',
  'None': None,
  'object': object(),
  'array': np.ones(3, np.float32),
  'NaN': float('nan'),
  'bool': True,
  'complex': 1j,
  'key': KEY,
}
NUMBER = re.compile(r'\b(int|float|Scalar|ScalarOrSchedule|_Sizes)\b')


def numbers():
  """Returns (function's name, function, parameter, annotation) of every number."""
  for module in GIVEN:
    namespace = importlib.import_module(f'bitjax.{module}')
    for name in namespace.__all__:
      subject = getattr(namespace, name)
      if not (inspect.isfunction(subject) or dataclasses.is_dataclass(subject)):
        continue
      if name in LEFT or f'{name} ({module})' in LEFT:
        continue
      for parameter in inspect.signature(subject).parameters.values():
        annotation = str(parameter.annotation)
        annotation = re.sub(r'(Callable|Mapping)\[.*\]', '', annotation)
        if NUMBER.search(annotation):
          yield module, name, subject, parameter.name, annotation


NUMBERS = {f'{n[1]}.{n[3]}': n for n in numbers()}


def made(module, name, subject, parameter, value):
  also = ALSO.get(name, {}) | ALSO.get(f'{name}.{parameter}', {})
  arguments = {
    p.name: GIVEN[module][p.name]
    for p in inspect.signature(subject).parameters.values()
    if p.name in GIVEN[module] and p.default is p.empty
  }
  arguments |= also | {parameter: value}
  with contextlib.ExitStack() as stack:
    found = subject(**arguments)
    if hasattr(found, '__exit__'):
      stack.enter_context(found)


@pytest.mark.parametrize('number', NUMBERS)
def test_what_is_no_number_is_refused_by_name(number):
  module, name, subject, parameter, annotation = NUMBERS[number]
  for kind, bad in BAD.items():
    if kind in ALLOWED.get(number, ()):
      continue
    if kind == 'None' and 'None' in annotation:
      continue
    value = (bad,) if parameter in SEVERAL else bad
    try:
      made(module, name, subject, parameter, value)
    except types.BadInput as error:
      assert re.search(rf'\b{parameter.removesuffix("s")}s?\b', str(error)), (
        kind,
        error,
      )
      assert '\n' not in str(error)
    else:
      raise AssertionError(f'{number} took {bad!r}')


def test_the_table_knows_the_public_surface():
  assert len(NUMBERS) > 100
  names = {number.split('.')[0] for number in NUMBERS}
  assert {
    'window',
    'bop',
    'flip_gains',
    'ResNet',
    'optimizer',
    'mixup',
  } <= names
