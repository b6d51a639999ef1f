"""Match a network's outputs to the right classes of an image."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from kmlp.console import some
from kmlp.data.images import differences
from kmlp.errors import InputError
from kmlp.typing import PathLike
from kmlp.weights.catalogue import spellings

# ImageNet-ReaL numbers the validation images as their files do, from 1.
NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})\.", re.IGNORECASE)


def class_numbers(
    data_names: Sequence[str], output_names: Sequence[str] | None, outputs: int
) -> list[int]:
    """Return the output that each class of the data belongs to.

    Classes go by name where the names of the outputs are known. Folders that are all
    numbers, such as ImageNet-V2's, are the numbers of the outputs, unless the outputs
    are named by the same numbers.

    Args:
        data_names: Names of the data's classes, in the order of their labels.
        output_names: Names of the network's classes, or `None`.
        outputs: Number of the network's outputs.

    Raises:
        InputError: If the numbers of classes or their names differ.
    """
    if len(data_names) != outputs:
        raise InputError(
            f"The weights have {outputs:,} outputs and the data {len(data_names):,} "
            "classes: choose those that belong together. "
            f"Received: {some(data_names)}"
        )
    places = _places(output_names)
    if set(data_names) <= places.keys():
        return [places[name] for name in data_names]
    if _are_numbers(data_names):
        return [int(name) for name in data_names]
    if output_names is not None:
        raise InputError(
            "The data's classes are not those that the weights were trained on: "
            f"{differences(data_names, output_names, 'the data', 'the weights')}."
        )
    return list(range(outputs))


def read_labels(
    path: PathLike,
    files: Sequence[str],
    data_names: Sequence[str] | None,
    outputs: int,
) -> list[tuple[int, ...]]:
    """Read the right classes of images, a tuple for each, from a file of labels.

    Args:
        path: Path of a `.json` file as ImageNet-ReaL's, a list of lists of class
            numbers in the order of the validation images; or lines `filename class`,
            where a class is its number, or its name where the names are known.
        files: Paths of the images.
        data_names: Names of the network's classes in the order of its outputs, or
            `None`.
        outputs: Number of the network's outputs.

    Raises:
        InputError: If it cannot be read, a file has no label, or a class no output.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text("utf-8")
        json_like = text.lstrip().startswith("[")
        written = json.loads(text) if json_like else None
    except (OSError, ValueError) as error:
        raise InputError(
            f"--labels takes ReaL's JSON file or lines of filename and class: {error}. "
            f"Received: {str(path)!r}"
        ) from error
    if json_like:
        truth = _by_number(path, written, files)
    else:
        truth = _by_name(path, text, files, data_names)
    largest = max((c for classes in truth for c in classes), default=0)
    if largest >= outputs:
        raise InputError(
            f"The weights have {outputs:,} outputs and --labels class {largest:,}: "
            f"choose those that belong together. Received: {str(path)!r}"
        )
    return truth


def _places(names):
    """Return `{name: output}`, with all names that the classes go by."""
    return {
        name: place
        for known in (spellings(names) if names else ())
        for place, name in enumerate(known)
    }


def _by_number(path, written, files):
    well_formed = all(
        isinstance(classes, list) and all(type(c) is int and c >= 0 for c in classes)
        for classes in written
    )
    if not well_formed:
        raise InputError(
            "--labels needs a list of lists of class numbers, one per validation "
            f"image. Received: {str(path)!r}"
        )
    truth = []
    for file in files:
        number = NUMBERED.search(Path(file).name)
        if number is None or not 1 <= int(number.group(1)) <= len(written):
            raise InputError(
                "ReaL's labels are for files ILSVRC2012_val_00000001.* to "
                f"{len(written):08}: evaluate ImageNet's validation images. "
                f"Received: {str(file)!r}"
            )
        truth.append(tuple(written[int(number.group(1)) - 1]))
    return truth


def _by_name(path, text, files, names):
    places = _places(names)
    labels = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        file, _, name = line.strip().rpartition(" ")
        if name not in places and not name.isdecimal():
            raise InputError(
                "A line of --labels is a file's name, a space and its class, by "
                f"number or by a name that is known. Received: {str(path)!r}, line "
                f"{number}: {line!r}"
            )
        labels[file.strip()] = places[name] if name in places else int(name)
    missing = [file for file in files if Path(file).name not in labels]
    if missing:
        raise InputError(
            f"--labels has no line for {len(missing):,} of {len(files):,} images: add "
            f"them, or take the images away. Received: {str(path)!r} without "
            f"{some(Path(file).name for file in missing)}"
        )
    return [(labels[Path(file).name],) for file in files]


def _are_numbers(names):
    return sorted(name for name in names if name.isdecimal()) == sorted(
        map(str, range(len(names)))
    )
