"""Weights of published checkpoints: reading, naming, loading.

Their names take no Keras; what loads them is imported when it is used.
"""

from typing import Any

from kmlp.weights.catalogue import list_weights, published_weights

__all__ = [
    "list_weights",
    "load_published",
    "published_weights",
    "read_state",
    "recognise",
    "resize",
]


def __getattr__(name: str) -> Any:
    found: Any
    if name == "load_published":
        from kmlp.weights.strict_loading import load_published as found
    elif name == "read_state":
        from kmlp.weights.checkpoint_forms import read_state as found
    elif name == "recognise":
        from kmlp.weights.recognition import recognise as found
    elif name == "resize":
        from kmlp.weights.grid_resizing import resize as found
    else:
        raise AttributeError(f"module 'kmlp.weights' has no attribute {name!r}")
    return found
