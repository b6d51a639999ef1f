"""Weights of published checkpoints: reading, naming, loading."""

from kmlp.weights.catalogue import list_weights, published_weights
from kmlp.weights.grid_resizing import resize
from kmlp.weights.readers import read_state
from kmlp.weights.recognition import recognise
from kmlp.weights.strict_loading import load_published

__all__ = [
    "list_weights",
    "load_published",
    "published_weights",
    "read_state",
    "recognise",
    "resize",
]
