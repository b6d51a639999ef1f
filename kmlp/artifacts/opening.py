"""Open weights in any form, as functions of images."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kmlp.artifacts import flatbuffer, onnx_file, openvino_model, saved_model_file
from kmlp.artifacts.keras_file import load_model
from kmlp.artifacts.locating import FORMS, KERAS, ONNX, OPENVINO, TFLITE, locate
from kmlp.console import first_line
from kmlp.errors import InputError, KmlpError
from kmlp.typing import PathLike

if TYPE_CHECKING:  # it imports TensorFlow
    from kmlp.artifacts.runner import Runner


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network that gives `(N, classes)` for `(N, H, W, 3)` float32 arrays.

    Attributes:
        path: Path where it was found.
        form: Form as `kmlp.artifacts.locating` names it.
        run: Function of a batch.
        image_size: Side of the input; `None`: any.
        classes: Number of outputs.
        source: What derivatives can be taken of: the Keras model, or a SavedModel as
            a function of a tensor to a tensor; `None` of other forms.
    """

    path: Path
    form: str
    run: Callable
    image_size: int | None
    classes: int
    source: Callable | None = None


def open_weights(path: PathLike) -> Weights:
    """Open weights by what they hold, not by what they are called.

    Args:
        path: Path as in `kmlp.artifacts.locating.locate`.

    Raises:
        InputError: If there is nothing such, it cannot be read, or it does not take
            images and give classes.
    """
    path, form = locate(path)
    try:
        read = _keras if form == KERAS else _artifact
        source, run, shape, outputs = read(path, form)
    except (KmlpError, ImportError):
        raise
    except Exception as error:
        raise InputError(
            f"{FORMS}; this {form} cannot be read. Received: {str(path)!r} "
            f"({first_line(error)})"
        ) from error
    size, classes = _checked(path, shape, outputs)
    return Weights(path, form, run, size, classes, source)


def as_weights(model: keras.Model, path: PathLike) -> Weights:
    """Return a functional Keras model as `Weights`.

    Args:
        model: Model that is built.
        path: Path where it was found.

    Raises:
        InputError: If it does not take images and give classes.
    """
    run, shape, outputs = _run_keras(model)
    size, classes = _checked(path, shape, outputs)
    return Weights(Path(path), KERAS, run, size, classes, model)


def _keras(path, _):
    model = load_model(path)
    return model, *_run_keras(model)


def _run_keras(model):
    inputs, outputs = (keras.tree.flatten(t) for t in (model.inputs, model.outputs))
    shapes = [tuple(t.shape) for t in outputs]
    if len(inputs) != 1:
        return None, None, shapes
    run = compiled(model)
    return lambda images: _single(run(images)), tuple(inputs[0].shape), shapes


def compiled(model: keras.Model) -> Callable[[Any], Any]:
    """Return a model's inference as a function of an array of images, with no XLA.

    Args:
        model: Functional model of one input, built.
    """
    if keras.backend.backend() == "jax":
        import jax

        step = jax.jit(lambda *a: model.stateless_call(*a, training=False)[0])
        state = [
            [v.value for v in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        return lambda images: step(*state, images)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # One graph for batches, and pictures, of any size that the model takes.
        takes = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
        step = tf.function(lambda x: model(x, training=False), input_signature=[takes])
        return lambda images: step(tf.convert_to_tensor(images))
    return lambda images: model(images, training=False)


def runner(path: Path, form: str) -> "Runner":
    """Return an artifact as a function of images.

    Raises:
        InputError: If Keras does not run on TensorFlow, or the file is damaged or
            takes more than it may.
        ImportError: If its runtime is not installed.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"A {form} runs with Keras on TensorFlow: set KERAS_BACKEND=tensorflow, or "
            f"pass a .keras checkpoint. Received: {str(path)!r}, "
            f"KERAS_BACKEND={keras.backend.backend()}"
        )
    from kmlp.artifacts.running import load_saved_model, load_tflite

    if form == TFLITE:
        flatbuffer.check(path)
        return load_tflite(path, num_threads=os.cpu_count())
    if form in (ONNX, OPENVINO):
        module = onnx_file if form == ONNX else openvino_model
        module.check(path)
        return module.load(path)
    saved_model_file.check(path)
    return load_saved_model(path)


def _artifact(path, form):
    opened = runner(path, form)
    if opened.input_dtype != np.float32:
        raise InputError(
            f"Weights take float images; this {form} takes {opened.input_dtype}: "
            f"export one with float input. Received: {str(path)!r}"
        )
    shapes = list(opened.output_shapes.values())
    source = opened.tensors and (lambda images: _only(opened.tensors(images)))
    return source, lambda images: _single(opened(images)), opened.input_shape, shapes


def _checked(path, shape, outputs):
    """Return `(image size, classes)` of an input's shape and all outputs'."""
    one = len(outputs) == 1 and outputs[0] is not None and len(outputs[0]) == 2
    if shape is None or len(shape) != 4 or shape[-1] != 3 or not one:
        raise InputError(
            "Weights take one batch of images (N, H, W, 3) and give one of classes "
            f"(N, classes). Received: {str(path)!r}, from {shape} to "
            f"{', '.join(map(str, outputs))}"
        )
    if shape[1] != shape[2]:
        raise InputError(
            "Images are evaluated as squares. "
            f"Received: {str(path)!r}, which takes {shape[1]}x{shape[2]}"
        )
    return shape[1], outputs[0][1]


def _single(outputs):
    """Return the only output, as an array."""
    return np.asarray(_only(outputs), "float32")


def _only(outputs):
    (output,) = keras.tree.flatten(outputs)
    return output
