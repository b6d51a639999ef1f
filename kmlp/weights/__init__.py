"""Weights of published checkpoints: reading, naming, loading."""

from kmlp.weights.published import load_published
from kmlp.weights.readers import read_state

__all__ = ["load_published", "read_state"]
