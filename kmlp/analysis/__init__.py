"""What a model costs and what it has learned."""

from kmlp.analysis.complexity import LayerProfile, Profile, profile

__all__ = ["LayerProfile", "Profile", "profile"]
