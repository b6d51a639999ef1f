"""Images by name or folder, and the batches that a model is tested on."""

import importlib

# Imported on first use: `kmlp.data.dense` needs no TensorFlow.
_PLACES = {
    "Source": "images",
    "Split": "images",
    "evaluation_batches": "reading",
    "open_evaluation": "sources",
    "open_source": "sources",
    "reason": "reading",
}

__all__ = [
    "Source",
    "Split",
    "evaluation_batches",
    "open_evaluation",
    "open_source",
    "reason",
]


def __getattr__(name):
    if name in _PLACES:
        module = importlib.import_module(f"kmlp.data.{_PLACES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'kmlp.data' has no attribute {name!r}")
