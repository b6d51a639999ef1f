"""Images and their labels, wherever they lie: files, memory, records, or some of them.

TensorFlow is imported where an image is read: listing needs none.
"""

import contextlib
import dataclasses
import functools
import os
import unicodedata
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.console import some
from kmlp.errors import InputError
from kmlp.typing import Config, Tensor

# Images up to this height and width are small: they have recipes of their own.
LARGEST_SMALL = 64
# The number of images sampled to tell whether a data set's are small.
SAMPLE = 16


def steps_per_epoch(images: int, global_batch: int) -> int:
    """Return the full batches in a number of images.

    Raises:
        InputError: If there is none.
    """
    steps = images // global_batch
    if not steps:
        raise InputError(
            f"A batch takes more images than there are to train on, {images:,} images: "
            f"lower batch_size. Received: batch_size={global_batch}"
        )
    return steps


def check_folder(folder: Path, layout: str) -> None:
    """Refuse a path that is no folder.

    Args:
        folder: Path that `--data` names.
        layout: Description of what belongs there, the beginning of the message.

    Raises:
        InputError: If `folder` is a file or does not exist.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{layout}; this {what}. Received: {str(folder)!r}")


def differences(
    ours: Collection[str], theirs: Collection[str], here: str, there: str
) -> str:
    """Name the classes that two places do not share.

    Args:
        ours, theirs: Names of the classes in either place.
        here, there: Names of the places.
    """
    alone = [set(a) - set(b) for a, b in ((ours, theirs), (theirs, ours))]
    said = f"only in {here}: {some(alone[0])}; only in {there}: {some(alone[1])}"
    known = {alike(name): name for name in alone[1]}
    twins = [(name, known[alike(name)]) for name in alone[0] if alike(name) in known]
    if not twins:
        return said
    pairs = some(f"{a!a} and {b!a}" for a, b in sorted(twins))
    return f"{said}; only blanks, case or Unicode's forms differ in {pairs}"


def alike(name: str) -> str:
    """Return what names that look alike share: one form of Unicode, no outer blanks."""
    return unicodedata.normalize("NFC", name).strip().casefold()


@contextlib.contextmanager
def disk_errors_reported() -> Iterator[None]:
    """Turn an `OSError`, such as a missing permission, into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"--data: {error}") from error


@dataclasses.dataclass(frozen=True)
class Files:
    """Images in files.

    Attributes:
        paths: Paths `(N,)` of the files.
        labels: Class numbers `(N,)`.
    """

    paths: np.ndarray
    labels: np.ndarray
    in_memory = False

    def __len__(self):
        return len(self.paths)

    def reader(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return a function of an index to `(encoded image, label)`, for a graph."""
        import tensorflow as tf

        # Names of files need not be UTF-8, which TensorFlow would make of text.
        encoded = np.array([os.fsencode(path) for path in self.paths], object)
        paths, labels = _constants(encoded, self.labels)
        return lambda index: (tf.io.read_file(paths[index]), labels[index])

    def place(self, index: int) -> str:
        """Return where an image lies, for people."""
        return str(self.paths[index])

    def size_in_bytes(self) -> float:
        """Estimate how much there is to read, from the sizes of some files."""
        some = self.paths[:: max(1, len(self.paths) // 1000)]
        sizes = [os.path.getsize(path) for path in some if os.path.exists(path)]
        return len(self.paths) * (sum(sizes) / max(1, len(sizes)))


@dataclasses.dataclass(frozen=True)
class Memory:
    """Images in memory.

    Attributes:
        images: Encoded images `(N,)` as bytes, or decoded ones `(N, H, W, 3)`, uint8.
        labels: Class numbers `(N,)`.
    """

    images: Any
    labels: np.ndarray
    in_memory = True

    def __len__(self):
        return len(self.labels)

    def reader(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return a function of an index to `(image, label)`, for a graph."""
        images, labels = _constants(self.images, self.labels)
        return lambda index: (images[index], labels[index])

    def place(self, index: int) -> str:
        return f"image {index} in memory"

    def size_in_bytes(self) -> float:
        return 0


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Images of another store.

    Attributes:
        store: Store of all images.
        indices: Numbers `(N,)` of the chosen ones.
    """

    store: Any
    indices: np.ndarray

    @property
    def in_memory(self) -> bool:
        return self.store.in_memory

    @property
    def labels(self) -> np.ndarray | None:
        labels = self.store.labels
        return None if labels is None else np.asarray(labels)[self.indices]

    def __len__(self):
        return len(self.indices)

    def reader(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        read = self.store.reader()
        (indices,) = _constants(self.indices)
        return lambda index: read(indices[index])

    def place(self, index: int) -> str:
        return self.store.place(int(self.indices[index]))

    def size_in_bytes(self) -> float:
        return self.store.size_in_bytes() * len(self) / max(1, len(self.store))


def _constants(*arrays):
    import tensorflow as tf

    with tf.device("CPU"):
        return [tf.constant(array) for array in arrays]


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of training or validation.

    Attributes:
        name: Name of the data set and the split.
        store: Storage: `Files`, `Memory`, `Subset` or another with their methods.
        mean, std: Statistics per channel, of images in 0…1; `None` if unknown.
        on_corrupt: What to do where an image cannot be decoded, `"stop"` or `"skip"`.
        upright: Whether JPEGs are turned as their EXIF states.
    """

    name: str
    store: Any
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    on_corrupt: str = "stop"
    upright: bool = False

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.store)

    @property
    def labels(self) -> np.ndarray | None:
        """Return class numbers `(count,)`; `None` if only images bring them."""
        return self.store.labels


def some_of(split: Split, count: int | None) -> Split:
    """Return a split of at most `count` images, evenly from every class.

    Args:
        split: Images to choose from.
        count: Number of images; `None` or more than there are: all.
    """
    if count is None or count >= split.count:
        return split
    order = np.arange(split.count)
    if split.labels is not None:
        order = np.argsort(np.asarray(split.labels), kind="stable")
    chosen = np.linspace(0, split.count - 1, count).round().astype("int64")
    return dataclasses.replace(split, store=Subset(split.store, order[chosen]))


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set of two splits.

    Attributes:
        name: Name for the person and the report.
        class_names: Names in the order of the labels.
        train: Images of training; `None` where a source is for evaluation only.
        validation: Images of validation.
        flip: Whether a mirrored image is as good an example.
        skipped: Files that were left out as unreadable.
        ignored: What else lies there, in words.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split | None
    validation: Split
    flip: bool = True
    skipped: tuple[str, ...] = ()
    ignored: str = ""

    def in_words(self) -> str:
        """Return name, numbers of images and of classes."""
        train = f"{self.train.count:,} images to train, " if self.train else ""
        return (
            f"{self.name}: {train}{self.validation.count:,} to validate, "
            f"{len(self.class_names):,} classes"
        )

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Return the mean per channel of images in 0…1; `None` if unknown."""
        return self.validation.mean

    @property
    def std(self) -> tuple[float, ...] | None:
        """Return the deviation per channel of images in 0…1; `None` if unknown."""
        return self.validation.std

    def with_exif(self, exif: str) -> "Source":
        """Return the source with JPEGs as they lie, or as their EXIF turns them.

        Args:
            exif: Treatment of the orientation, `"ignore"`, as the published trainers
                do, or `"apply"`.
        """
        upright: Config = {
            name: dataclasses.replace(split, upright=exif == "apply")
            for name, split in self.splits.items()
        }
        return dataclasses.replace(self, **upright)

    @functools.cached_property
    def small(self) -> bool:
        """Return whether sampled sides have at most `LARGEST_SMALL` pixels."""
        import tensorflow as tf

        from kmlp.data.decode import decode

        split = self.train or self.validation
        read = split.store.reader()
        some = np.unique(np.linspace(0, split.count - 1, SAMPLE).astype(int))
        sizes = tf.data.Dataset.from_tensor_slices(some)
        sizes = sizes.map(lambda index: tf.shape(decode(read(index)[0]))[:2])
        found = list(sizes.ignore_errors().as_numpy_iterator())
        return bool(found) and int(np.max(found)) <= LARGEST_SMALL

    @property
    def splits(self) -> dict[str, Split]:
        """Return the splits that exist, by their attributes' names."""
        both = {"train": self.train, "validation": self.validation}
        return {name: split for name, split in both.items() if split is not None}
