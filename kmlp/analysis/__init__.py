"""Find what a model costs and what it has learned."""

from kmlp.analysis import features, injection, saliency, sparsity, spatial
from kmlp.analysis.complexity import LayerProfile, Profile, StageProfile, profile

__all__ = [
    "LayerProfile",
    "Profile",
    "StageProfile",
    "features",
    "injection",
    "profile",
    "saliency",
    "sparsity",
    "spatial",
]
