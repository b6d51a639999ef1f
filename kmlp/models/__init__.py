"""The families, their variants and the ablations of their papers, by name."""

from kmlp.models.ablations import list_ablations
from kmlp.models.convmlp import ConvMLP
from kmlp.models.focal import FocalTransformer
from kmlp.models.hybrid import MSMLPHybrid
from kmlp.models.msmlp import MSMLP
from kmlp.models.registry import create_model, list_models
from kmlp.models.repmlpnet import RepMLPNet
from kmlp.models.resmlp import ResMLP
from kmlp.models.smlpnet import SMLPNet
from kmlp.models.swin import SwinTransformer

__all__ = [
    "MSMLP",
    "ConvMLP",
    "FocalTransformer",
    "MSMLPHybrid",
    "RepMLPNet",
    "ResMLP",
    "SMLPNet",
    "SwinTransformer",
    "create_model",
    "list_ablations",
    "list_models",
]
