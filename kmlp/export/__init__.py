"""Export: artifacts for servers, devices and other runtimes, and their audit.

TensorFlow from here on; everything below runs without it.
"""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "kmlp.export needs Keras on TensorFlow: `pip install tensorflow` and set "
        "KERAS_BACKEND=tensorflow before Keras is imported; a model saved as .keras "
        f"loads there. Received: backend={keras.backend.backend()!r}"
    )

from kmlp.artifacts.operation_audit import audit
from kmlp.export.runtimes import onnx, openvino
from kmlp.export.saved_model import saved_model
from kmlp.export.tflite import tflite

__all__ = ["audit", "onnx", "openvino", "saved_model", "tflite"]
