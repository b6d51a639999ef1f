"""What is to be served of a detector or segmenter."""

import dataclasses

from kmlp.dense_preprocessing import DensePreprocessing
from kmlp.errors import InputError
from kmlp.export.class_names import checked_names

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
        _check(model, specs, preprocessing)
        class_names = class_names or preprocessing.class_names
    if class_names is not None:
        class_names = checked_names(class_names, _classes(model))
    return DenseOffer(preprocessing, class_names)


def _classes(model):
    known = getattr(model, "num_classes", None)
    if known is None and not isinstance(model.output, dict):
        known = model.output.shape[-1]  # logits
    if known is None:
        raise InputError(
            "Nothing says how many classes this detector has: leave `class_names` "
            f"out. Received: {model.name!r}"
        )
    return known


def _check(model, specs, preprocessing):
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
    if answers == SEGMENTATION and _classes(model) > MOST_CLASSES:
        raise InputError(
            f"Class maps of encoded images have at most {MOST_CLASSES} classes: leave "
            f"`preprocessing` out. Received: {_classes(model)} classes"
        )
