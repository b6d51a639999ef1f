"""Data sets of images by class, as `--data` names them.

The embedded one is scikit-learn's: 1797 handwritten digits of 8x8 pixels.
"""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kmlp.data.images import (
    Files,
    Memory,
    Source,
    Split,
    check_folder,
    differences,
    disk_errors_reported,
)
from kmlp.errors import InputError
from kmlp.statistics import IMAGENET
from kmlp.typing import PathLike

NAME = "scikit-learn's handwritten digits"
VALIDATION_SHARE = 0.2
PREFIX = "tfds:"
SUFFIXES = (".jpg", ".jpeg", ".png")
VALIDATION_NAMES = ("val", "validation", "test")
LAYOUT = "--data takes a folder with train/CLASS/* and val/CLASS/* or test/CLASS/*"
EVALUATION_LAYOUT = (
    "--data takes digits, tfds:NAME, or a folder with val/CLASS/*, test/CLASS/*, "
    "CLASS/* or, with --labels, images"
)


def open_source(
    spec: PathLike | None = None,
    *,
    data_dir: PathLike | None = None,
    download: bool = False,
    on_corrupt: str = "stop",
) -> Source:
    """Open a data set to train on: list it, without reading its images.

    Args:
        spec: Folder of images, `tfds:NAME[/CONFIG]`, or `None`: the embedded digits.
        data_dir: Folder of TensorFlow Datasets' sets; `None`: its default.
        download: Whether a set that is missing is fetched.
        on_corrupt: What to do where images cannot be decoded, `"stop"` or `"skip"`.

    Raises:
        InputError: If there is no such data, or none in a known layout.
    """
    if spec is None:
        return digits()
    if str(spec).startswith(PREFIX):
        from kmlp.data.named import named_set

        name = str(spec).removeprefix(PREFIX)
        return named_set(name, data_dir, download=download, on_corrupt=on_corrupt)
    with disk_errors_reported():
        return image_folder(spec, on_corrupt)


def open_evaluation(
    spec: str,
    *,
    data_dir: PathLike | None = None,
    download: bool = False,
    on_corrupt: str = "stop",
) -> Source:
    """Open the images of an evaluation; a folder needs no training images.

    Args:
        spec: Data: `digits`, `tfds:NAME`, a folder with `val/CLASS`, `test/CLASS` or
            `CLASS`, or a folder of images.
        data_dir: Folder of TensorFlow Datasets' sets; `None`: its default.
        download: Whether a set that is missing is fetched.
        on_corrupt: What to do where images cannot be decoded, `"stop"` or `"skip"`.

    Returns:
        A `Source`. Images without class folders have no class names and the labels -1.

    Raises:
        InputError: If there is nothing to evaluate on.
    """
    if spec == "digits":
        return digits()
    if spec.startswith(PREFIX):
        return open_source(
            spec, data_dir=data_dir, download=download, on_corrupt=on_corrupt
        )
    with disk_errors_reported():
        folder = _evaluated(Path(spec).expanduser())
        names = _classes(folder) if subfolders(folder) else ()
        files = _by_class(folder, names) if names else _unlabelled(folder)
        split = Split(str(folder), files, on_corrupt=on_corrupt)
        return Source(str(folder), names, train=None, validation=split)


def digits() -> Source:
    """Return the embedded digits, always split alike."""
    # Only the embedded data need it.
    import sklearn.datasets
    import sklearn.model_selection

    data = sklearn.datasets.load_digits()
    images = np.rint(data.images[..., None] * (255 / data.images.max()))
    train, validation, train_labels, validation_labels = (
        sklearn.model_selection.train_test_split(
            np.repeat(images, 3, axis=-1).astype("uint8"),
            data.target,
            test_size=VALIDATION_SHARE,
            stratify=data.target,
            random_state=0,
        )
    )
    mean, std = (
        (round(float(measure(train)) / 255, 4),) * 3 for measure in (np.mean, np.std)
    )
    return Source(
        name=NAME,
        class_names=tuple("0123456789"),
        train=Split(NAME, Memory(train, train_labels), mean, std),
        validation=Split(NAME, Memory(validation, validation_labels), mean, std),
        flip=False,
    )


def image_folder(folder: PathLike, on_corrupt: str = "stop") -> Source:
    """List a folder of images by class, without reading them.

    Args:
        folder: Folder with `train` and `val`, `validation` or `test`, or with one
            folder that has them.
        on_corrupt: What to do where images cannot be decoded, `"stop"` or `"skip"`.

    Raises:
        InputError: If there is no such folder, nothing in it, or if the classes do not
            agree.
    """
    root = _root(Path(folder).expanduser())
    train, validation = root / "train", _validation(root)
    if validation is None:
        raise InputError(f"{LAYOUT}; this has only train. Received: {str(root)!r}")
    names, others = _classes(train), _classes(validation)
    if others != names:
        raise InputError(
            f"train and {validation.name} must hold the same class folders; "
            f"{differences(names, others, 'train', validation.name)}. "
            f"Received: {str(root)!r}"
        )
    # ImageNet's statistics, with which published weights were trained.
    train_split, validation_split = (
        Split(str(part), _by_class(part, names), *IMAGENET, on_corrupt)
        for part in (train, validation)
    )
    return Source(str(root), names, train_split, validation_split)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )


def nested_images(folder: Path) -> list[str]:
    """Return the paths of the images anywhere below a folder, sorted."""
    return sorted(
        str(path) for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES)
    )


def images_of(arguments: Iterable[PathLike]) -> list[str]:
    """Return the image files that files, folders and globs stand for.

    Args:
        arguments: Paths; folders are searched with all that is in them.

    Returns:
        Paths, sorted within a folder or glob.

    Raises:
        InputError: If one stands for nothing.
    """
    found = []
    for argument in map(str, arguments):
        path = Path(argument).expanduser()
        if path.is_dir():
            files = nested_images(path)
            if not files:
                raise InputError(
                    f"A folder without images ({', '.join(SUFFIXES)}): choose one that "
                    f"has some. Received: {argument!r}"
                )
        elif path.exists():
            files = [str(path)]
        else:
            files = sorted(glob.glob(str(path), recursive=True))
            files = [f for f in files if not os.path.isdir(f)]
            if not files:
                raise InputError(
                    "There is no such image, nor do images match it as a pattern. "
                    f"Received: {argument!r}"
                )
        found += files
    return list(dict.fromkeys(found))


def _root(folder):
    """Return the folder that has `train`: `folder` or one in it."""
    check_folder(folder, LAYOUT)
    inner = subfolders(folder)
    homes = [path for path in [folder, *inner] if (path / "train").is_dir()]
    if homes and (homes[0] == folder or len(homes) == 1):
        return homes[0]
    found = "several of its folders have" if homes else "there is no train in it"
    if not homes and not inner:
        found = "this is empty" if not any(folder.iterdir()) else "this has no folders"
    raise InputError(f"{LAYOUT}; {found}. Received: {str(folder)!r}")


def _validation(root):
    folders = (root / name for name in VALIDATION_NAMES)
    return next((folder for folder in folders if folder.is_dir()), None)


def _evaluated(folder):
    """Return the folder with the images to evaluate on."""
    check_folder(folder, EVALUATION_LAYOUT)
    if validation := _validation(folder):
        return validation
    inner = subfolders(folder)
    if [path.name for path in inner] == ["train"]:
        raise InputError(
            f"{EVALUATION_LAYOUT}; this has only train. Received: {str(folder)!r}"
        )
    if len(inner) == 1 and subfolders(inner[0]):
        return _evaluated(inner[0])
    return folder


def _classes(folder):
    """Return the names of the class folders in the order of the labels."""
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


def _by_class(folder, names):
    listed = [
        _images(folder / name, "put some there or remove the class from every split")
        for name in names
    ]
    labels = np.repeat(np.arange(len(names), dtype="int32"), list(map(len, listed)))
    return Files(np.concatenate(listed), labels)


def _unlabelled(folder):
    paths = _images(folder, "choose one that has some")
    return Files(np.array(paths), np.full(len(paths), -1, "int32"))


def _images(folder, remedy):
    with os.scandir(folder) as entries:
        paths = [e.path for e in entries if e.name.lower().endswith(SUFFIXES)]
    if not paths:
        raise InputError(
            f"A folder without images ({', '.join(SUFFIXES)}): {remedy}. "
            f"Received: {str(folder)!r}"
        )
    return sorted(paths)
