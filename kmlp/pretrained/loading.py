"""A `.keras` checkpoint as a model, with what it says of its images."""

from pathlib import Path

import keras

from kmlp.artifacts import origin
from kmlp.console import first_line
from kmlp.dense_preprocessing import DensePreprocessing
from kmlp.errors import InputError
from kmlp.models.dense import DenseModel
from kmlp.models.vision_mlp import VisionMLP
from kmlp.preprocessing import preprocessing_of
from kmlp.quiet import quiet


def load_checkpoint(path):
    """Loads a checkpoint.

    A model of ours gets the `preprocessing` (with class names) and the
    `weights_source` that are known of the file.

    Args:
        path: of a `.keras` file.

    Returns:
        The `keras.Model`, not compiled.

    Raises:
        InputError: it cannot be read; the message names the remedy.
    """
    path = Path(path)
    try:
        with quiet():  # the backend looks for devices
            model = keras.saving.load_model(path, compile=False)
    except Exception as error:
        unknown = "locate class" in str(error)
        remedy = (
            "it has layers that neither Keras nor kmlp knows: import them, and call "
            "kmlp.export from Python"
            if unknown
            else "it is damaged, or was written by another version of Keras: save the "
            "model again"
        )
        raise InputError(
            f"This checkpoint cannot be read; {remedy}. "
            f"Received: {str(path)!r} ({first_line(error)[:200]})"
        ) from error
    if isinstance(model, (VisionMLP, DenseModel)):
        carried = origin.read(path) or {}
        if isinstance(model, DenseModel):
            model.preprocessing = DensePreprocessing.from_origin(carried)
        else:
            known = preprocessing_of(path)
            model.preprocessing = known if known.found else None
        model.weights_source = carried.get("source")
    return model
