"""kmlp: vision MLPs in Keras 3.

Five families (RepMLPNet, ResMLP, ConvMLP, MS-MLP, sMLPNet) with the hybrids and
ablations of their papers, exact merging of their training-time structure, and export
of what remains.
"""

import importlib

from kmlp.backend import settle_backend
from kmlp.quiet import quiet
from kmlp.version import __version__

settle_backend()
# Keras loads its backend now, and TensorFlow's libraries announce themselves.
with quiet():
    from kmlp import (
        analysis,
        detection,
        layers,
        models,
        pretrained,
        segmentation,
        weights,
    )
    from kmlp.analysis import profile
    from kmlp.merging import merge
    from kmlp.models import (
        MSMLP,
        ConvMLP,
        FocalTransformer,
        MSMLPHybrid,
        RepMLPNet,
        ResMLP,
        SMLPNet,
        SwinTransformer,
        list_ablations,
        list_models,
    )
    from kmlp.pretrained import create_model
    from kmlp.weights import list_weights, load_published, resize

# Imported on first use: TensorFlow stays out of what runs without it.
_LAZY = {
    name: f"kmlp.{name}"
    for name in (
        "callbacks",
        "compression",
        "export",
        "plots",
        "preprocessing",
        "serving",
    )
}

__all__ = [
    "MSMLP",
    "ConvMLP",
    "FocalTransformer",
    "MSMLPHybrid",
    "RepMLPNet",
    "ResMLP",
    "SMLPNet",
    "SwinTransformer",
    "__version__",
    "analysis",
    "create_model",
    "detection",
    "layers",
    "list_ablations",
    "list_models",
    "list_weights",
    "load_published",
    "merge",
    "models",
    "pretrained",
    "profile",
    "resize",
    "segmentation",
    "weights",
]


def __getattr__(name):
    if name in _LAZY:
        return importlib.import_module(_LAZY[name])
    raise AttributeError(f"module 'kmlp' has no attribute {name!r}")
