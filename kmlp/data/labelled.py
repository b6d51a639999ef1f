"""Images to evaluate on, whose labels may come from elsewhere."""

from pathlib import Path

import numpy as np

from kmlp.data.folders import (
    SUFFIXES,
    VALIDATION_NAMES,
    image_paths,
    subfolders,
)
from kmlp.data.images import Files, Source, Split
from kmlp.data.sources import PREFIX, open_source
from kmlp.errors import InputError

LAYOUT = (
    "--data takes digits, tfds:NAME, or a folder with val/CLASS/*, test/CLASS/*, "
    "CLASS/* or, with --labels, images"
)


def open_evaluation(spec, *, data_dir=None, download=False, on_corrupt="stop"):
    """The images of an evaluation; of a folder, no training images are needed.

    Args:
        spec: `digits`, `tfds:NAME`, a folder with `val/CLASS`, `test/CLASS` or
            `CLASS`, or a folder of images.
        data_dir, download: of `tfds:`.
        on_corrupt: `"stop"` or `"skip"` where images cannot be decoded.

    Returns:
        A `Source`. Images without class folders have no class names, and -1 for
        their labels.

    Raises:
        InputError: nothing there to evaluate on.
    """
    if spec == "digits":
        return open_source(None)
    if spec.startswith(PREFIX):
        return open_source(
            spec, data_dir=data_dir, download=download, on_corrupt=on_corrupt
        )
    try:
        return _folder(_validation(Path(spec).expanduser()), on_corrupt)
    except OSError as error:  # no permission, a lost disk
        raise InputError(f"--data: {error}") from error


def _validation(folder):
    """The folder that holds the images to evaluate on."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{LAYOUT}; this {what}. Received: {str(folder)!r}")
    inner = _folders(folder)
    for name in VALIDATION_NAMES:
        if name in inner:
            return folder / name
    if inner == ["train"]:
        raise InputError(f"{LAYOUT}; this has only train. Received: {str(folder)!r}")
    if len(inner) == 1 and _folders(folder / inner[0]):
        return _validation(folder / inner[0])
    return folder


def _folder(folder, on_corrupt):
    names = _folders(folder)
    if len(names) == 1:
        raise InputError(
            "Images need a folder per class, two at least; there is only "
            f"{names[0]!r}. Received: {str(folder)!r}"
        )
    if not names:
        paths = _images(folder)
        labels = np.full(len(paths), -1, "int32")
    else:
        listed = [_images(folder / name) for name in names]
        paths = [path for of_class in listed for path in of_class]
        labels = np.repeat(np.arange(len(names)), [len(part) for part in listed])
    return Source(
        name=str(folder),
        class_names=tuple(names),
        train=None,
        validation=Split(
            str(folder), Files(np.array(paths), labels), on_corrupt=on_corrupt
        ),
    )


def _folders(folder):
    return [path.name for path in subfolders(folder)]


def _images(folder):
    paths = image_paths(folder)
    if not paths:
        raise InputError(
            f"A folder without images ({', '.join(SUFFIXES)}). "
            f"Received: {str(folder)!r}"
        )
    return paths
