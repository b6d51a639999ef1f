"""Images and their labels, wherever they lie: files, memory or records.

TensorFlow is imported where an image is read: listing needs none.
"""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from kmlp.errors import InputError

# Images up to this height and width are small: they have recipes of their own.
LARGEST_SMALL = 64
# How many of a data set's images tell whether it has small ones.
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


@dataclasses.dataclass(frozen=True)
class Files:
    """Images in files.

    Attributes:
        paths: `(N,)`.
        labels: `(N,)` class numbers.
    """

    paths: np.ndarray
    labels: np.ndarray
    in_memory = False

    def __len__(self):
        return len(self.paths)

    def reader(self):
        """A function of an index to `(encoded image, label)`, for a graph."""
        import tensorflow as tf

        with tf.device("CPU"):
            paths, labels = tf.constant(self.paths), tf.constant(self.labels)
        return lambda index: (tf.io.read_file(paths[index]), labels[index])

    def place(self, index):
        """Where an image lies, for people."""
        return str(self.paths[index])

    def size_in_bytes(self):
        """Estimated from the sizes of some files."""
        some = self.paths[:: max(1, len(self.paths) // 1000)]
        sizes = [os.path.getsize(path) for path in some if os.path.exists(path)]
        return len(self.paths) * (sum(sizes) / max(1, len(sizes)))


@dataclasses.dataclass(frozen=True)
class Memory:
    """Images in memory.

    Attributes:
        images: `(N,)` encoded images as bytes, or `(N, H, W, 3)` uint8.
        labels: `(N,)` class numbers.
    """

    images: Any
    labels: np.ndarray
    in_memory = True

    def __len__(self):
        return len(self.labels)

    def reader(self):
        """A function of an index to `(image, label)`, for a graph."""
        import tensorflow as tf

        with tf.device("CPU"):
            images, labels = tf.constant(self.images), tf.constant(self.labels)
        return lambda index: (images[index], labels[index])

    def place(self, index):
        """Where an image lies, for people."""
        return f"image {index} in memory"

    def size_in_bytes(self):
        """Nothing has to be read."""
        return 0


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of training or validation.

    Attributes:
        name: of the data set and the split.
        store: `Files`, `Memory` or another with their methods.
        mean, std: per channel, of images in 0…1; `None` where nobody knows.
        on_corrupt: `"stop"` or `"skip"` where an image cannot be decoded.
    """

    name: str
    store: Any
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    on_corrupt: str = "stop"

    @property
    def count(self):
        """Number of images."""
        return len(self.store)

    @property
    def labels(self):
        """`(count,)` class numbers; `None` where they come with the images only."""
        return self.store.labels


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set of two splits.

    Attributes:
        name: for the person and the report.
        class_names: in the order of the labels.
        train: `Split`; `None` where a source is for evaluation only.
        validation: `Split`.
        flip: whether a mirrored image is as good an example.
        skipped: files that were left out as unreadable.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split | None
    validation: Split
    flip: bool = True
    skipped: tuple[str, ...] = ()

    @property
    def mean(self):
        """Per channel, of images in 0…1; `None` where nobody knows."""
        return self.validation.mean

    @property
    def std(self):
        """Per channel, of images in 0…1; `None` where nobody knows."""
        return self.validation.std

    @functools.cached_property
    def small(self):
        """Whether images have at most `LARGEST_SMALL` pixels to a side, by some."""
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
    def splits(self):
        """`{attribute: Split}` of those there are."""
        both = {"train": self.train, "validation": self.validation}
        return {name: split for name, split in both.items() if split is not None}
