"""The images that files are run on, and those that show their ranges."""

import dataclasses
from pathlib import Path

import numpy as np

from kmlp.data.images import Files, Split, some_of
from kmlp.data.labelled import class_numbers
from kmlp.data.reading import evaluation_batches, read
from kmlp.data.sources import NAME as DIGITS
from kmlp.data.sources import (
    PREFIX,
    SUFFIXES,
    nested_images,
    open_evaluation,
    open_source,
    subfolders,
)
from kmlp.errors import InputError

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Images:
    """What an export is tested on.

    Attributes:
        name: of the data.
        split: the validation images.
        classes: for each class of the data the output that it belongs to.
        train: the training images, `None` where there are none.
        prepared: `Preprocessing` with nothing missing.
    """

    name: str
    split: Split
    classes: list
    train: Split | None
    prepared: object

    @property
    def count(self):
        return self.split.count

    def batches(self):
        """Pairs of images, as the model takes them, and their right outputs."""
        for images, labels in _batches(self.split, self.prepared):
            yield images, np.asarray(self.classes)[labels]


def open_images(checkpoint, spec=None, *, count=None):
    """The validation images of an export.

    Args:
        checkpoint: `Checkpoint`.
        spec: `digits`, a folder, `tfds:NAME`, or `None`: the data that the run was
            trained on, if it is at hand.
        count: at most so many images; `None`: all.

    Returns:
        `Images`, or `None` where none were named and none are at hand.

    Raises:
        InputError: no such data, other classes than the model's, or nothing that says
            how its images are prepared.
    """
    if spec is None:
        spec = _own(checkpoint.trained_on)
        if spec is None:
            return None
        print(f"Images of the run's own data: {checkpoint.trained_on}", flush=True)
    source = _opened(spec)
    if not source.class_names:
        raise InputError(
            "--data takes images in one folder per class, in the order of the model's "
            f"outputs. Received: {source.name!r}"
        )
    outputs = _outputs(checkpoint.model)
    names = checkpoint.prepared.class_names
    return Images(
        name=source.name,
        split=some_of(source.validation, count),
        classes=class_numbers(source.class_names, names, outputs),
        train=source.train,
        prepared=_completed(checkpoint, source if spec == "digits" else None),
    )


def calibration_images(checkpoint, images, folder, count):
    """Images that show the ranges of activations, as the model takes them.

    Args:
        checkpoint: `Checkpoint`.
        images: `Images`, whose training images serve, or `None`.
        folder: of images, nested or flat, that serve instead, or `None`.
        count: at most so many.

    Returns:
        `(array, what they are)`, float32.

    Raises:
        InputError: there are none.
    """
    if folder is not None:
        split, prepared = _folder(folder), _completed(checkpoint, images)
    elif images is not None and images.train is not None:
        split, prepared = images.train, images.prepared
    else:
        raise InputError(
            "int8 needs images that show the ranges of its activations: pass --data "
            "digits, tfds:NAME or a folder with train/CLASS/*, or --representative "
            f"with a folder of images. Received: {checkpoint.path.name!r} without any"
        )
    split = some_of(split, count)
    batches = [batch for batch, _ in _batches(split, prepared)]
    return np.concatenate(batches), f"{split.count:,} images of {split.name}"


def _own(name):
    """How the data a run was trained on is named on the command line, if at hand."""
    if name == DIGITS:
        return "digits"
    if name is not None and Path(name).expanduser().is_dir():
        return name
    return None


def _opened(spec):
    if spec == "digits":
        return open_source(None)
    if not spec.startswith(PREFIX) and _has_train(Path(spec).expanduser()):
        return open_source(spec)
    return open_evaluation(spec)


def _has_train(folder):
    if not folder.is_dir():
        return False
    return any((home / "train").is_dir() for home in [folder, *subfolders(folder)])


def _outputs(model):
    """The number of classes of a model that takes square images."""
    shapes = [tuple(t.shape) for t in (*model.inputs, *model.outputs)]
    fits = len(shapes) == 2 and list(map(len, shapes)) == [4, 2] and shapes[0][-1] == 3
    if not fits or shapes[0][1] != shapes[0][2]:
        raise InputError(
            "Only models from square images (N, S, S, 3) to classes (N, classes) are "
            "evaluated: leave --data out to export without. "
            f"Received: {', '.join(map(str, shapes))}"
        )
    return shapes[1][1]


def _completed(checkpoint, source):
    """How the images are prepared, by the checkpoint or else by its own data."""
    prepared = checkpoint.prepared
    prepared = getattr(source, "prepared", prepared)
    for name in ("mean", "std"):
        if getattr(prepared, name) is None and source is not None:
            value = getattr(source, name, None)
            prepared = dataclasses.replace(prepared, **{name: value})
    missing = [f"--{name}" for name in ("mean", "std") if not getattr(prepared, name)]
    if prepared.image_size is None:
        missing.append("--image-size")
    if missing:
        raise InputError(
            f"Nothing says how the images are prepared: pass {' and '.join(missing)}, "
            "or keep the run's recipe.json beside the checkpoint. "
            f"Received: {str(checkpoint.path)!r}"
        )
    return prepared


def _folder(folder):
    """All images in a folder and in the folders within it."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(
            f"--representative takes a folder of images; this {what}. "
            f"Received: {str(folder)!r}"
        )
    paths = nested_images(folder)
    if not paths:
        raise InputError(
            f"--representative needs images ({', '.join(SUFFIXES)}), and this folder "
            f"has none. Received: {str(folder)!r}"
        )
    labels = np.zeros(len(paths), "int32")
    return Split(str(folder), Files(np.array(paths), labels))


def _batches(split, prepared):
    """Pairs of images and labels, without padding."""
    batches = evaluation_batches(
        split, prepared, image_size=prepared.image_size, batch_size=BATCH
    )
    for images, labels, kept in read(batches):
        yield images[kept > 0], labels[kept > 0]
