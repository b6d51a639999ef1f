"""Data sets of images by class, as `--data` names them.

The embedded one is scikit-learn's: 1797 handwritten digits of 8x8 pixels.
"""

import collections
import dataclasses
import os
from pathlib import Path

import numpy as np

from kmlp.data.image_files import ignored_in_words, list_images, subfolder_names
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
        files, ignored = _by_class(folder, names) if names else _unlabelled(folder)
        split = Split(str(folder), files, on_corrupt=on_corrupt)
        source = Source(str(folder), names, train=None, validation=split)
        return _said(source, ignored)


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
    splits: dict[str, Split] = {}
    ignored = collections.Counter[str]()
    for name, part in {"train": train, "validation": validation}.items():
        files, others = _by_class(part, names)
        # ImageNet's statistics, with which published weights were trained.
        splits[name] = Split(str(part), files, *IMAGENET, on_corrupt)
        ignored += others
    both = splits["train"], splits["validation"]
    return _said(Source(str(root), names, *both), ignored)


def _said(source, ignored):
    """Return a source that knows what was left out of it, once that is said."""
    if words := ignored_in_words(ignored):
        print(f"{source.name}: {words}", flush=True)
    return dataclasses.replace(source, ignored=words)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden and systems' own."""
    names = subfolder_names(path.name for path in folder.iterdir() if path.is_dir())
    return [folder / name for name in names]


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
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                "Names of classes are UTF-8, and the name of a folder is not: rename "
                f"it. Received: {os.fsencode(folder / name)!r}"
            ) from error
    if all(name.isdecimal() for name in names):
        names.sort(key=lambda name: (int(name), name))  # as ImageNet-V2's are meant
    return tuple(names)


def _by_class(folder, names):
    """Return the images of class folders and how many files are none, by reason."""
    # What lies beside the class folders.
    ignored = list_images(folder, suffixes=(), deep=False).ignored
    paths, counts = [], []
    for name in names:
        found = list_images(folder / name)
        remedy = "put some there or remove the class from every split"
        paths += found.images(remedy, folder / name)
        counts.append(len(found.paths))
        ignored += found.ignored
    labels = np.repeat(np.arange(len(names), dtype="int32"), counts)
    return Files(np.array(paths), labels), ignored


def _unlabelled(folder):
    found = list_images(folder)
    paths = found.images("choose one that has some", folder)
    return Files(np.array(paths), np.full(len(paths), -1, "int32")), found.ignored
