"""The networks of teachers, from files and from `keras.applications`."""

import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kmlp.artifacts.keras_file import check_weights, load_model
from kmlp.artifacts.locating import SAVED_MODEL
from kmlp.artifacts.opening import runner
from kmlp.budget import Budget
from kmlp.console import first_line
from kmlp.errors import InputError, nearest
from kmlp.keras_internals import flat_layers
from kmlp.preprocessing import preprocessing_of
from kmlp.typing import PathLike

IMAGENET_CLASSES = 1000
FORMS = (
    "A teacher is a .keras file, a SavedModel folder, or a name of keras.applications "
    "with or without :FILE"
)


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network and how it wants its images.

    Attributes:
        name: Name as it was asked for.
        call: Function of `(N, H, W, 3)` float32 to its outputs.
        prepare: Function of the student's images, mean and std to the network's own.
        sides: Height and width, each `None` where any will do.
        model: The `keras.Model`, or `None`.
        class_names: Classes in the order of the outputs, or `None`.
        classes: Number of the outputs, where these are known to be logits.
    """

    name: PathLike
    call: Callable
    prepare: Callable
    sides: tuple[int | None, int | None]
    model: keras.Model | None = None
    class_names: tuple[str, ...] | None = None
    classes: int | None = None


def open_network(spec: PathLike, num_classes: int) -> Network:
    """Open what `kmlp.training.distillation.open_teacher` describes.

    Raises:
        InputError: If there is nothing such, or it cannot be read.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        return _from_saved_model(spec, path)
    if path.is_file():
        return _from_file(spec, path)
    name, _, weights = str(spec).partition(":")
    if (path.suffix in (".keras", ".h5") and not weights) or "/" in name:
        raise InputError(f"{FORMS}; this does not exist. Received: {spec!r}")
    return _from_applications(spec, name, weights, num_classes)


def applications() -> dict[str, Callable]:
    """Return the constructors of `keras.applications` by small letters and digits."""
    found = inspect.getmembers(keras.applications, inspect.isfunction)
    return {_plain(name): function for name, function in found}


def _from_applications(spec, name, weights, num_classes):
    constructors = applications()
    constructor = constructors.get(_plain(name))
    if constructor is None:
        near = nearest(_plain(name), constructors)
        raise InputError(
            f"{FORMS}; the names nearest to this are "
            f"{', '.join(near or sorted(constructors))}. Received: {spec!r}"
        )
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        if weights:
            model = _with_weights(spec, constructor, weights, num_classes)
        else:
            model = _with_imagenet(spec, constructor, num_classes)
    finally:
        keras.config.set_dtype_policy(policy)
    preprocess = inspect.getmodule(constructor).preprocess_input
    return Network(
        name=spec,
        prepare=lambda images, mean, std: preprocess(255 * (images * std + mean)),
        classes=num_classes,
        **_answering(model),
    )


def _with_imagenet(spec, constructor, num_classes):
    if num_classes != IMAGENET_CLASSES:
        raise InputError(
            f"The teacher knows {IMAGENET_CLASSES:,} classes and the data have "
            f"{num_classes:,}: train a teacher on these data and pass its .keras file, "
            f"or {spec}:FILE with weights for them. Received: {spec!r}"
        )
    try:
        return constructor(weights="imagenet", classifier_activation=None)
    except Exception as error:
        # Keras' exception names the address, whatever the reason.
        address = re.search(r"https?://\S+", str(error))
        file = address.group().rstrip(":") if address else "its weights"
        raise InputError(
            f"The weights of a teacher cannot be had: fetch {file} where there is a "
            f"network, and pass {spec}:FILE. Received: {spec!r} ({error})"
        ) from error


def _with_weights(spec, constructor, weights, num_classes):
    path = Path(weights).expanduser()
    if not path.is_file():
        raise InputError(f"{FORMS}; there is no such file. Received: {spec!r}")
    model = constructor(weights=None, classes=num_classes, classifier_activation=None)
    try:
        check_weights(path, Budget(path))
        with warnings.catch_warnings():
            # Keras only warns of layers that a file has nothing for.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except Exception as error:
        raise InputError(
            f"These weights are not those of {constructor.__name__} with "
            f"{num_classes:,} classes: pass weights for the classes of the data. "
            f"Received: {spec!r} ({first_line(error)})"
        ) from error
    return model


def _from_file(spec, path):
    try:
        model = load_model(path)
    except InputError as error:
        raise InputError(
            f"{FORMS}; this file cannot be read as one. "
            f"Received: {spec!r} ({first_line(error)})"
        ) from error
    inputs = getattr(model, "inputs", None) or ()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] != 3:
        shapes = ", ".join(str(tensor.shape) for tensor in inputs) or "unknown inputs"
        raise InputError(
            "A teacher takes one batch of images (N, H, W, 3). "
            f"Received: {spec!r}, which takes {shapes}"
        )
    return Network(name=spec, **_answering(_in_float32(model)), **_as_written(path))


def _from_saved_model(spec, path):
    if not (path / "saved_model.pb").is_file():
        raise InputError(
            f"{FORMS}; this folder has no saved_model.pb: pass the folder of one "
            f"version. Received: {spec!r}"
        )
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "A SavedModel teaches under TensorFlow only: pass a .keras file, such as "
            f"a run's trained.keras. Received: {spec!r}"
        )
    try:
        found = runner(path, SAVED_MODEL)
    except Exception as error:
        raise InputError(
            "A teacher's SavedModel needs a signature serving_default; this cannot be "
            f"loaded. Received: {spec!r} ({first_line(error)})"
        ) from error
    shape, outputs = found.input_shape, found.output_shapes
    takes_images = shape is not None and len(shape) == 4 and shape[::3] == (None, 3)
    if not takes_images or found.input_dtype != np.float32 or len(outputs) != 1:
        raise InputError(
            "A teacher's serving_default takes float32 images (None, H, W, 3) and "
            f"gives one output. Received: {spec!r}, from {found.input_dtype} {shape} "
            f"to {outputs}"
        )

    def _call(images):
        (values,) = found.tensors(images).values()
        return values

    return Network(name=spec, call=_call, sides=shape[1:3], **_as_written(path))


def _as_written(path):
    """Return `prepare` and `class_names` of a network, as a run wrote them or not."""
    written = preprocessing_of(path)

    def _prepare(images, mean, std):
        own_mean = mean if written.mean is None else np.float32(written.mean)
        own_std = std if written.std is None else np.float32(written.std)
        if np.array_equal(own_mean, mean) and np.array_equal(own_std, std):
            return images
        return (images * std + mean - own_mean) / own_std

    return {"prepare": _prepare, "class_names": written.class_names}


def _in_float32(model):
    """Return the model itself, in float32 where it was trained in mixed precision.

    Its variables are float32 already. One that keeps them in another type is left.
    """
    for layer in flat_layers(model):
        policy = layer.dtype_policy
        mixed = policy.compute_dtype != policy.variable_dtype
        if mixed and policy.variable_dtype == "float32":
            layer.dtype_policy = "float32"
    return model


def _answering(model):
    """Return `model`, frozen, with `call` and `sides`."""
    model.trainable = False
    return {
        "model": model,
        "call": lambda images: model(images, training=False),
        "sides": tuple(model.inputs[0].shape[1:3]),
    }


def _plain(name):
    return re.sub("[^a-z0-9]", "", name.lower())
