"""A data set in memory, and the `.npz` file that holds it."""

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kmlp.atomic import new_file
from kmlp.console import NAMED, first_line
from kmlp.data.image_files import SUFFIXES
from kmlp.data.pictures import Unreadable, read_image
from kmlp.data.sources import image_folder
from kmlp.errors import InputError, RunError
from kmlp.typing import Config, PathLike

# Names of the arrays here, and in the files that others make of such data.
OWN = ("train_images", "train_labels", "test_images", "test_labels")
OTHERS = ("x_train", "y_train", "x_test", "y_test")


@dataclasses.dataclass(frozen=True)
class Packed:
    """A data set in memory.

    Attributes:
        name: Name for people.
        class_names: Names in the order of the labels.
        train_images, test_images: Images `(N, S, S, 3)` uint8.
        train_labels, test_labels: Class numbers `(N,)`, int32.
        content: Fingerprint of all of that, wherever it lies.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    content: str

    def part(self, training: int, test: int) -> "Packed":
        """Return the first images of every class, so many in all of each split."""
        changes = {}
        for split, count in (("train", training), ("test", test)):
            labels = getattr(self, f"{split}_labels")
            chosen = first_of_each(labels, len(self.class_names), count)
            changes[f"{split}_labels"] = labels[chosen]
            changes[f"{split}_images"] = getattr(self, f"{split}_images")[chosen]
        return dataclasses.replace(self, **changes)


def first_of_each(labels: np.ndarray, classes: int, count: int) -> np.ndarray:
    """Return indices of the first images of every class, about `count` in all."""
    each = max(1, count // classes)
    chosen = [np.flatnonzero(labels == label)[:each] for label in range(classes)]
    return np.sort(np.concatenate(chosen))


def write(packed: Packed, path: PathLike) -> None:
    """Write an `.npz` that `read` takes."""
    names = (*OWN, "class_names", "content")
    arrays: Config = {name: np.array(getattr(packed, name)) for name in names}
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def read(path: PathLike, name: str | None = None) -> Packed:
    """Return the images of an `.npz` file.

    Args:
        path: File of arrays named as in `OWN`, or as in `OTHERS` like those of
            `keras.datasets`.
        name: Name for people; `None`: the path.

    Raises:
        ValueError, KeyError, OSError, …: If anything is wrong with the file.
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
    classes = tuple(map(str, range(count) if classes is None else classes))
    if count > len(classes):
        raise ValueError(f"{len(classes)} class names for {count} classes")
    if arrays[0].shape[1] != arrays[2].shape[1]:
        raise ValueError("images to train and to test on must have one size")
    content = content or content_of(classes, arrays)
    return Packed(name or str(path), classes, *(*arrays, content))


def content_of(class_names: Sequence[str], arrays: Sequence[np.ndarray]) -> str:
    """Return a fingerprint of what is learned from."""
    mark = hashlib.sha256(repr(list(class_names)).encode())
    for array in arrays:
        mark.update(repr((array.shape, str(array.dtype))).encode())
        mark.update(np.ascontiguousarray(array).data)
    return mark.hexdigest()


NPZ = ".npz"


def open_packed(
    spec: PathLike,
    size: int,
    folder: PathLike,
    on_corrupt: str = "stop",
    exif: str = "ignore",
) -> Packed:
    """Return the images that `--data` names, packed where they are not.

    Args:
        spec: Image folder, or an `.npz` file of arrays.
        size: Height and width of the images; those of a folder are brought to it.
        folder: Folder in which packed folders are kept.
        on_corrupt: What to do where images cannot be decoded, `"stop"` or `"skip"`.
        exif: Treatment of the orientation that a JPEG's EXIF states, `"ignore"` or
            `"apply"`.

    Raises:
        InputError: If there is nothing, or images cannot be decoded.
        RunError: If the packed images cannot be written.
    """
    path = Path(spec).expanduser()
    if path.suffix.lower() == NPZ:
        return _sized(_given(path), size)
    try:
        source = image_folder(path, on_corrupt).with_exif(exif)
        mark = _listing(source, Path(source.name), size, on_corrupt)
    except OSError as error:  # no permission, a lost disk
        raise InputError(f"--data: {error}") from error
    kept = Path(folder) / f"{Path(source.name).name}-{size}-{mark[:8]}{NPZ}"
    if kept.exists():
        try:
            return read(kept, source.name)
        except Exception as error:  # whatever damage makes its readers raise
            print(
                f"The packed images {kept} are damaged ({first_line(error)}): packing "
                "again.",
                file=sys.stderr,
            )
    count = sum(split.count for split in source.splits.values())
    print(f"Packing {count:,} images once: {source.name}", flush=True)
    packed = _pack(source, size)
    try:
        with new_file(kept) as draft:
            write(packed, draft)
    except OSError as error:
        raise RunError(
            f"The packed images cannot be written ({error.strerror or error}): make "
            "room, or choose another --output. "
            f"Received: {str(kept)!r}",
        ) from error
    print(f"Packed into {kept}, which --data takes too", flush=True)
    return packed


def _given(path):
    if not path.is_file():
        raise InputError(f"--data: this file does not exist. Received: {str(path)!r}")
    try:
        return read(path)
    except Exception as error:
        raise InputError(
            f"This file cannot be read: it takes arrays named {', '.join(OWN)}, or "
            f"{', '.join(OTHERS)}; copy it again or pack the image folder again. "
            f"Received: {str(path)!r} ({first_line(error).strip(chr(34) + chr(39))})"
        ) from error


def _sized(packed, size):
    own = packed.train_images.shape[1]
    if own != size:
        raise InputError(
            f"The packed images have {own}x{own} pixels, the recipe {size}x{size}: "
            f"pass --image-size {own}, or the image folder. Received: {packed.name}"
        )
    return packed


def _pack(source, size):
    """Decode the images of an image folder and bring them to one size."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise InputError(
            "An image folder is packed by Pillow: install Pillow, or pack it on "
            "another machine and pass the .npz file. Received: no module PIL"
        ) from error
    arrays, bad, resized = [], [], 0
    for split in (source.train, source.validation):
        store = split.store
        images = np.empty((len(store), size, size, 3), np.uint8)
        good = np.ones(len(store), bool)
        for index, path in enumerate(store.paths):
            try:
                images[index], changed = _decoded(path, size, split.upright)
                resized += changed
            except Unreadable as error:
                good[index] = False
                bad.append(str(error))
            except OSError as error:
                good[index] = False
                bad.append(f"{path} ({error.strerror})")
        labels = store.labels[good].astype(np.int32)
        empty = set(range(len(source.class_names))) - set(labels.tolist())
        if empty and source.validation.on_corrupt == "skip":
            raise InputError(
                "No image of a class can be decoded: replace what is damaged. Received:"
                f" {source.class_names[min(empty)]!r} in {split.name}"
            )
        arrays += [images[good], labels]
    if bad:
        some = ", ".join(bad[:NAMED])
        some += f" and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
        noun = _images(len(bad))
        if source.validation.on_corrupt == "stop":
            raise InputError(
                f"{noun} cannot be decoded: replace or remove what is damaged, or pass "
                f"--on-corrupt skip to train on the rest. Received: {some}"
            )
        print(f"Skipped {noun}: {some}")
    if resized:
        print(f"Brought {_images(resized)} of another size to {size}x{size}")
    content = content_of(source.class_names, arrays)
    return Packed(source.name, tuple(source.class_names), *arrays, content)


def _images(number):
    return "1 image" if number == 1 else f"{number:,} images"


def _decoded(path, size, upright):
    """Return an image's central square at a size, and whether that changed it."""
    from PIL import Image

    image = Image.fromarray(read_image(path, upright))
    if image.size == (size, size):
        return np.asarray(image), False
    # As `kmlp.data.decode.centre_crop` has it.
    sides = [side * size // min(image.size) for side in image.size]
    image = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in sides)
    return np.asarray(image.crop((left, top, left + size, top + size))), True


def _listing(source, root, size, on_corrupt):
    """Return a fingerprint of a folder's files without reading them."""
    rules = (size, on_corrupt, SUFFIXES, source.validation.upright)
    mark = hashlib.sha256(repr(rules).encode())
    for split in (source.train, source.validation):
        for path in split.store.paths:
            found = Path(path).stat()
            name = Path(path).relative_to(root)
            line = f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n"
            mark.update(line.encode(errors="surrogateescape"))
    return mark.hexdigest()
