"""What a model costs and what it has learned."""

from kmlp.analysis import (
    features,
    injection,
    locality,
    saliency,
    sparsity,
    spatial,
)
from kmlp.analysis.complexity import LayerProfile, Profile, profile
from kmlp.analysis.stages import StageProfile

__all__ = [
    "LayerProfile",
    "Profile",
    "StageProfile",
    "features",
    "injection",
    "locality",
    "profile",
    "saliency",
    "sparsity",
    "spatial",
]
