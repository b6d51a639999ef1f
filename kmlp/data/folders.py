"""Image folders: `train/CLASS/*` and `val/CLASS/*` or `test/CLASS/*`."""

import os
from pathlib import Path

import numpy as np

from kmlp.console import some
from kmlp.data.images import Files, Source, Split
from kmlp.errors import InputError
from kmlp.statistics import IMAGENET

SUFFIXES = (".jpg", ".jpeg", ".png")
VALIDATION_NAMES = ("val", "validation", "test")
LAYOUT = "--data takes a folder with train/CLASS/* and val/CLASS/* or test/CLASS/*"


def image_folder(folder, on_corrupt="stop"):
    """A folder of images by class, listed but not read, as a `Source`.

    Args:
        folder: holds `train` and `val`, `validation` or `test`, or one folder that
            does.
        on_corrupt: `"stop"` or `"skip"` where images cannot be decoded.

    Raises:
        InputError: no such folder, nothing in it, or classes that do not agree.
    """
    root = _root(Path(folder).expanduser())
    train = root / "train"
    validation = _validation(root)
    if validation is None:
        raise InputError(f"{LAYOUT}; this has only train. Received: {str(root)!r}")
    names, others = _classes(train), _classes(validation)
    if others != names:
        raise InputError(
            f"train and {validation.name} must hold the same class folders; only in "
            f"train: {some(set(names) - set(others))}; only in {validation.name}: "
            f"{some(set(others) - set(names))}. Received: {str(root)!r}"
        )
    return Source(
        name=str(root),
        class_names=names,
        train=_split(train, names, on_corrupt),
        validation=_split(validation, names, on_corrupt),
    )


def _root(folder):
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{LAYOUT}; this {what}. Received: {str(folder)!r}")
    inner = subfolders(folder)
    candidates = [folder, *inner]
    homes = [path for path in candidates if (path / "train").is_dir()]
    if homes and (homes[0] == folder or len(homes) == 1):
        return homes[0]
    found = "several of its folders have" if homes else "there is no train in it"
    if not homes and not inner:
        found = "this is empty" if not any(folder.iterdir()) else "this has no folders"
    raise InputError(f"{LAYOUT}; {found}. Received: {str(folder)!r}")


def _validation(root):
    folders = (root / name for name in VALIDATION_NAMES)
    return next((folder for folder in folders if folder.is_dir()), None)


def subfolders(folder):
    """Folders in a folder, sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )


def _classes(folder):
    """Names of the class folders, in the order of the labels."""
    names = [path.name for path in subfolders(folder)]
    if len(names) < 2:
        found = f"there is only {names[0]!r}" if names else "there is none"
        raise InputError(
            f"Images need a folder per class, two at least; {found}. "
            f"Received: {str(folder)!r}"
        )
    if all(name.isdecimal() for name in names):
        names.sort(key=lambda name: (int(name), name))  # as ImageNet-V2's are meant
    return tuple(names)


def image_paths(folder):
    """Paths of the images in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.path for e in entries if e.name.lower().endswith(SUFFIXES))


def nested_images(folder):
    """Paths of the images in a `pathlib` folder and in the folders within, sorted."""
    return sorted(
        str(path) for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES)
    )


def _split(folder, names, on_corrupt):
    paths, labels = [], []
    for label, name in enumerate(names):
        found = image_paths(folder / name)
        if not found:
            raise InputError(
                f"A class folder without images ({', '.join(SUFFIXES)}): put some "
                "there or remove the class from both splits. "
                f"Received: {str(folder / name)!r}"
            )
        paths += found
        labels += [label] * len(found)
    store = Files(np.array(paths), np.array(labels, "int32"))
    # ImageNet's statistics, with which published weights were trained.
    return Split(str(folder), store, *IMAGENET, on_corrupt)
