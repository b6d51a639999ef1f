"""Image folders: `train/CLASS/*` and `val/CLASS/*` or `test/CLASS/*`."""

import dataclasses
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from training.console import Stop
from training.data import Images, Split, fits_in_memory, square, stored_size

SUFFIXES = (".jpg", ".jpeg", ".png")
VALIDATION_NAMES = ("val", "test")
# ImageNet's, with which published weights were trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUT = "--data takes a folder with train/CLASS/* and val/CLASS/* or test/CLASS/*"
NAMED = 3  # how many of many a message names


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a split with their class numbers."""

    folder: Path
    paths: np.ndarray
    labels: np.ndarray


class ImageFolder:
    """A folder of images by class, listed but not decoded.

    Args:
        folder: holds `train` and `val` or `test`, or one folder that does.

    Attributes:
        class_names: in the order of the labels, sorted.

    Raises:
        Stop: no such folder, nothing in it, or classes that do not agree.
    """

    def __init__(self, folder):
        self.root = _root(Path(folder).expanduser())
        train = self.root / "train"
        validation = next(
            (self.root / n for n in VALIDATION_NAMES if (self.root / n).is_dir()), None
        )
        if validation is None:
            raise Stop(f"{LAYOUT}; this has only train. Received: {str(self.root)!r}")
        self.class_names = _classes(train)
        others = _classes(validation)
        if others != self.class_names:
            raise Stop(
                f"train and {validation.name} must hold the same class folders; only "
                f"in train: {_some(set(self.class_names) - set(others))}; only in "
                f"{validation.name}: {_some(set(others) - set(self.class_names))}. "
                f"Received: {str(self.root)!r}"
            )
        self.train = _listing(train, self.class_names)
        self.validation = _listing(validation, self.class_names)

    def load(self, size, on_corrupt):
        """Decodes every image once and finds those that cannot be.

        Images that fit in memory stay there; others are decoded in every epoch.

        Args:
            size: of the images that the model sees.
            on_corrupt: `"stop"` or `"skip"` where files cannot be decoded.

        Returns:
            The `Images`.

        Raises:
            Stop: files that cannot be decoded, or a class of nothing else.
        """
        stored = stored_size(size)
        count = len(self.train.paths) + len(self.validation.paths)
        keep = fits_in_memory(count, stored)
        splits, corrupt = [], []
        for listing in (self.train, self.validation):
            split, failed = _decode(listing, stored, keep)
            splits.append(split)
            corrupt += failed
        if corrupt and on_corrupt == "stop":
            raise Stop(
                f"{_images(len(corrupt))} cannot be decoded: replace or remove what is "
                "damaged, or pass --on-corrupt skip to train on the rest. Received: "
                f"{_reasons(corrupt)}"
            )
        for listing, split in zip((self.train, self.validation), splits):
            for label in sorted(set(listing.labels) - set(split.labels)):
                folder = listing.folder / self.class_names[label]
                raise Stop(
                    "No image of a class can be decoded: replace what is damaged. "
                    f"Received: {str(folder)!r}, {_reasons(corrupt)}"
                )
        if corrupt:
            print(f"Skipped {_images(len(corrupt))}: {_reasons(corrupt)}")
        return Images(
            name=str(self.root),
            class_names=self.class_names,
            size=size,
            mean=MEAN,
            std=STD,
            flip=True,
            train=splits[0],
            validation=splits[1],
            skipped=tuple(corrupt),
        )


def _root(folder):
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise Stop(f"{LAYOUT}; this {what}. Received: {str(folder)!r}")
    inner = _subfolders(folder)
    candidates = [folder, *inner]
    homes = [path for path in candidates if (path / "train").is_dir()]
    if homes and (homes[0] == folder or len(homes) == 1):
        return homes[0]
    found = "several of its folders have" if homes else "there is no train in it"
    if not homes and not inner:
        found = "this is empty" if not any(folder.iterdir()) else "this has no folders"
    raise Stop(f"{LAYOUT}; {found}. Received: {str(folder)!r}")


def _subfolders(folder):
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )


def _classes(folder):
    names = tuple(path.name for path in _subfolders(folder))
    if len(names) < 2:
        found = f"there is only {names[0]!r}" if names else "there is none"
        raise Stop(
            f"Images need a folder per class, two at least; {found}. "
            f"Received: {str(folder)!r}"
        )
    return names


def _listing(folder, names):
    paths, labels = [], []
    for label, name in enumerate(names):
        with os.scandir(folder / name) as entries:
            found = sorted(e.path for e in entries if e.name.lower().endswith(SUFFIXES))
        if not found:
            raise Stop(
                f"A class folder without images ({', '.join(SUFFIXES)}): put some "
                "there or remove the class from both splits. "
                f"Received: {str(folder / name)!r}"
            )
        paths += found
        labels += [label] * len(found)
    return Listing(folder, np.array(paths), np.array(labels))


def _decode(listing, size, keep):
    """The `Split` of what can be decoded, and the paths of what cannot."""
    count = len(listing.paths)
    readable = np.zeros(count, bool)
    images = np.zeros((count if keep else 0, size, size, 3), np.uint8)
    decoded = (
        tf.data.Dataset.from_tensor_slices((np.arange(count), listing.paths))
        .map(
            lambda index, path: (index, square(tf.io.read_file(path), size)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=False,
        )
        .ignore_errors()
        .batch(256)
        .prefetch(2)
    )
    print(f"Reading {count:,} images: {listing.folder}")
    bar = keras.utils.Progbar(count, verbose=int(sys.stdout.isatty()))
    for index, batch in decoded.as_numpy_iterator():
        readable[index] = True
        if keep:
            images[index] = batch
        bar.add(len(index))
    split = Split(
        labels=listing.labels[readable],
        images=images[readable] if keep else None,
        paths=None if keep else listing.paths[readable],
        stored_size=size,
    )
    return split, [str(path) for path in listing.paths[~readable]]


def _reasons(paths):
    named = ", ".join(f"{path} ({_reason(path)})" for path in paths[:NAMED])
    return f"{named} and {len(paths) - NAMED:,} more" if len(paths) > NAMED else named


def _reason(path):
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        return error.strerror
    if not start:
        return "empty"
    if start.startswith(b"\xff\xd8\xff"):
        return "damaged JPEG"
    return "damaged PNG" if start == b"\x89PNG" else "neither JPEG nor PNG"


def _some(names):
    names = sorted(names)
    return ", ".join(names[:NAMED]) + ", …" * (len(names) > NAMED) or "none"


def _images(number):
    return "1 image" if number == 1 else f"{number:,} images"
