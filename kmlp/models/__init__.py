"""The five families, and their variants by name."""

from kmlp.models.convmlp import ConvMLP
from kmlp.models.msmlp import MSMLP
from kmlp.models.registry import create_model, list_models
from kmlp.models.repmlpnet import RepMLPNet
from kmlp.models.resmlp import ResMLP
from kmlp.models.smlpnet import SMLPNet

__all__ = [
    "MSMLP",
    "ConvMLP",
    "RepMLPNet",
    "ResMLP",
    "SMLPNet",
    "create_model",
    "list_models",
]
