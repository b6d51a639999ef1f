"""Detectors and segmenters, opened from whatever form they lie in."""

import contextlib
import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kmlp.artifacts import origin
from kmlp.artifacts.locating import CHECKPOINT, KERAS, TFLITE, locate, newest
from kmlp.artifacts.opening import compiled, runner
from kmlp.console import first_line, quiet
from kmlp.errors import InputError, KmlpError
from kmlp.merging import merge
from kmlp.preprocessing import DensePreprocessing
from kmlp.pretrained.restoring import load_checkpoint
from kmlp.weights.grid_resizing import resize

DETECTION, SEGMENTATION = "detection", "segmentation"
# As `kmlp.models.dense.DenseModel` is written in a checkpoint.
_HEADS = ("RetinaNet", "MaskRCNN", "CascadeMaskRCNN", "SemanticFPN", "UperNet")

# The names of classes that nobody named.
_NUMBERS = tuple(map(str, range(256)))


@dataclasses.dataclass(frozen=True)
class DenseNetwork:
    """A detector or segmenter as a function of pictures on its canvas.

    Called with `(N, H, W, 3)` float32, a detector gives `{name: array}`, a segmenter
    logits `(N, H, W, K)`.

    Attributes:
        path: where it was found.
        form: as `kmlp.artifacts.locating.locate` tells it.
        preprocessing: `DensePreprocessing`.
        input_shape: with the batch; `None` where a size is free.
        run: the function.
    """

    path: Path
    form: str
    preprocessing: DensePreprocessing
    input_shape: tuple
    run: Callable

    @property
    def task(self):
        return self.preprocessing.task

    @property
    def class_names(self):
        return self.preprocessing.class_names

    def __call__(self, images):
        with quiet():  # TensorFlow talks of integers when it first sees a graph
            found = self.run(np.asarray(images, "float32"))
        if self.task == SEGMENTATION:
            (found,) = keras.tree.flatten(found)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, found)


def task_of(weights):
    """`"detection"` or `"segmentation"` where weights are of such a network, or `None`.

    Args:
        weights: what `kmlp predict` takes.

    Raises:
        InputError: such a network, and nothing that says how its pictures are prepared.
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


def open_dense_network(weights, *, any_size=False):
    """Opens a detector or segmenter.

    Args:
        weights: a run's folder, of which `trained.keras` is taken where it is, or a
            `.keras`, SavedModel or `.tflite`.
        any_size: whether a checkpoint is rebuilt for pictures of any size, where its
            family takes them.

    Raises:
        InputError: nothing such, or unreadable.
    """
    path, form = _located(Path(weights).expanduser())
    known = DensePreprocessing.from_origin(origin.read(path))
    if known is None:
        raise InputError(
            "Neither a detector nor a segmenter that says how its pictures are "
            f"prepared: pass a run's folder or what it holds. Received: {str(path)!r}"
        )
    try:
        run, shape = _keras(path, any_size) if form == KERAS else _runner(path, form)
    except KmlpError:
        raise
    except Exception as error:
        raise InputError(
            f"This {form} cannot be read: export it again. "
            f"Received: {str(path)!r} ({first_line(error)})"
        ) from error
    if known.class_names is None:
        known = dataclasses.replace(known, class_names=_NUMBERS)
    return DenseNetwork(path, form, known, shape, run)


def _located(path):
    if path.is_dir() and (newest(path) / CHECKPOINT).is_file():
        return locate(newest(path) / CHECKPOINT)
    return locate(path)


def _head(path):
    """The class of a checkpoint's model."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json")).get("class_name")


def _keras(path, any_size):
    model = load_checkpoint(path)
    if any_size:
        # Not every family takes any size.
        with contextlib.suppress(ValueError):
            model = resize(model, (None, None, model.input_shape[-1]))
    model = merge(model)
    return compiled(model), tuple(model.inputs[0].shape)


def _runner(path, form):
    opened = runner(path, form)
    if form == TFLITE:
        # Batches of any number are gone through one by one.
        return opened, (None, *opened.input_shape[1:])
    return opened, opened.input_shape
