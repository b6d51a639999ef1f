"""Open the checkpoint and the images that an export starts from."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp.artifacts.locating import locate_checkpoint, newest
from kmlp.console import first_line
from kmlp.data.image_files import list_images
from kmlp.data.images import Files, Split, some_of
from kmlp.data.labelled import class_numbers
from kmlp.data.reading import evaluation_batches, read
from kmlp.data.sources import NAME as DIGITS
from kmlp.data.sources import (
    PREFIX,
    open_evaluation,
    open_source,
    subfolders,
)
from kmlp.errors import InputError
from kmlp.preprocessing import FILES, Preprocessing, preprocessing_of
from kmlp.pretrained.restoring import load_checkpoint
from kmlp.typing import PathLike

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A trained model and how its images are prepared.

    Attributes:
        path: Path of the `.keras` file.
        model: Train form.
        prepared: Preparation of the images, a `Preprocessing`; its mean and deviation
            are `None` where nobody knows them.
        trained_on: Name of the data, as the run wrote it; `None` where it did not.
    """

    path: Path
    model: keras.Model
    prepared: Preprocessing
    trained_on: str | None

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Return `prepared` if nothing is missing in it, else `None`."""
        return self.prepared if self.prepared.complete else None


def open_checkpoint(
    path: PathLike,
    *,
    weights: str = "trained",
    given: dict[str, Any] | None = None,
    class_names: PathLike | None = None,
) -> Checkpoint:
    """Load a checkpoint.

    Args:
        path: Path of a `.keras` file, a run's version folder or a folder of versions.
        weights: Of a run's folder, `"trained"`, or `"best"` of its epochs.
        given: Fields of `Preprocessing` that override what was found.
        class_names: Path of a file with one name per line or a JSON list; `None`:
            the names found with the checkpoint.

    Raises:
        InputError: If there is no such checkpoint, it cannot be read, or there are
            other names than outputs.
    """
    path = locate(path, weights)
    model = load_checkpoint(path)
    given = dict(given or {})
    if class_names is not None:
        given["class_names"] = _names(Path(class_names).expanduser())
    prepared = preprocessing_of(path).completed(given)
    size = _image_size(model)
    if size is not None and given.get("image_size") not in (None, size):
        raise InputError(
            f"The weights take images of {size}x{size}: leave --image-size out. "
            f"Received: --image-size {given['image_size']}"
        )
    size = size or prepared.image_size
    prepared = dataclasses.replace(prepared, image_size=size)
    return Checkpoint(path, model, prepared, _trained_on(path))


def locate(path: PathLike, weights: str) -> Path:
    """Return the `.keras` file of a path and of a run's trained or best weights.

    Raises:
        InputError: If there is none.
    """
    path = Path(path).expanduser()
    if weights == "trained" or not path.is_dir():
        return locate_checkpoint(path)
    best = newest(path) / f"{weights}.keras"
    if not best.is_file():
        raise InputError(
            f"This run kept no {best.name}: leave --weights out for its last epoch. "
            f"Received: {str(path)!r}"
        )
    return locate_checkpoint(best)


def _image_size(model):
    """Return the side of the model's square images; `None` where it is open."""
    shape = next(iter(getattr(model, "inputs", None) or [None]))
    shape = () if shape is None else tuple(shape.shape)
    return shape[1] if len(shape) == 4 and shape[1] == shape[2] else None


def _names(path):
    try:
        text = path.read_text("utf-8")
        names = json.loads(text) if text.lstrip().startswith("[") else text.split("\n")
    except (OSError, ValueError) as error:
        raise InputError(
            "--class-names takes a file with one name per line, or a JSON list. "
            f"Received: {str(path)!r} ({first_line(error)})"
        ) from error
    return tuple(str(name).strip() for name in names if str(name).strip())


def _trained_on(path):
    for name in reversed(FILES):
        file = path.parent / name
        if file.is_file():
            data = json.loads(file.read_text("utf-8")).get("data")  # read once before
            if isinstance(data, dict) and data.get("name"):
                return str(data["name"])
    return None


@dataclasses.dataclass(frozen=True)
class Images:
    """The images that an export is tested on.

    Attributes:
        name: Name of the data.
        split: Validation images.
        classes: For each class of the data the output that it belongs to.
        train: Training images, `None` where there are none.
        prepared: Preparation of the images, a `Preprocessing` with nothing missing.
    """

    name: str
    split: Split
    classes: list[int]
    train: Split | None
    prepared: Preprocessing

    @property
    def count(self) -> int:
        """Return the number of validation images."""
        return self.split.count

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield images, as the model takes them, and their right outputs."""
        for images, labels in _batches(self.split, self.prepared):
            yield images, np.asarray(self.classes)[labels]


def open_images(
    checkpoint: Checkpoint, spec: str | None = None, *, count: int | None = None
) -> Images | None:
    """Open the validation images of an export.

    Args:
        checkpoint: Checkpoint that is exported.
        spec: Data: `digits`, a folder, `tfds:NAME`, or `None`: the data that the run
            was trained on, if it is at hand.
        count: Largest number of images; `None`: all.

    Returns:
        The images, or `None` where none were named and none are at hand.

    Raises:
        InputError: If there are no such data or other classes than the model's, or
            nothing says how its images are prepared.
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


def calibration_images(
    checkpoint: Checkpoint, images: Images | None, folder: Path | None, count: int
) -> tuple[np.ndarray, str]:
    """Return images that show the ranges of activations, and what they are.

    Args:
        checkpoint: Checkpoint that is exported.
        images: Images, whose training images serve, or `None`.
        folder: Folder of images, nested or flat, that serve instead, or `None`.
        count: Largest number of images.

    Raises:
        InputError: If there are none.
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
    """Return how the command line names a run's data, if they are at hand."""
    if name == DIGITS:
        return "digits"
    return name if name is not None and Path(name).expanduser().is_dir() else None


def _opened(spec):
    """Open data with their training images, if there are any."""
    if spec == "digits":
        return open_source(None)
    folder = Path(spec).expanduser()
    is_folder = not spec.startswith(PREFIX) and folder.is_dir()
    homes = [folder, *subfolders(folder)] if is_folder else []
    trains = any((home / "train").is_dir() for home in homes)
    return open_source(spec) if trains else open_evaluation(spec)


def _outputs(model):
    """Return the number of classes of a model that takes square images."""
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
    """Return how images are prepared, by the checkpoint or else by its own data."""
    prepared = getattr(source, "prepared", checkpoint.prepared)
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
    """Return all images in a folder and in the folders within it."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(
            f"--representative takes a folder of images; this {what}. "
            f"Received: {str(folder)!r}"
        )
    found = list_images(folder)
    paths = found.images("--representative takes one that has some", folder)
    found.say(folder)
    labels = np.zeros(len(paths), "int32")
    return Split(str(folder), Files(np.array(paths), labels))


def _batches(split, prepared):
    """Yield images and labels, without padding."""
    batches = evaluation_batches(
        split, prepared, image_size=prepared.image_size, batch_size=BATCH
    )
    for images, labels, kept in read(batches):
        yield images[kept > 0], labels[kept > 0]
