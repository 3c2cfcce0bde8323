"""The studies, each of which answers one question in code of its own.

A study is a package or a module `bitjax.studies.<name>` that names its `cli.Study`
``STUDY``. `toy` and `recipes` are packages that several studies share. Importing this
package imports none of them.
"""

from __future__ import annotations

import ast
import importlib
import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from bitjax.cli import Study

__all__ = ['NAMES', 'load', 'question']

NAMES = (
  'multistep_ste',
  'variant_ste',
  'discrete_gradient',
  'smoothed_gradient',
  'discrete_optimum',
  'discrete_optimisers',
  'local_optima',
  'train_cifar',
  'dsq',
  'pretrain_vs_scratch',
  'bits_vs_width',
  'fitted_windows',
  'hardware',
  'super_resolution',
  'train_superres',
  'initialisation',
  'resnet_windows',
  'estimator_gallery',
  'benchmark',
  'scaling',
)


def load(name: str) -> Study[Any]:
  """Imports a study and returns its ``STUDY``; ``name`` is one of `NAMES`."""
  return importlib.import_module(f'bitjax.studies.{name}').STUDY


def question(name: str) -> str:
  """Returns the first line of a study's docstring, without importing the study."""
  path = pathlib.Path(__file__).parent / name
  file = path / 'study.py' if path.is_dir() else path.with_suffix('.py')
  source = ast.parse(file.read_text(encoding='utf-8'))
  return (ast.get_docstring(source) or '').partition('\n')[0]
