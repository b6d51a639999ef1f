"""The batches that a model trains on.

What reads files takes TensorFlow and is imported when it is used: images in memory
(`arrays`, `array_batches`) need none.
"""

from typing import Any

__all__ = ["load", "steps_per_epoch", "training_batches"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from kmlp.training.input.in_memory import load as found
    elif name == "steps_per_epoch":
        from kmlp.training.input.order import steps_per_epoch as found
    elif name == "training_batches":
        from kmlp.training.input.pipeline import training_batches as found
    else:
        raise AttributeError(f"module 'kmlp.training.input' has no attribute {name!r}")
    return found
