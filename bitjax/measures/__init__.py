"""Measures: how two gradients agree, how one varies, and how alike two images are."""

from bitjax.measures._gradients import Agreement
from bitjax.measures._gradients import Entering
from bitjax.measures._gradients import GradientStatistics
from bitjax.measures._gradients import Ranked
from bitjax.measures._gradients import SplitHalf
from bitjax.measures._gradients import agreement
from bitjax.measures._gradients import correlation
from bitjax.measures._gradients import entering
from bitjax.measures._gradients import gradient_statistics
from bitjax.measures._gradients import ranked
from bitjax.measures._gradients import ranks
from bitjax.measures._gradients import split_half
from bitjax.measures._images import CHANNELS
from bitjax.measures._images import Channels
from bitjax.measures._images import luma
from bitjax.measures._images import psnr
from bitjax.measures._images import squared_error
from bitjax.measures._images import ssim

__all__ = [
  'CHANNELS',
  'Agreement',
  'Channels',
  'Entering',
  'GradientStatistics',
  'Ranked',
  'SplitHalf',
  'agreement',
  'correlation',
  'entering',
  'gradient_statistics',
  'luma',
  'psnr',
  'ranked',
  'ranks',
  'split_half',
  'squared_error',
  'ssim',
]
