"""Quantized layers and networks in flax.linen, and tools to inspect each layer."""

from bitjax.nn._calls import call_options
from bitjax.nn._complete import complete
from bitjax.nn._conv import QuantConv
from bitjax.nn._deploy import deploy
from bitjax.nn._energy import Energy
from bitjax.nn._energy import EnergyBand
from bitjax.nn._energy import EnergyTable
from bitjax.nn._energy import LayerEnergy
from bitjax.nn._energy import energy
from bitjax.nn._finn import MatrixVectorUnit
from bitjax.nn._inits import INITS
from bitjax.nn._layers import BatchNorm
from bitjax.nn._layers import QuantDense
from bitjax.nn._mlp import MLP
from bitjax.nn._mlp import binary_mlp
from bitjax.nn._mlp import binary_weights_mlp
from bitjax.nn._mlp import full_precision_mlp
from bitjax.nn._passing import GradientPassing
from bitjax.nn._passing import LayerPassing
from bitjax.nn._passing import gradient_passing
from bitjax.nn._progress import plain_convolutions
from bitjax.nn._progress import training_progress
from bitjax.nn._quant_mlp import QuantMLP
from bitjax.nn._ranges import InputRanges
from bitjax.nn._ranges import input_ranges
from bitjax.nn._resnet import RESNET_VARIANTS
from bitjax.nn._resnet import ResNet
from bitjax.nn._resnet import resnet18
from bitjax.nn._resnet import resnet20
from bitjax.nn._resnet import resnet32
from bitjax.nn._silence import SilentLayerWarning
from bitjax.nn._silence import init_quietly
from bitjax.nn._silence import warn_silent
from bitjax.nn._summary import LayerSummary
from bitjax.nn._summary import Summary
from bitjax.nn._summary import summary
from bitjax.nn._superres import SR_BASES
from bitjax.nn._superres import SR_SHORTCUTS
from bitjax.nn._superres import SR_UPSAMPLERS
from bitjax.nn._superres import SuperResolution
from bitjax.nn._superres import edsr_baseline
from bitjax.nn._superres import light_sr
from bitjax.nn._superres import pixel_shuffle
from bitjax.nn._superres import srresnet
from bitjax.nn._vgg import VGG
from bitjax.nn._vgg import vgg_small
from bitjax.nn._views import layer_view
from bitjax.nn._views import network_view

__all__ = [
  'INITS',
  'MLP',
  'RESNET_VARIANTS',
  'SR_BASES',
  'SR_SHORTCUTS',
  'SR_UPSAMPLERS',
  'VGG',
  'BatchNorm',
  'Energy',
  'EnergyBand',
  'EnergyTable',
  'GradientPassing',
  'InputRanges',
  'LayerEnergy',
  'LayerPassing',
  'LayerSummary',
  'MatrixVectorUnit',
  'QuantConv',
  'QuantDense',
  'QuantMLP',
  'ResNet',
  'SilentLayerWarning',
  'Summary',
  'SuperResolution',
  'binary_mlp',
  'binary_weights_mlp',
  'call_options',
  'complete',
  'deploy',
  'edsr_baseline',
  'energy',
  'full_precision_mlp',
  'gradient_passing',
  'init_quietly',
  'input_ranges',
  'layer_view',
  'light_sr',
  'network_view',
  'pixel_shuffle',
  'plain_convolutions',
  'resnet18',
  'resnet20',
  'resnet32',
  'srresnet',
  'summary',
  'training_progress',
  'vgg_small',
  'warn_silent',
]
