"""SavedModels as TensorFlow Serving loads them."""

import os
from pathlib import Path

import keras
import tensorflow as tf

from kmlp.atomic import new_version
from kmlp.export.precision import in_float32
from kmlp.export.scope import outside_strategy
from kmlp.export.signature import input_specs, serving_function
from kmlp.merging import merge as merge_model
from kmlp.quiet import quiet


@outside_strategy
def saved_model(
    model: keras.Model, path: str | os.PathLike, merge: bool = True
) -> Path:
    """Writes a model as the next version of a SavedModel.

    The signature `serving_default` takes float32 images, exactly what the Keras
    model takes, with the batch free; sizes that the model leaves open stay open.
    The artifact is float32 whatever policy the model was trained in. Nothing but
    the whole version ever appears: a killed export leaves none.

    Args:
        model: a built `keras.Model`; it is left untouched.
        path: folder of the versions; the new one is `path/VERSION`, an integer one
            above the highest there.
        merge: whether the model's inference form (`kmlp.merge`) is written.

    Returns:
        The `pathlib.Path` of the version.

    Raises:
        OSError: `path` is no folder and cannot become one, or is not writable.
        ValueError: the model is not built.
    """
    check_model(model)
    with new_version(path) as draft:
        write_saved_model(inference_form(model, merge), draft.folder)
    return draft.path


def check_model(model):
    """Raises `ValueError` where there is no built model to export."""
    if not getattr(model, "built", False):
        raise ValueError(
            "Export takes a built keras.Model: call it on data or build() it first. "
            f"Received: {model!r}"
        )


def inference_form(model, merge=True):
    """The model in float32 and, with `merge`, in its inference form."""
    # In this order: merged in low precision, the kernels would be rounded to it.
    model = in_float32(model)
    return merge_model(model) if merge else model


def write_saved_model(model, folder, *, batch_size=None, input_shape=None):
    """Writes a float32 model into an existing or new folder, as it is.

    Args:
        model: from `inference_form`.
        folder: of the SavedModel itself.
        batch_size, input_shape: as in `kmlp.export.signature.input_specs`.
    """
    specs = input_specs(model, batch_size=batch_size, input_shape=input_shape)
    function = serving_function(model, specs)
    # keras.export.ExportArchive would store every variable twice.
    module = tf.Module()
    module.serve = function
    module.weights = list(function.get_concrete_function().variables)
    with quiet():
        tf.saved_model.save(
            module, str(folder), signatures={"serving_default": function}
        )
