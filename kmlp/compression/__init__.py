"""Pruning, weight clustering and quantisation-aware training.

All three are tensorflow-model-optimization's (the extra `optimize`) and meant for
merged models: what a network computes with is the equivalent kernel, and that of a
local branch beside an FC kernel fills in what was pruned or clustered in either.
TensorFlow only.
"""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "kmlp.compression needs Keras on TensorFlow: `pip install tensorflow` and set "
        "KERAS_BACKEND=tensorflow before Keras is imported; a model saved as .keras "
        f"loads there. Received: backend={keras.backend.backend()!r}"
    )

from kmlp.compression.clustering import Clustering
from kmlp.compression.pruning import Pruning
from kmlp.compression.quantization import QuantizationAware
from kmlp.compression.twin import Twin, twin

__all__ = ["Clustering", "Pruning", "QuantizationAware", "Twin", "twin"]
