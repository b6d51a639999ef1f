"""`.keras` checkpoints as models, and presets of one's own."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import h5py
import keras

from kmlp import models
from kmlp.artifacts import origin
from kmlp.artifacts.keras_file import check_weights, load_model
from kmlp.artifacts.locating import CHECKPOINT
from kmlp.atomic import new_file
from kmlp.budget import Budget
from kmlp.console import first_line
from kmlp.errors import InputError
from kmlp.keras_internals import weights_within
from kmlp.models.configured import ConfiguredModel
from kmlp.models.dense import DenseModel
from kmlp.models.registry import variant
from kmlp.models.vision_mlp import VisionMLP
from kmlp.preprocessing import DensePreprocessing, Preprocessing, preprocessing_of
from kmlp.pretrained.found import KERAS_WEIGHTS, Found
from kmlp.typing import Config, PathLike, Shape
from kmlp.weights.strict_loading import CLASSIFIER, HEAD


def load_checkpoint(path: PathLike) -> keras.Model:
    """Load a checkpoint, not compiled.

    A model of ours gets the `preprocessing` (with class names) and the
    `weights_source` that are known of the file.

    Args:
        path: Path of a `.keras` file.

    Raises:
        InputError: If it cannot be read; the message names the remedy.
    """
    path = Path(path)
    model = load_model(path)
    if isinstance(model, ConfiguredModel):
        carried = origin.read(path) or {}
        if isinstance(model, DenseModel):
            model.preprocessing = DensePreprocessing.from_origin(carried)
        else:
            known = preprocessing_of(path)
            model.preprocessing = known if known.found else None
        model.weights_source = carried.get("source")
    return model


def load(
    found: Found,
    num_classes: int | None,
    input_shape: Shape | None,
    overrides: Config,
) -> tuple[keras.Model, int | None]:
    """Restore a model as saved, with another head or further arguments where asked.

    Args:
        found: Weights on the disk.
        num_classes: Classes of the model; `None`: those of the weights.
        input_shape: Shape of images, for weights that do not tell theirs.
        overrides: Further arguments of the family's class.

    Returns:
        Tuple `(model, classes of the weights' own head)`, the model at the size that it
        was saved with.

    Raises:
        InputError: If the file cannot be read, is of another architecture, or the
            arguments do not fit the weights.
    """
    if found.path.name.endswith(KERAS_WEIGHTS):
        model = _from_weights(found, input_shape, overrides)
    else:
        model = load_checkpoint(found.path)
    if not isinstance(model, VisionMLP):
        return _unchanged(model, found, num_classes, input_shape, overrides), None
    _check_name(model, found)
    own_classes = model.num_classes if model.include_top else 0
    changes = dict(overrides)
    if num_classes is not None:
        changes["num_classes"] = num_classes
    return _changed(model, changes, found), own_classes


def _from_weights(found, input_shape, overrides):
    if found.architecture is None:
        raise InputError(
            "A .weights.h5 file holds weights without their network: pass `name`. "
            f"Received: {str(found.path)!r}"
        )
    try:
        arrays = check_weights(found.path, Budget(found.path))
        with h5py.File(found.path) as file:
            head = file.get("layers/classifier_head/dense/vars/1")
            arguments = {} if head is None else {"num_classes": len(head)}
        with weights_within(Budget(found.path), arrays):
            model = models.create_model(
                found.architecture,
                input_shape=input_shape,
                **{**arguments, **overrides},
            )
        model.load_weights(found.path)
    except Exception as error:
        raise InputError(
            f"These weights are damaged, or not of {found.architecture} with these "
            f"arguments. Received: {str(found.path)!r} ({first_line(error)[:200]})"
        ) from error
    return model


def _unchanged(model, found, num_classes, input_shape, overrides):
    """Return a model of other classes, such as a merged one, which cannot change.

    Detectors and segmenters are brought to another size later.
    """
    own = tuple(model.inputs[0].shape[1:])
    resizable = isinstance(model, DenseModel)
    asked = {
        "num_classes": num_classes,
        "input_shape": None if resizable or input_shape == own else input_shape,
        **overrides,
    }
    wrong = {key: value for key, value in asked.items() if value is not None}
    if wrong:
        raise InputError(
            "This checkpoint is no train form of one of the families (merged, or of "
            "another class): it is taken as it is. "
            f"Received: {str(found.path)!r} with {wrong}"
        )
    return model


def _check_name(model, found):
    name = found.architecture
    if name is None or model.name == name:
        return
    family, _ = variant(name)
    if type(model) is family and model.name not in models.list_models():
        return  # of this family, under a name of one's own
    raise InputError(
        f"These weights are of {model.name}, not of {name}: leave the name out or "
        f"correct it. Received: {str(found.path)!r}"
    )


def _changed(model, changes, found):
    """Return the model with other arguments, and its weights where they have places."""
    config = model.get_config()
    changes = {k: v for k, v in changes.items() if k != "dtype" or v is not None}
    if all(k in config and config[k] == v for k, v in changes.items()):
        return model
    twin = type(model).from_config({**config, **changes})
    old = {w.path: w for w in model.weights}
    new = {w.path: w for w in twin.weights}
    replaced = twin.include_top and twin.num_classes != model.num_classes
    fresh = {p for p in new if p.startswith(CLASSIFIER)} if replaced else set()
    # Layers behind the last map are left out with the head.
    top = HEAD if twin.include_top else (HEAD, "class_mlp/")
    unused = {p for p in old.keys() - new.keys() if not p.startswith(top)}
    unfilled = {p for p in new.keys() - old.keys() - fresh if not p.startswith(HEAD)}
    misshapen = {
        p for p in (new.keys() & old.keys()) - fresh if new[p].shape != old[p].shape
    }
    if wrong := sorted(unused | unfilled | misshapen):
        raise InputError(
            "The weights do not fit these arguments: leave out those that change the "
            f"network. Received: {str(found.path)!r} with {changes}, which "
            f"{len(wrong)} variables do not fit, such as {wrong[0]}"
        )
    for path in (new.keys() & old.keys()) - fresh:
        new[path].assign(old[path])
    twin.weights_source = model.weights_source
    twin.preprocessing = model.preprocessing
    if twin.preprocessing is not None and (replaced or not twin.include_top):
        twin.preprocessing = dataclasses.replace(twin.preprocessing, class_names=None)
    return twin


def save_preset(
    model: keras.Model,
    folder: PathLike,
    *,
    preprocessing: Preprocessing | DensePreprocessing | None = None,
    class_names: Iterable[str] | None = None,
) -> Path:
    """Save a model of ours as `folder/trained.keras`, which carries its origin.

    Args:
        model: Network of one of the families, detector or segmenter in its train form.
        folder: Path that is made if missing; a preset in it is replaced in one step.
        preprocessing: Preparation of the images, a `kmlp.preprocessing.Preprocessing`,
            of detectors and segmenters a `kmlp.preprocessing.DensePreprocessing`;
            `None`: the model's.
        class_names: Names in the order of the outputs; `None`: those of
            `preprocessing`.

    Returns:
        The path of the folder.

    Raises:
        InputError: If this is no model of ours, or names or preprocessing do not fit.
        OSError: If the folder cannot be written; what was there is kept.
    """
    if not isinstance(model, ConfiguredModel):
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
    path = Path(folder).expanduser() / CHECKPOINT
    with new_file(path) as draft:
        origin.save_checkpoint(model, draft, preprocessing=preprocessing)
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
