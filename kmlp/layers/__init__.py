"""Building blocks of the families; `keras.ops` only, any backend."""

import sys

from kmlp.layers import conv_norm, head, patch_mixing, perceptrons
from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.conv_norm import ConvMixing, ConvNorm, NormDepthwiseConv
from kmlp.layers.convolution_free import DenseConv, ShiftedPooling
from kmlp.layers.feature_pyramid import FeaturePyramid
from kmlp.layers.focal_attention import FocalAttention
from kmlp.layers.focal_windows import WindowPooling
from kmlp.layers.head import ClassifierHead, ClassMixing, ClassMLP
from kmlp.layers.initializers import FanInUniform
from kmlp.layers.layer import drop_path, drop_path_rates
from kmlp.layers.mix_shift import MixShift
from kmlp.layers.norms import Affine, BatchNorm, L2Norm, NormActivation
from kmlp.layers.patch_embed import PatchEmbed, PatchMerging, PositionEncoding
from kmlp.layers.patch_mixing import CrossPatch, MixingMLP, PositionLinear
from kmlp.layers.perceptrons import GlobalPerceptron, LocalBranch, SetSharingLinear
from kmlp.layers.sparse_mlp import SparseMLP
from kmlp.layers.window_attention import WindowAttention

__all__ = [
    "Affine",
    "BatchNorm",
    "ChannelMLP",
    "ClassMLP",
    "ClassMixing",
    "ClassifierHead",
    "ConvMixing",
    "ConvNorm",
    "CrossPatch",
    "DenseConv",
    "FanInUniform",
    "FeaturePyramid",
    "FocalAttention",
    "GlobalPerceptron",
    "L2Norm",
    "LocalBranch",
    "MixShift",
    "MixingMLP",
    "NormActivation",
    "NormDepthwiseConv",
    "PatchEmbed",
    "PatchMerging",
    "PositionEncoding",
    "PositionLinear",
    "SetSharingLinear",
    "ShiftedPooling",
    "SparseMLP",
    "WindowAttention",
    "WindowPooling",
    "drop_path",
    "drop_path_rates",
]

# Saved models name the module of each layer; these held some of them before.
for _old, _module in {
    "class_mlp": head,
    "conv_mixing": conv_norm,
    "cross_patch": patch_mixing,
    "mixing_mlp": patch_mixing,
    "set_sharing": perceptrons,
}.items():
    sys.modules[f"{__name__}.{_old}"] = _module
