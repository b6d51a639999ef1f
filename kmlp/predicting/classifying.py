"""The likeliest classes of images, by any weights."""

import concurrent.futures
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from kmlp.artifacts import origin
from kmlp.artifacts.locating import KERAS, locate
from kmlp.artifacts.opening import Weights, as_weights, open_weights
from kmlp.data.decode import centre_crop, checked, normalise
from kmlp.errors import InputError, KmlpError, RunError
from kmlp.merging import merge
from kmlp.preprocessing import NEEDED, Preprocessing, preprocessing_of
from kmlp.pretrained.creation import create_model

FLAGS = {"image_size": "--image-size", "mean": "--mean", "std": "--std"}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Weights with all that an image needs to be classified.

    Attributes:
        weights: `kmlp.artifacts.opening.Weights`.
        prepared: complete `Preprocessing`.
        scores: function of outputs to scores, `(N, classes)` both.
    """

    weights: Weights
    prepared: Preprocessing
    scores: Callable

    @property
    def class_names(self):
        """Names in the order of the outputs, else their numbers."""
        names = self.prepared.class_names
        return names or tuple(map(str, range(self.weights.classes)))


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What an image shows.

    Attributes:
        image: its path.
        classes: `(name, index, score)`, the likeliest first; `None` where the image
            cannot be read.
    """

    image: str
    classes: tuple | None


def open_classifier(
    weights, *, arch=None, given=None, resolution="interpolate", merged=True
):
    """Opens weights for prediction.

    Args:
        weights: what `kmlp.create_model` takes, or a SavedModel or `.tflite` file.
        arch: architecture of published weights that do not tell theirs, or `None`.
        given: `{name: value}` of the preprocessing that override what is known; an
            `image_size` of its own resizes the model.
        resolution: as `kmlp.create_model` has it.
        merged: whether a checkpoint is merged, which gives the same faster.

    Raises:
        InputError: nothing such, no classifier, or nothing that says how images are
            prepared.
    """
    given = {name: value for name, value in (given or {}).items() if value is not None}
    artifact = _artifact(weights, arch, given)
    if artifact is not None:
        opened, known = open_weights(artifact), preprocessing_of(artifact)
        carried = (origin.read(artifact) or {}).get("configuration") or {}
        activation = carried.get("head_activation")
    else:
        model = _model(weights, arch, given.get("image_size"), resolution)
        known = getattr(model, "preprocessing", None) or Preprocessing()
        activation = getattr(model, "head_activation", None)
        opened = as_weights(merge(model) if merged else model, weights)
    prepared = completed(known, given, opened.image_size, weights)
    names = prepared.class_names
    if names is not None and len(names) != opened.classes:
        raise InputError(
            f"The weights have {opened.classes:,} outputs and {len(names):,} class "
            f"names: they do not belong together. Received: {str(weights)!r}"
        )
    return Classifier(opened, prepared, softmax if activation is None else np.asarray)


def completed(known, given, size, weights):
    """All that an image needs to become a network's input.

    Args:
        known: `Preprocessing` of the weights.
        given: `{name: value}` that override it.
        size: of the network's images, `None` where it takes any.
        weights: what a message names.

    Raises:
        InputError: another size than the network's, or something that nobody knows.
    """
    prepared = known.completed(given)
    size = size or prepared.image_size
    if size != (given.get("image_size") or size):
        raise InputError(
            f"This artifact takes images of {size}x{size}: leave --image-size out, or "
            f"pass the .keras checkpoint. Received: --image-size {given['image_size']}"
        )
    prepared = dataclasses.replace(prepared, image_size=size)
    if missing := [FLAGS[n] for n in NEEDED if getattr(prepared, n) is None]:
        raise InputError(
            "Nothing says how images are prepared for these weights: pass "
            f"{', '.join(missing)}. Received: {str(weights)!r}"
        )
    return prepared


def _artifact(weights, arch, given):
    """The path of a SavedModel or TFLite file that the weights are, or `None`."""
    if arch is not None or not Path(weights).expanduser().exists():
        return None
    try:
        path, form = locate(weights)
    except KmlpError:
        return None  # a published file, or a folder that create_model explains
    if form == KERAS:
        return None
    own_folder = path.is_dir() and (path / "trained.keras").is_file()
    # Only the checkpoint can be brought to another size.
    return None if own_folder and "image_size" in given else path


def _model(weights, arch, image_size, resolution):
    shape = None if image_size is None else (image_size, image_size, 3)
    model = create_model(
        arch, input_shape=shape, weights=weights, resolution=resolution
    )
    if getattr(model, "num_classes", None) == 0:
        raise InputError(
            "These weights have no classifier: train one with training/train.py "
            f"--weights, or probe them. Received: {str(weights)!r}"
        )
    return model


def predict(classifier, images, *, top=5, batch_size=32):
    """Classifies image files.

    Args:
        classifier: `Classifier`.
        images: paths of JPEG or PNG files.
        top: how many classes.
        batch_size: images at a time.

    Yields:
        A `Prediction` per image, in order.
    """
    prepare = preparation(classifier.prepared)
    size = classifier.prepared.image_size
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for start in range(0, len(images), batch_size):
            paths = images[start : start + batch_size]
            pixels = list(threads.map(prepare, paths))
            batch = np.zeros((len(pixels), size, size, 3), "float32")
            for place, image in zip(batch, pixels):
                place[...] = 0 if image is None else image
            scores = classifier.scores(classifier.weights.run(batch))
            for path, image, row in zip(paths, pixels, scores):
                known = image is not None
                yield Prediction(path, _best(row, classifier, top) if known else None)


def preparation(prepared):
    """How an image file becomes a model's input.

    Args:
        prepared: complete `Preprocessing`.

    Returns:
        A function of a path to `(S, S, 3)` float32, `None` where it is no image.
    """

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def from_bytes(image):
        image = checked(image[None], "image")[0]
        size, crop = prepared.image_size, prepared.test_crop
        pixels = centre_crop(image, size, crop, prepared.test_interpolation)
        return normalise(pixels, prepared.mean, prepared.std)

    def prepare(path):
        try:
            return from_bytes(Path(path).read_bytes()).numpy()
        except (OSError, tf.errors.InvalidArgumentError):
            return None

    return prepare


def _best(scores, classifier, top):
    if not np.isfinite(scores).all():
        raise RunError(
            "The weights give scores that are not finite: they are damaged, or trained "
            f"to divergence. Received: {str(classifier.weights.path)!r}",
        )
    order = np.argsort(-scores, kind="stable")[:top]
    names = classifier.class_names
    return tuple((names[i], int(i), float(scores[i])) for i in order)


def softmax(outputs):
    """Outputs as shares of 1."""
    powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
