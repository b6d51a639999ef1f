"""The checkpoint that an export starts from, and what is known of its images."""

import dataclasses
import json
from pathlib import Path

import keras

from kmlp.artifacts.locating import locate_checkpoint, newest
from kmlp.console import first_line
from kmlp.errors import InputError
from kmlp.preprocessing import FILES, Preprocessing, preprocessing_of
from kmlp.pretrained.restoring import load_checkpoint

GIVEN = ("image_size", "mean", "std", "test_crop", "test_interpolation")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A trained model and how its images are prepared.

    Attributes:
        path: of the `.keras` file.
        model: the train form.
        prepared: `Preprocessing`; its mean and deviation are `None` where nobody
            knows them.
        trained_on: name of the data, as the run wrote it; `None` where it did not.
    """

    path: Path
    model: keras.Model
    prepared: Preprocessing
    trained_on: str | None

    @property
    def preprocessing(self):
        """`prepared` where nothing is missing in it, and else `None`."""
        return self.prepared if self.prepared.complete else None


def open_checkpoint(path, *, weights="trained", given=None, class_names=None):
    """Loads a checkpoint.

    Args:
        path: of a `.keras` file, a run's version folder or a folder of versions.
        weights: of a run's folder: `"trained"`, or `"best"` of its epochs.
        given: `{name: value}` of `GIVEN` that override what was found; `None`: none.
        class_names: path of a file with one name per line or a JSON list; `None`:
            the names found with the checkpoint.

    Raises:
        InputError: there is no such checkpoint, or it cannot be read; names of another
            number than the outputs.
    """
    path = _located(Path(path).expanduser(), weights)
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


def _located(path, weights):
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
    """Height and width of the model's square images; `None` where they are open."""
    shape = next(iter(getattr(model, "inputs", None) or [None]))
    shape = () if shape is None else tuple(shape.shape)
    return shape[1] if len(shape) == 4 and shape[1] == shape[2] else None


def _names(path):
    try:
        text = path.read_text()
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
            data = json.loads(file.read_text()).get("data")  # read once before
            if isinstance(data, dict) and data.get("name"):
                return str(data["name"])
    return None
