"""Import tensorflow-model-optimization, and keep it from changing what Keras is."""

import os
from typing import Any

import tensorflow as tf

from kmlp.console import quiet

_SWITCH = "TF_USE_LEGACY_KERAS"


def import_tfmot() -> Any:
    """Return the package `tensorflow_model_optimization`.

    Importing it sets TF_USE_LEGACY_KERAS, which turns `tf.keras` into Keras 2 where
    nobody has used it yet, here and in every process started later. Here `tf.keras`
    is settled before, and the environment restored behind it.

    Raises:
        ImportError: If the package, or `tf_keras` that it works on, is missing.
    """
    set_before = os.environ.get(_SWITCH)
    _ = tf.keras.layers  # settled by being looked into
    try:
        with quiet():
            import tensorflow_model_optimization as tfmot
    except ImportError as error:
        raise ImportError(
            "Pruning, clustering and quantisation-aware training need "
            "tensorflow-model-optimization: `pip install 'kmlp[optimize]'`. "
            f"Received: {error}"
        ) from error
    finally:
        os.environ.pop(_SWITCH, None)
        if set_before is not None:
            os.environ[_SWITCH] = set_before
    return tfmot
