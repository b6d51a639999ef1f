"""Some of a data set's images, spread over its classes."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Images of another store, by their indices.

    Attributes:
        store: `Files`, `Memory` or another with their methods.
        indices: `(N,)` of it.
    """

    store: Any
    indices: np.ndarray

    @property
    def in_memory(self):
        return self.store.in_memory

    @property
    def labels(self):
        """`(N,)` class numbers; `None` where they come with the images only."""
        labels = self.store.labels
        return None if labels is None else np.asarray(labels)[self.indices]

    def __len__(self):
        return len(self.indices)

    def reader(self):
        """A function of an index to `(image, label)`, for a graph."""
        read = self.store.reader()
        with tf.device("CPU"):
            indices = tf.constant(self.indices, tf.int64)
        return lambda index: read(indices[index])

    def place(self, index):
        """Where an image lies, for people."""
        return self.store.place(int(self.indices[index]))

    def size_in_bytes(self):
        """As a share of the whole's."""
        return self.store.size_in_bytes() * len(self) / max(1, len(self.store))


def some_of(split, count):
    """A split of at most `count` images, evenly from every class.

    Args:
        split: `kmlp.data.images.Split`.
        count: number of images; `None` or more than there are: all.
    """
    if count is None or count >= split.count:
        return split
    order = np.arange(split.count)
    if split.labels is not None:
        order = np.argsort(np.asarray(split.labels), kind="stable")
    chosen = np.linspace(0, split.count - 1, count).round().astype("int64")
    return dataclasses.replace(split, store=Subset(split.store, order[chosen]))
