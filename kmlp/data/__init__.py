"""Images by name or folder, and the batches that a model is tested on."""

from kmlp.data.batches import evaluation_batches
from kmlp.data.images import Source, Split
from kmlp.data.labelled import open_evaluation
from kmlp.data.opening import open_source
from kmlp.data.reading import reason

__all__ = [
    "Source",
    "Split",
    "evaluation_batches",
    "open_evaluation",
    "open_source",
    "reason",
]
