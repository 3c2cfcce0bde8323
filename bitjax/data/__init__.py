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
from bitjax.data.pairs import PAIR_SPLITS
from bitjax.data.pairs import Pair
from bitjax.data.pairs import Pairs
from bitjax.data.pairs import load_pairs
from bitjax.data.pairs import make_pairs
from bitjax.data.patches import padded_tiles
from bitjax.data.patches import patch_feeds
from bitjax.data.patches import patch_host_feed
from bitjax.data.patches import random_symmetry
from bitjax.data.reduced import reduced
from bitjax.data.resampling import EDGES
from bitjax.data.resampling import Edges
from bitjax.data.resampling import bicubic
from bitjax.data.resampling import bicubic_on_host

__all__ = [
  'AUGMENTATIONS',
  'AUGMENTS',
  'DATASETS',
  'DESCRIPTION',
  'EDGES',
  'PAIR_SPLITS',
  'SPLITS',
  'Augment',
  'Augmentation',
  'AugmentationName',
  'Batch',
  'Dataset',
  'Edges',
  'Feed',
  'Pair',
  'Pairs',
  'Source',
  'Statistics',
  'as_bytes',
  'bicubic',
  'bicubic_on_host',
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
  'load_pairs',
  'make_pairs',
  'mixup',
  'normalize',
  'padded_batches',
  'padded_tiles',
  'patch_feeds',
  'patch_host_feed',
  'random_crop',
  'random_flip',
  'random_symmetry',
  'read_images',
  'reduced',
  'remainder',
  'search_and_holdout',
  'smooth',
  'split_validation',
  'standard',
]
