"""Reads, batches, augments and normalises data sets of images."""

from __future__ import annotations

from bitjax.data.arrays import as_bytes
from bitjax.data.augment import AUGMENTATIONS
from bitjax.data.augment import Augmentation
from bitjax.data.augment import AugmentationName
from bitjax.data.augment import chain
from bitjax.data.augment import random_crop
from bitjax.data.augment import random_flip
from bitjax.data.augment import standard
from bitjax.data.batches import AUGMENTS
from bitjax.data.batches import Augment
from bitjax.data.batches import Batch
from bitjax.data.batches import check_batch_size
from bitjax.data.batches import remainder
from bitjax.data.batches import search_and_holdout
from bitjax.data.blends import cutmix
from bitjax.data.blends import mixup
from bitjax.data.blends import smooth
from bitjax.data.datasets import DATASETS
from bitjax.data.datasets import DESCRIPTION
from bitjax.data.datasets import SPLITS
from bitjax.data.datasets import Dataset
from bitjax.data.datasets import check_name
from bitjax.data.datasets import from_arrays
from bitjax.data.datasets import load
from bitjax.data.evaluation import padded_batches
from bitjax.data.evaluation import split_validation
from bitjax.data.feeds import Feed
from bitjax.data.feeds import Source
from bitjax.data.feeds import device_feed
from bitjax.data.feeds import device_feeds
from bitjax.data.feeds import host_feed
from bitjax.data.images import read_images
from bitjax.data.normalization import Statistics
from bitjax.data.normalization import channel_statistics
from bitjax.data.normalization import normalize
from bitjax.data.reduced import reduced

__all__ = [
  'AUGMENTATIONS',
  'AUGMENTS',
  'DATASETS',
  'DESCRIPTION',
  'SPLITS',
  'Augment',
  'Augmentation',
  'AugmentationName',
  'Batch',
  'Dataset',
  'Feed',
  'Source',
  'Statistics',
  'as_bytes',
  'chain',
  'channel_statistics',
  'check_batch_size',
  'check_name',
  'cutmix',
  'device_feed',
  'device_feeds',
  'from_arrays',
  'host_feed',
  'load',
  'mixup',
  'normalize',
  'padded_batches',
  'random_crop',
  'random_flip',
  'read_images',
  'reduced',
  'remainder',
  'search_and_holdout',
  'smooth',
  'split_validation',
  'standard',
]
