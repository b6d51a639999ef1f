"""Presets of one's own: a folder with all that a model needs to be itself again."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

import keras

from kmlp.artifacts import origin
from kmlp.artifacts.locating import CHECKPOINT
from kmlp.atomic import new_file
from kmlp.dense_preprocessing import DensePreprocessing
from kmlp.errors import InputError
from kmlp.models.dense import DenseModel
from kmlp.models.vision_mlp import VisionMLP
from kmlp.preprocessing import Preprocessing


def save_preset(
    model: keras.Model,
    folder: str | os.PathLike,
    *,
    preprocessing: Preprocessing | DensePreprocessing | None = None,
    class_names: Iterable[str] | None = None,
) -> Path:
    """Saves a model of ours as `folder/trained.keras`, which carries its origin.

    Args:
        model: of one of the families, a detector or a segmenter, in its train form.
        folder: made where it is missing; a preset in it is replaced in one step.
        preprocessing: `kmlp.preprocessing.Preprocessing`, of detectors and segmenters
            `kmlp.dense_preprocessing.DensePreprocessing`; `None`: the model's.
        class_names: in the order of the outputs; `None`: those of `preprocessing`.

    Returns:
        The `pathlib.Path` of the folder.

    Raises:
        InputError: no model of ours, or names or preprocessing that do not fit it.
        OSError: the folder cannot be written; what was there is kept.
    """
    if not isinstance(model, (VisionMLP, DenseModel)):
        raise InputError(
            "A preset holds a model of one of the families in its train form; save "
            f"others by model.save(). Received: {type(model).__name__}"
        )
    if preprocessing is None:
        preprocessing = model.preprocessing
    fitting = DensePreprocessing if isinstance(model, DenseModel) else Preprocessing
    if preprocessing is not None and not isinstance(preprocessing, fitting):
        raise InputError(
            f"`preprocessing` of this model is a {fitting.__name__}. "
            f"Received: {type(preprocessing).__name__}"
        )
    if class_names is not None:
        if preprocessing is None and fitting is DensePreprocessing:
            raise InputError(
                "`class_names` of a detector or segmenter go with its `preprocessing`: "
                "pass a DensePreprocessing too. Received: preprocessing=None"
            )
        preprocessing = dataclasses.replace(
            preprocessing or Preprocessing(), class_names=tuple(class_names)
        )
    if preprocessing is not None:
        _check(model, preprocessing)
    described = origin.describe(
        model, form=origin.TRAIN_FORM, preprocessing=preprocessing
    )
    path = Path(folder).expanduser() / CHECKPOINT
    with new_file(path) as draft:
        model.save(draft)
        origin.write(draft, described)
    return path.parent


def _check(model, preprocessing):
    names = preprocessing.class_names
    outputs = model.num_classes if getattr(model, "include_top", True) else 0
    if names is not None and outputs and len(names) != outputs:
        raise InputError(
            f"`class_names` must name each of the model's {outputs} classes. "
            f"Received: {len(names)} class names"
        )
    if isinstance(preprocessing, DensePreprocessing):
        return
    sizes = set(model.inputs[0].shape[1:3]) - {None}
    if preprocessing.image_size is not None and sizes - {preprocessing.image_size}:
        height, width = model.inputs[0].shape[1:3]
        raise InputError(
            f"`preprocessing` must make images of the model's {height}x{width} pixels. "
            f"Received: image_size={preprocessing.image_size}"
        )


VisionMLP._save_preset = save_preset
