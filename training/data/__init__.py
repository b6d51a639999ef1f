"""Images by name or folder, and the batches that a model trains on."""

from training.data.images import Source, Split
from training.data.loading import load
from training.data.opening import open_source
from training.data.pipeline import (
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from training.data.reading import reason

__all__ = [
    "Source",
    "Split",
    "evaluation_batches",
    "load",
    "open_source",
    "reason",
    "steps_per_epoch",
    "training_batches",
]
