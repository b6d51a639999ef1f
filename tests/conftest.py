"""Collects what the backend in use can run."""

import keras

# Keras' first backend in the environment or its configuration; export, callbacks
# and the training job need TensorFlow, everything else runs on any backend.
_NEEDS_TENSORFLOW = [
    "compression",
    "export",
    "jobs",
    "serving",
    "training",
    "test_callbacks.py",
]

collect_ignore = [] if keras.backend.backend() == "tensorflow" else _NEEDS_TENSORFLOW
