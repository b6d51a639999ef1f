"""The likeliest classes of images, by any weights."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kmlp.artifacts import origin
from kmlp.artifacts.locating import CHECKPOINT, KERAS, locate
from kmlp.artifacts.opening import Weights, as_weights, open_weights
from kmlp.data.decode import centre_crop, checked, decode, normalise
from kmlp.data.scoring import check_finite
from kmlp.errors import InputError, KmlpError
from kmlp.merging import merge
from kmlp.preprocessing import NEEDED, Preprocessing, preprocessing_of
from kmlp.pretrained.creation import create_model
from kmlp.typing import PathLike

FLAGS = {"image_size": "--image-size", "mean": "--mean", "std": "--std"}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Weights with all that an image needs to be classified.

    Attributes:
        weights: Opened weights.
        prepared: Complete `Preprocessing`.
        scores: Function of outputs to scores, `(N, classes)` both.
    """

    weights: Weights
    prepared: Preprocessing
    scores: Callable[[np.ndarray], np.ndarray]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names in the order of the outputs, else their numbers."""
        names = self.prepared.class_names
        return names or tuple(map(str, range(self.weights.classes)))


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image.

    Attributes:
        image: Path.
        classes: Tuples `(name, index, score)`, the likeliest first; `None` where the
            image cannot be read.
    """

    image: str
    classes: tuple[tuple[str, int, float], ...] | None


def open_classifier(
    weights: PathLike,
    *,
    arch: str | None = None,
    given: dict[str, Any] | None = None,
    resolution: str = "interpolate",
    merged: bool = True,
) -> Classifier:
    """Open weights for prediction.

    Args:
        weights: What `kmlp.create_model` takes, or a SavedModel or `.tflite` file.
        arch: Architecture of published weights that do not tell theirs, or `None`.
        given: Values of the preprocessing, by name, that override what is known; an
            `image_size` of its own resizes the model.
        resolution: What becomes of kernels at another size, as in `kmlp.create_model`.
        merged: Whether a checkpoint is merged, which gives the same faster.

    Raises:
        InputError: If there is nothing such, it is no classifier, or nothing says how
            images are prepared.
    """
    given = {name: value for name, value in (given or {}).items() if value is not None}
    artifact = _artifact(weights, arch, given)
    if artifact is not None:
        opened, known = open_weights(artifact), preprocessing_of(artifact)
        carried = (origin.read(artifact) or {}).get("configuration") or {}
        activation = carried.get("head_activation")
    else:
        size = given.get("image_size")
        model = create_model(
            arch,
            input_shape=None if size is None else (size, size, 3),
            weights=weights,
            resolution=resolution,
        )
        if getattr(model, "num_classes", None) == 0:
            raise InputError(
                "These weights have no classifier: train one with training/train.py "
                f"--weights, or probe them. Received: {str(weights)!r}"
            )
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


def completed(
    known: Preprocessing, given: dict[str, Any], size: int | None, weights: PathLike
) -> Preprocessing:
    """Return all that an image needs to become a network's input.

    Args:
        known: Preprocessing of the weights.
        given: Values that override it by name, `None` for what is not given.
        size: Size of the network's images, `None` where it takes any.
        weights: What a message names.

    Raises:
        InputError: If another size than the network's is given, or something is known
            to nobody.
    """
    prepared = known.completed(given)
    size = size or prepared.image_size
    if size != (given.get("image_size") or size):
        raise InputError(
            f"These weights take images of {size}x{size}: leave --image-size out, or "
            "pass a .keras checkpoint of a family of ours, which can be resized. "
            f"Received: --image-size {given['image_size']}, {str(weights)!r}"
        )
    prepared = dataclasses.replace(prepared, image_size=size)
    if missing := [FLAGS[n] for n in NEEDED if getattr(prepared, n) is None]:
        raise InputError(
            f"Nothing says how images are prepared for these weights: pass "
            f"{' and '.join(missing)}, or keep the run's recipe.json beside them. "
            f"Received: {str(weights)!r}"
        )
    return prepared


def _artifact(weights, arch, given):
    """Return the SavedModel or TFLite file that the weights are, or `None`."""
    if arch is not None or not Path(weights).expanduser().exists():
        return None
    try:
        path, form = locate(weights)
    except KmlpError:
        return None  # a published file, or a folder that create_model explains
    if form == KERAS:
        return None
    own_folder = path.is_dir() and (path / CHECKPOINT).is_file()
    # Only the checkpoint can be brought to another size.
    return None if own_folder and "image_size" in given else path


def predict(
    classifier: Classifier,
    images: Sequence[str],
    *,
    top: int = 5,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Classify image files.

    Args:
        classifier: Opened weights.
        images: Paths of image files.
        top: Number of classes.
        batch_size: Images at a time.

    Yields:
        What each image shows, in order.

    Raises:
        RunError: If scores are not finite.
    """
    prepare = preparation(classifier.prepared)
    size: Any = classifier.prepared.image_size
    names = classifier.class_names
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for start in range(0, len(images), batch_size):
            paths = images[start : start + batch_size]
            pixels = list(threads.map(prepare, paths))
            batch = np.zeros((len(pixels), size, size, 3), "float32")
            for place, image in zip(batch, pixels):
                place[...] = 0 if image is None else image
            scores = classifier.scores(classifier.weights.run(batch))
            for path, image, row in zip(paths, pixels, scores):
                if image is None:
                    yield Prediction(path, None)
                    continue
                check_finite(row, "scores", classifier.weights.path)
                order = np.argsort(-row, kind="stable")[:top]
                best = tuple((names[i], int(i), float(row[i])) for i in order)
                yield Prediction(path, best)


def preparation(prepared: Preprocessing) -> Callable[[PathLike], np.ndarray | None]:
    """Return a function of a path to `(S, S, 3)` float32, `None` where it is no image.

    Args:
        prepared: Complete preprocessing.
    """

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def _from_bytes(image):
        image = decode(checked(image[None], "image")[0], prepared.exif == "apply")
        size, crop = prepared.image_size, prepared.test_crop
        pixels = centre_crop(image, size, crop, prepared.test_interpolation)
        return normalise(pixels, prepared.mean, prepared.std)

    def _prepare(path):
        try:
            return _from_bytes(Path(path).read_bytes()).numpy()
        except (OSError, tf.errors.InvalidArgumentError):
            return None

    return _prepare


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Return outputs as shares of 1."""
    powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
