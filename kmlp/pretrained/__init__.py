"""Models with weights: published ones, one's own, at the size and head one needs."""

from kmlp.pretrained.creation import create_model
from kmlp.pretrained.restoring import save_preset

__all__ = ["create_model", "save_preset"]
