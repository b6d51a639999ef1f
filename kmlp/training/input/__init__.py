"""The batches that a model trains on.

What reads files takes TensorFlow and is imported when it is used: images in memory
(`arrays`, `array_batches`) need none.
"""

from typing import Any

__all__ = ["load", "training_batches"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from kmlp.training.input.in_memory import load as found
    elif name == "training_batches":
        from kmlp.training.input.pipeline import training_batches as found
    else:
        raise AttributeError(f"module 'kmlp.training.input' has no attribute {name!r}")
    return found
