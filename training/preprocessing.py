"""What a run wrote, beside its weights, of how its images were prepared."""

import dataclasses
import json
from pathlib import Path

from training.console import Stop

# The later overrides the former: a report has what training really used.
FILES = ("recipe.json", "report.json")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How images become a model's input; `None` where nothing was written.

    Attributes:
        mean, std: per channel, of images in 0…1.
        image_size: height and width of the input.
        test_crop: share of the resized image that the centre crop shows.
        test_interpolation: of that resizing.
        class_names: in the order of the outputs.
        found: the files that said so.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    test_crop: float | None = None
    test_interpolation: str | None = None
    class_names: tuple[str, ...] | None = None
    found: tuple[str, ...] = ()


def preprocessing_of(path):
    """Reads `recipe.json` and `report.json` in a folder, or beside a file.

    Args:
        path: of weights: a run's folder, a SavedModel's or a file.

    Raises:
        Stop: such a file that cannot be read.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    values, found = {}, []
    for name in FILES:
        if (folder / name).is_file():
            found.append(str(folder / name))
            written = _read(folder / name)
            for part in (written, written.get("recipe"), written.get("data")):
                values |= _known(part)
    return Preprocessing(**values, found=tuple(found))


def _known(part):
    """The fields that a part of a file has a value for."""
    if not isinstance(part, dict):
        return {}
    names = {field.name for field in dataclasses.fields(Preprocessing)} - {"found"}
    known = {n: part[n] for n in names if part.get(n) is not None}
    return {n: tuple(v) if isinstance(v, list) else v for n, v in known.items()}


def _read(path):
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Stop(
            "What a run wrote of its preprocessing cannot be read: restore the file, "
            f"or move it away and pass the values. Received: {str(path)!r} ({error})"
        ) from error
    return values if isinstance(values, dict) else {}
