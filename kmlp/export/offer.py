"""Check what is to be served beside a network: names of classes, encoded images."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kmlp.errors import InputError, check_positive
from kmlp.preprocessing import NEEDED, DensePreprocessing, Preprocessing

DETECTION, SEGMENTATION = "detection", "segmentation"
# A class map is served in bytes, of which the last stands for no class.
MOST_CLASSES = 255


@dataclasses.dataclass(frozen=True)
class Offer:
    """The parts of a model that are served, from `offer`.

    Attributes:
        preprocessing: Preprocessing with nothing missing, or `DensePreprocessing`;
            `None` where encoded images are not taken.
        class_names: One per class, or `None` where nothing is classified or, of a
            detector or segmenter, nobody knows them.
        top_k: How many of them an answer has.
        dense: Whether the model is a detector or segmenter.
    """

    preprocessing: Any = None
    class_names: tuple[str, ...] | None = None
    top_k: int = 0
    dense: bool = False


def offer(
    model: keras.Model,
    specs: Sequence[tf.TensorSpec],
    *,
    preprocessing: Preprocessing | DensePreprocessing | None = None,
    class_names: Iterable[str] | None = None,
    top_k: int = 5,
) -> Offer:
    """Check what is to be served against the model.

    Args:
        model: Model that is built, merged or not.
        specs: Specs of its inputs.
        preprocessing: How images are prepared, or `None` for the model's own; one in
            which nothing is known of the images counts as none.
        class_names: Names in the order of the outputs; `None`: those of
            `preprocessing`, or else, of a classifier, the numbers of the classes.
        top_k: How many classes `classify` names, at most.

    Raises:
        InputError: If something contradicts the model or is incomplete.
    """
    if _is_dense(model, preprocessing):
        return _dense_offer(model, specs, preprocessing, class_names)
    check_positive(top_k=top_k)
    own = getattr(model, "preprocessing", None)
    if preprocessing is None and isinstance(own, Preprocessing):
        known = own.complete
        preprocessing = own if known else Preprocessing(class_names=own.class_names)
    classes = _classes(model, specs)
    names = _names(classes, class_names, preprocessing)
    if names is None and classes:
        names = tuple(map(str, range(classes)))
    prepared = _checked_preprocessing(preprocessing, specs)
    return Offer(prepared, names, top_k=min(top_k, classes or 0))


def names_of(
    model: keras.Model,
    specs: Sequence[tf.TensorSpec],
    class_names: Iterable[str] | None = None,
    preprocessing: Preprocessing | DensePreprocessing | None = None,
) -> tuple[str, ...] | None:
    """Return the names of a model's classes, `None` where nobody knows them.

    The arguments are those of `offer`.

    Raises:
        InputError: If there is not one distinct name of one line for each class.
    """
    if _is_dense(model, preprocessing):
        return _dense_offer(model, specs, preprocessing, class_names).class_names
    return _names(_classes(model, specs), class_names, preprocessing)


def _is_dense(model, preprocessing):
    known = (preprocessing, getattr(model, "preprocessing", None))
    tasked = getattr(model, "task", None) in (DETECTION, SEGMENTATION)
    return tasked or any(isinstance(one, DensePreprocessing) for one in known)


def _dense_offer(model, specs, preprocessing, class_names):
    if preprocessing is None:
        preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is not None:
        _check_dense(model, specs, preprocessing)
        class_names = class_names or preprocessing.class_names
    if class_names is not None:
        class_names = _checked_names(class_names, _dense_classes(model))
    return Offer(preprocessing, class_names, dense=True)


def _dense_classes(model):
    known = getattr(model, "num_classes", None)
    if known is None and not isinstance(model.output, dict):
        known = model.output.shape[-1]  # logits
    if known is None:
        raise InputError(
            "Nothing says how many classes this detector has: leave `class_names` "
            f"out. Received: {model.name!r}"
        )
    return known


def _check_dense(model, specs, preprocessing):
    if not isinstance(preprocessing, DensePreprocessing):
        raise InputError(
            "Pictures of a detector or segmenter keep their aspect: pass a "
            "DensePreprocessing as `preprocessing`. "
            f"Received: {type(preprocessing).__name__}"
        )
    answers = DETECTION if isinstance(model.output, dict) else SEGMENTATION
    if preprocessing.task != answers:
        raise InputError(
            f"`preprocessing` is of {preprocessing.task} and this model does "
            f"{answers}. Received: {model.name!r}"
        )
    shape = _image_shape(specs, "(N, H, W, 3) of images")
    _check_size(shape, preprocessing.canvas, "canvas")
    if answers == SEGMENTATION and _dense_classes(model) > MOST_CLASSES:
        raise InputError(
            f"Class maps of encoded images have at most {MOST_CLASSES} classes: leave "
            f"`preprocessing` out. Received: {_dense_classes(model)} classes"
        )


def _image_shape(specs, wanted, floats=False):
    """Return the shape of the only input, which takes images of three channels."""
    shape = tuple(specs[0].shape)
    fits = len(specs) == 1 and len(shape) == 4 and shape[3] == 3
    if not fits or (floats and not specs[0].dtype.is_floating):
        raise InputError(
            f"`preprocessing` goes with a model of one input {wanted}. "
            f"Received: inputs {[tuple(spec.shape) for spec in specs]}"
        )
    return shape


def _check_size(shape, size, argument):
    sizes = (size, size) if isinstance(size, int) else tuple(size)
    if any(own not in (None, side) for own, side in zip(shape[1:3], sizes)):
        raise InputError(
            f"`preprocessing` must make images of the model's {shape[1]}x{shape[2]} "
            f"pixels. Received: {argument}={size}"
        )


def _names(classes, class_names, preprocessing):
    if class_names is None and preprocessing is not None and classes:
        class_names = preprocessing.class_names
    if class_names is not None and classes is None:
        raise InputError(
            "`class_names` go with a model of one output (N, classes), and this has "
            f"none. Received: {len(tuple(class_names))} class names"
        )
    return None if class_names is None else _checked_names(class_names, classes)


def _classes(model, specs):
    """Return the classes of a model of one output `(N, classes)`, else `None`."""
    if getattr(model, "num_classes", None) == 0:
        return None  # features
    if getattr(model, "outputs", None):
        outputs = model.outputs
    else:
        inputs = [keras.KerasTensor(spec.shape, spec.dtype.name) for spec in specs]
        outputs = keras.tree.flatten(model.compute_output_spec(*inputs))
    if len(specs) != 1 or len(outputs) != 1 or len(outputs[0].shape) != 2:
        return None
    return outputs[0].shape[1]


def _checked_preprocessing(preprocessing, specs):
    """Return the preprocessing if it says how to prepare an image, else `None`."""
    if preprocessing is None:
        return None
    missing = [name for name in NEEDED if getattr(preprocessing, name) is None]
    if {*missing, "image_size"} == set(NEEDED):
        return None
    if missing:
        raise InputError(
            "`preprocessing` must be complete, for encoded images to be prepared as "
            f"in evaluation. Received: no {', '.join(missing)}"
        )
    shape = _image_shape(specs, "(N, S, S, 3) of float images", floats=True)
    if None not in shape[1:3] and shape[1] != shape[2]:
        raise InputError(
            "`preprocessing` makes square images, and this model takes others: leave "
            f"it out. Received: a model of {shape[1]}x{shape[2]} pixels"
        )
    _check_size(shape, preprocessing.image_size, "image_size")
    return preprocessing


def _checked_names(names, classes):
    """Return names as a tuple: one distinct name of one line for each class."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InputError(
            "`class_names` must be a list of strings. "
            f"Received: class_names={_shortened(names)}"
        )
    names = tuple(names)
    if len(names) != classes:
        raise InputError(
            f"`class_names` must name each of the model's {classes} classes. "
            f"Received: {len(names)} class names"
        )
    if wrong := [n for n in names if not n.strip() or n.splitlines() != [n]]:
        raise InputError(
            "`class_names` must be of one line each and not empty. "
            f"Received: {_shortened(wrong)}"
        )
    if len(set(names)) < classes:
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            f"`class_names` must differ. Received more than once: {_shortened(twice)}"
        )
    return names


def _shortened(names):
    names = names if isinstance(names, str) else list(names)
    return repr(names[:3])[:200] + (f" and {len(names) - 3} more" * (len(names) > 3))
