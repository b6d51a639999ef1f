"""Building blocks of the families; `keras.ops` only, any backend."""

from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.class_mlp import ClassMixing, ClassMLP
from kmlp.layers.conv_mixing import ConvMixing
from kmlp.layers.conv_norm import ConvNorm, NormDepthwiseConv
from kmlp.layers.cross_patch import CrossPatch
from kmlp.layers.feature_pyramid import FeaturePyramid
from kmlp.layers.focal_attention import FocalAttention
from kmlp.layers.focal_windows import WindowPooling
from kmlp.layers.head import ClassifierHead
from kmlp.layers.layer import drop_path, drop_path_rates
from kmlp.layers.mix_shift import MixShift
from kmlp.layers.mixing_mlp import MixingMLP, PositionLinear
from kmlp.layers.norms import Affine, BatchNorm, L2Norm, NormActivation
from kmlp.layers.patch_embed import PatchEmbed, PatchMerging, PositionEncoding
from kmlp.layers.perceptrons import GlobalPerceptron, LocalBranch
from kmlp.layers.set_sharing import SetSharingLinear
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
    "SparseMLP",
    "WindowAttention",
    "WindowPooling",
    "drop_path",
    "drop_path_rates",
]
