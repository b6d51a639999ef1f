"""Names of classes, checked."""

import dataclasses

import keras

from kmlp.errors import InputError
from kmlp.preprocessing import NEEDED, DensePreprocessing, Preprocessing


def checked_names(names, classes):
    """Names as a tuple, once they are found to be one for each class.

    Raises:
        InputError: not one distinct name of one line for each class.
    """
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


DETECTION, SEGMENTATION = "detection", "segmentation"
# A class map is served in bytes, of which the last stands for no class.
MOST_CLASSES = 255


@dataclasses.dataclass(frozen=True)
class DenseOffer:
    """What is served of a detector or segmenter, from `dense_offer`.

    Attributes:
        preprocessing: `DensePreprocessing`; `None` where encoded images are not taken.
        class_names: one per class, or `None` where nobody knows them.
    """

    preprocessing: DensePreprocessing | None = None
    class_names: tuple[str, ...] | None = None


def is_dense(model, preprocessing=None):
    """Whether a model, merged or not, is a detector or segmenter.

    Args:
        model: any `keras.Model`.
        preprocessing: what goes with it, or `None`.
    """
    known = (preprocessing, getattr(model, "preprocessing", None))
    tasked = getattr(model, "task", None) in (DETECTION, SEGMENTATION)
    return tasked or any(isinstance(one, DensePreprocessing) for one in known)


def dense_offer(model, specs, preprocessing=None, class_names=None):
    """Checks what is to be served against the model.

    Args:
        model: a detector or segmenter, merged or not.
        specs: of its inputs.
        preprocessing: `DensePreprocessing`, or `None` for the model's own.
        class_names: in the order of the classes; `None`: those of `preprocessing`.

    Raises:
        InputError: something contradicts the model.
    """
    if preprocessing is None:
        preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is not None:
        _check_dense(model, specs, preprocessing)
        class_names = class_names or preprocessing.class_names
    if class_names is not None:
        class_names = checked_names(class_names, _dense_classes(model))
    return DenseOffer(preprocessing, class_names)


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
    shape = tuple(specs[0].shape)
    if len(specs) != 1 or len(shape) != 4 or shape[3] != 3:
        raise InputError(
            "`preprocessing` goes with a model of one input (N, H, W, 3) of images. "
            f"Received: inputs {[tuple(spec.shape) for spec in specs]}"
        )
    canvas = tuple(preprocessing.canvas)
    if any(own not in (None, side) for own, side in zip(shape[1:3], canvas)):
        raise InputError(
            f"`preprocessing` must make images of the model's {shape[1]}x{shape[2]} "
            f"pixels. Received: canvas={canvas}"
        )
    if answers == SEGMENTATION and _dense_classes(model) > MOST_CLASSES:
        raise InputError(
            f"Class maps of encoded images have at most {MOST_CLASSES} classes: leave "
            f"`preprocessing` out. Received: {_dense_classes(model)} classes"
        )


@dataclasses.dataclass(frozen=True)
class Offer:
    """What is served of a model, from `offer`.

    Attributes:
        preprocessing: complete, or `None` where encoded images are not taken.
        class_names: one per class, or `None` where nothing is classified.
        top_k: how many of them an answer has.
    """

    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None
    top_k: int = 0


def offer(model, specs, *, preprocessing=None, class_names=None, top_k=5):
    """Checks what is to be served against the model.

    Args:
        model: a built `keras.Model`.
        specs: of its inputs.
        preprocessing: `kmlp.preprocessing.Preprocessing`, or `None` for the model's
            own; one in which nothing is known of the images counts as none.
        class_names: in the order of the outputs; `None`: those of `preprocessing`,
            or else the numbers of the classes.
        top_k: how many classes `classify` names, at most.

    Returns:
        An `Offer`; of detectors and segmenters a `DenseOffer`.

    Raises:
        InputError: something contradicts the model or is incomplete.
    """
    if is_dense(model, preprocessing):
        return dense_offer(model, specs, preprocessing, class_names)
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise InputError(f"`top_k` must be a positive integer. Received: top_k={top_k}")
    if preprocessing is None:
        preprocessing = _own(model)
    classes = _classes(model, specs)
    class_names = _names(classes, class_names, preprocessing)
    if class_names is None and classes:
        class_names = tuple(map(str, range(classes)))
    return Offer(
        preprocessing=_checked_preprocessing(preprocessing, specs),
        class_names=class_names,
        top_k=min(top_k, classes or 0),
    )


def names_of(model, specs, class_names=None, preprocessing=None):
    """The names of a model's classes, `None` where nobody knows them.

    Args:
        model, specs, class_names, preprocessing: as in `offer`.

    Raises:
        InputError: not one distinct name of one line for each class.
    """
    if is_dense(model, preprocessing):
        return dense_offer(model, specs, preprocessing, class_names).class_names
    return _names(_classes(model, specs), class_names, preprocessing)


def _own(model):
    """What a model knows of its images, at least the names of its classes."""
    own = getattr(model, "preprocessing", None)
    if not isinstance(own, Preprocessing):
        return None
    if own.complete:
        return own
    return Preprocessing(class_names=own.class_names)


def _names(classes, class_names, preprocessing):
    if class_names is None and preprocessing is not None and classes:
        class_names = preprocessing.class_names
    if class_names is not None and classes is None:
        raise InputError(
            "`class_names` go with a model of one output (N, classes), and this has "
            f"none. Received: {len(tuple(class_names))} class names"
        )
    return None if class_names is None else checked_names(class_names, classes)


def _classes(model, specs):
    """Number of classes of a model of one output `(N, classes)`, else `None`."""
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
    """The preprocessing where it says how to prepare an image, else `None`."""
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
    spec, *others = specs
    shape = tuple(spec.shape)
    if others or len(shape) != 4 or shape[3] != 3 or not spec.dtype.is_floating:
        raise InputError(
            "`preprocessing` goes with a model of one input (N, S, S, 3) of float "
            f"images. Received: inputs {[tuple(spec.shape) for spec in specs]}"
        )
    if None not in shape[1:3] and shape[1] != shape[2]:
        raise InputError(
            "`preprocessing` makes square images, and this model takes others: leave "
            f"it out. Received: a model of {shape[1]}x{shape[2]} pixels"
        )
    if {shape[1], shape[2]} - {preprocessing.image_size, None}:
        raise InputError(
            f"`preprocessing` must make images of the model's {shape[1]}x{shape[2]} "
            f"pixels. Received: image_size={preprocessing.image_size}"
        )
    return preprocessing
