"""Detectors and segmenters, opened from whatever form they lie in."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.artifacts import keras_file, origin
from kmlp.artifacts.locating import CHECKPOINT, KERAS, TFLITE, locate, newest
from kmlp.artifacts.opening import compiled, runner
from kmlp.console import first_line, quiet
from kmlp.errors import InputError, KmlpError
from kmlp.merging import merge
from kmlp.preprocessing import DensePreprocessing
from kmlp.pretrained.restoring import load_checkpoint
from kmlp.typing import PathLike
from kmlp.weights.grid_resizing import resize

DETECTION, SEGMENTATION = "detection", "segmentation"
# Class names by which checkpoints record a `kmlp.models.dense.DenseModel`.
_HEADS = ("RetinaNet", "MaskRCNN", "CascadeMaskRCNN", "SemanticFPN", "UperNet")

# Stand-ins for unknown class names.
_NUMBERS = tuple(map(str, range(256)))


@dataclasses.dataclass(frozen=True)
class DenseNetwork:
    """A detector or segmenter as a function of pictures on its canvas.

    Called with `(N, H, W, 3)` float32, a detector returns arrays by name, a segmenter
    logits `(N, H, W, K)`.

    Attributes:
        path: Where it was found.
        form: Form in which it lies there, from `kmlp.artifacts.locating.locate`.
        preprocessing: How pictures are prepared.
        input_shape: Shape with the batch; `None` where a size is free.
        run: Function of pictures to what the network gives.
    """

    path: Path
    form: str
    preprocessing: DensePreprocessing
    input_shape: tuple[int | None, ...]
    run: Callable[[np.ndarray], Any]

    @property
    def task(self) -> str:
        """Return the task, `"detection"` or `"segmentation"`."""
        return self.preprocessing.task

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names in the order of the classes, else their numbers."""
        return self.preprocessing.class_names or _NUMBERS

    def __call__(self, images: np.ndarray) -> Any:
        with quiet():  # TensorFlow talks of integers when it first sees a graph
            found = self.run(np.asarray(images, "float32"))
        if self.task == SEGMENTATION:
            (found,) = keras.tree.flatten(found)
        found = keras.tree.map_structure(keras.ops.convert_to_numpy, found)
        if self.task == SEGMENTATION:
            outputs = found.shape[-1]
        else:
            outputs = int(found["classes"].max(initial=-1)) + 1
        if outputs > len(self.class_names):
            raise InputError(
                f"These weights tell {outputs:,} classes, of which "
                f"{len(self.class_names):,} have a name: they do not belong together. "
                f"Received: {str(self.path)!r}"
            )
        return found


def task_of(weights: PathLike) -> str | None:
    """Return the task of a detector's or segmenter's weights, of others `None`.

    Args:
        weights: What `kmlp predict` takes.

    Raises:
        InputError: If it is such a network, and nothing says how its pictures are
            prepared.
    """
    path = Path(weights).expanduser()
    if not path.exists():
        return None
    try:
        path, form = _located(path)
        known = DensePreprocessing.from_origin(origin.read(path))
    except KmlpError:
        return None  # published weights, or what is explained where it is opened
    if known is not None:
        return known.task
    if form == KERAS and _head(path) in _HEADS:
        raise InputError(
            "This detector or segmenter does not say how its pictures are prepared: "
            "take the trained.keras of a run, or give the model a DensePreprocessing "
            f"and save it by kmlp.pretrained.save_preset. Received: {str(path)!r}"
        )
    return None


def open_dense_network(
    weights: PathLike, *, any_size: bool = False, exif: str | None = None
) -> DenseNetwork:
    """Open a detector or segmenter.

    Args:
        weights: A run's folder, of which `trained.keras` is taken where it is, or a
            `.keras`, SavedModel or `.tflite`.
        any_size: Whether a checkpoint is rebuilt for pictures of any size, where its
            family takes them.
        exif: Treatment of the orientation that a JPEG's EXIF states, `"ignore"` or
            `"apply"`; `None`: as in training.

    Raises:
        InputError: If there is nothing such, or it cannot be read.
    """
    path, form = _located(Path(weights).expanduser())
    known = DensePreprocessing.from_origin(origin.read(path))
    if known is None:
        raise InputError(
            "Neither a detector nor a segmenter that says how its pictures are "
            f"prepared: pass a run's folder or what it holds. Received: {str(path)!r}"
        )
    if exif is not None:
        known = dataclasses.replace(known, exif=exif)
    try:
        run, shape = _keras(path, any_size) if form == KERAS else _runner(path, form)
    except KmlpError:
        raise
    except Exception as error:
        raise InputError(
            f"This {form} cannot be read: export it again. "
            f"Received: {str(path)!r} ({first_line(error)})"
        ) from error
    return DenseNetwork(path, form, known, shape, run)


def _located(path):
    if path.is_dir() and (newest(path) / CHECKPOINT).is_file():
        return locate(newest(path) / CHECKPOINT)
    return locate(path)


def _head(path):
    """Return the class of a checkpoint's model."""
    return keras_file.read_json(path, keras_file.CONFIG).get("class_name")


def _keras(path, any_size):
    model = load_checkpoint(path)
    if any_size:
        # Not every family takes any size.
        with contextlib.suppress(ValueError):
            model = resize(model, (None, None, model.input_shape[-1]))
    # The run that wrote it has compared them on images.
    model = merge(model, check=False)
    return compiled(model), tuple(model.inputs[0].shape)


def _runner(path, form):
    opened = runner(path, form)
    # A TFLite file's batches of any number are gone through one by one.
    batch = None if form == TFLITE else opened.input_shape[0]
    return opened, (batch, *opened.input_shape[1:])
