"""Images in, batches out: data sets from files, and disjoint batch pairs."""

from __future__ import annotations

from bitjax.data.batches import AUGMENTS
from bitjax.data.batches import Augment
from bitjax.data.batches import Batch
from bitjax.data.batches import check_batch_size
from bitjax.data.batches import remainder
from bitjax.data.batches import search_and_holdout
from bitjax.data.datasets import DATASETS
from bitjax.data.datasets import SPLITS
from bitjax.data.datasets import Dataset
from bitjax.data.datasets import load

__all__ = [
  'AUGMENTS',
  'DATASETS',
  'SPLITS',
  'Augment',
  'Batch',
  'Dataset',
  'check_batch_size',
  'load',
  'remainder',
  'search_and_holdout',
]
