"""A data set in memory, and the `.npz` file that holds it."""

import dataclasses
import hashlib

import numpy as np

# What arrays are called here, and in the files that others make of such data.
OWN = ("train_images", "train_labels", "test_images", "test_labels")
OTHERS = ("x_train", "y_train", "x_test", "y_test")


@dataclasses.dataclass(frozen=True)
class Packed:
    """A data set in memory.

    Attributes:
        name: for people.
        class_names: in the order of the labels.
        train_images, test_images: `(N, S, S, 3)` uint8.
        train_labels, test_labels: `(N,)` int32.
        content: fingerprint of all of that, wherever it lies.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    content: str

    def part(self, training, test):
        """The first images of every class, so many in all of each split."""
        changes = {}
        for split, count in (("train", training), ("test", test)):
            labels = getattr(self, f"{split}_labels")
            chosen = first_of_each(labels, len(self.class_names), count)
            changes[f"{split}_labels"] = labels[chosen]
            changes[f"{split}_images"] = getattr(self, f"{split}_images")[chosen]
        return dataclasses.replace(self, **changes)


def first_of_each(labels, classes, count):
    """Indices of the first images of every class, about `count` in all."""
    each = max(1, count // classes)
    chosen = [np.flatnonzero(labels == label)[:each] for label in range(classes)]
    return np.sort(np.concatenate(chosen))


def write(packed, path):
    """Writes an `.npz` that `read` takes."""
    arrays = {name: getattr(packed, name) for name in OWN}
    texts = {"class_names": list(packed.class_names), "content": packed.content}
    with open(path, "wb") as file:
        np.savez(file, **arrays, **{k: np.array(v) for k, v in texts.items()})


def read(path, name=None):
    """The images of an `.npz` file.

    Args:
        path: of arrays named as in `OWN`, or as in `OTHERS` like those of
            `keras.datasets`.
        name: for people; `None`: the path.

    Raises:
        ValueError, KeyError, OSError, …: whatever is wrong with the file.
    """
    with np.load(path, allow_pickle=False) as file:
        names = OWN if OWN[0] in file.files else OTHERS
        missing = [name for name in names if name not in file.files]
        if missing:
            raise KeyError(f"no array {missing[0]}")
        # A checksum of the format is verified for each array.
        arrays = [file[name] for name in names]
        classes = file["class_names"] if "class_names" in file.files else None
        content = str(file["content"]) if "content" in file.files else None
    for index in (1, 3):
        arrays[index] = arrays[index].reshape(-1)
        images, labels = arrays[index - 1 : index + 1]
        square = images.ndim == 4 and images.shape[1] == images.shape[2]
        if images.dtype != np.uint8 or not square or images.shape[3] != 3:
            raise ValueError(
                f"{names[index - 1]} must be uint8 (N, S, S, 3), not {images.dtype} "
                f"{images.shape}"
            )
        if not len(labels) or len(labels) != len(images):
            raise ValueError(f"{len(images)} images with {len(labels)} labels")
        if labels.dtype.kind not in "iu" or labels.min() < 0:
            raise ValueError(f"{names[index]} must be class numbers from 0")
        arrays[index] = labels.astype(np.int32)
    count = int(max(arrays[1].max(), arrays[3].max())) + 1
    classes = map(str, range(count) if classes is None else classes)
    classes = tuple(classes)
    if count > len(classes):
        raise ValueError(f"{len(classes)} class names for {count} classes")
    if arrays[0].shape[1] != arrays[2].shape[1]:
        raise ValueError("images to train and to test on must have one size")
    content = content or content_of(classes, arrays)
    return Packed(name or str(path), classes, *arrays, content)


def content_of(class_names, arrays):
    """A fingerprint of what is learned from."""
    mark = hashlib.sha256(repr(list(class_names)).encode())
    for array in arrays:
        mark.update(repr((array.shape, str(array.dtype))).encode())
        mark.update(np.ascontiguousarray(array))
    return mark.hexdigest()
