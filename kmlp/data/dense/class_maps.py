"""Pictures and class maps in files of their own."""

import numpy as np

from kmlp.console import some
from kmlp.data.dense.source import (
    VOID,
    DenseSplit,
    Unreadable,
    image_size,
    read_image,
    read_map,
)
from kmlp.errors import InputError

# A number that a map must not hold.
UNKNOWN = 254


def numbering(classes):
    """A table from the numbers in files to the numbers of classes.

    Args:
        classes: `{number in files: number of the class, or VOID}`.

    Returns:
        `(256,)` uint8; numbers that are not in `classes` are `UNKNOWN`.
    """
    table = np.full(256, UNKNOWN, "uint8")
    for number, target in classes.items():
        table[number] = target
    return table


class MapSplit(DenseSplit):
    """Pictures and their class maps.

    Args:
        name: for people.
        images, maps: paths, of the same length.
        table: of `numbering`; one, or a function of a map's path to one.
        on_corrupt: `"stop"` or `"skip"`.
    """

    def __init__(self, name, images, maps, table, on_corrupt="stop"):
        self.name, self.images, self.maps = name, images, maps
        self.on_corrupt = on_corrupt
        self.count = len(images)
        self._table = table if callable(table) else lambda path: table
        self._size = ()

    @property
    def size(self):
        """Height and width that all pictures have by their headers, or `None`."""
        if self._size == ():
            self._size = self._common()
        return self._size

    def image(self, index):
        return read_image(self.images[index])

    def annotation(self, index):
        path = self.maps[index]
        numbers = read_map(path)
        shown = image_size(self.images[index])
        if numbers.shape != shown:
            raise Unreadable(
                path,
                f"a map of {numbers.shape[0]} x {numbers.shape[1]} for an image of "
                f"{shown[0]} x {shown[1]}",
            )
        if numbers.dtype != np.uint8:
            if numbers.min() < 0 or numbers.max() > VOID:
                raise Unreadable(path, f"number {numbers.max()} of no class")
            numbers = numbers.astype("uint8")
        found = self._table(path)[numbers]
        if (found == UNKNOWN).any():
            wrong = numbers[found == UNKNOWN][0]
            raise Unreadable(path, f"number {wrong} of no class")
        return found

    def image_size(self, index):
        return image_size(self.images[index])

    def place(self, index):
        return str(self.images[index])

    def image_id(self, index):
        return self.images[index].stem

    def _common(self):
        sizes = set()
        for path in self.images:
            try:
                sizes.add(image_size(path))
            except Unreadable:
                continue  # said, or skipped, when it is read
            if len(sizes) > 1:
                return None
        return sizes.pop() if sizes else None


def check_layout(folder, parts, layout):
    """Refuses a folder without folders that it must have.

    Args:
        folder: `pathlib.Path`.
        parts: of folders within it.
        layout: what is expected, for people.

    Raises:
        InputError: one is missing.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{layout}; this {what}. Received: {str(folder)!r}")
    for part in parts:
        if not (folder / part).is_dir():
            raise InputError(f"{layout}; there is no {part}. Received: {str(folder)!r}")


def paired(images, maps, layout, folder):
    """Paths of maps in the order of the images.

    Args:
        images: `{name: path}`.
        maps: the same.
        layout: what is expected, for people.
        folder: that was asked for.

    Returns:
        `(images, maps)`: lists of paths, sorted by name.

    Raises:
        InputError: no image, or one without a map.
    """
    if not images:
        raise InputError(f"{layout}; there are no images. Received: {str(folder)!r}")
    missing = images.keys() - maps.keys()
    if missing:
        raise InputError(
            f"{layout}; {len(missing):,} of {len(images):,} images have no map: "
            f"{some(missing)}. Received: {str(folder)!r}"
        )
    names = sorted(images)
    return [images[name] for name in names], [maps[name] for name in names]
