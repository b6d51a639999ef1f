"""Building blocks of the five families; `keras.ops` only, any backend."""

from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.conv_norm import ConvNorm, NormDepthwiseConv
from kmlp.layers.cross_patch import CrossPatch
from kmlp.layers.drop_path import drop_path, drop_path_rates
from kmlp.layers.feature_pyramid import FeaturePyramid
from kmlp.layers.global_perceptron import GlobalPerceptron
from kmlp.layers.head import ClassifierHead
from kmlp.layers.local_branch import LocalBranch
from kmlp.layers.mix_shift import MixShift
from kmlp.layers.norms import Affine, BatchNorm, NormActivation
from kmlp.layers.patch_embed import PatchEmbed
from kmlp.layers.set_sharing import SetSharingLinear
from kmlp.layers.sparse_mlp import SparseMLP

__all__ = [
    "Affine",
    "BatchNorm",
    "ChannelMLP",
    "ClassifierHead",
    "ConvNorm",
    "CrossPatch",
    "FeaturePyramid",
    "GlobalPerceptron",
    "LocalBranch",
    "MixShift",
    "NormActivation",
    "NormDepthwiseConv",
    "PatchEmbed",
    "SetSharingLinear",
    "SparseMLP",
    "drop_path",
    "drop_path_rates",
]
