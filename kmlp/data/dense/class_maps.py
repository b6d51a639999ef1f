"""Pictures and class maps in files of their own: ADE20K and Cityscapes."""

import contextlib
import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kmlp.console import some
from kmlp.data.dense.source import (
    VOID,
    DenseSource,
    DenseSplit,
    Unreadable,
    image_size,
    palette,
    read_image,
    read_map,
)
from kmlp.data.images import check_folder
from kmlp.errors import InputError

# A number that a map must not hold.
UNKNOWN = 254


def numbering(classes: Mapping[int, int]) -> np.ndarray:
    """Return a table from the numbers in files to the numbers of classes.

    Args:
        classes: Classes as `{number in files: number of the class, or VOID}`.

    Returns:
        Table `(256,)`, uint8; numbers that are not in `classes` are `UNKNOWN`.
    """
    table = np.full(256, UNKNOWN, "uint8")
    for number, target in classes.items():
        table[number] = target
    return table


ADE20K_LAYOUT = (
    "--data ade20k:DIR takes a folder with images/training/*.jpg, images/validation/"
    "*.jpg and maps of the same names, annotations/training/*.png and "
    "annotations/validation/*.png"
)
# The folder that the archive holds.
INNER = "ADEChallengeData2016"
_CLASSES = Path(__file__).parent / "classes"
# 0 in the files is what belongs to none of the classes.
NUMBERS = numbering({0: VOID} | {number: number - 1 for number in range(1, 151)})

CITYSCAPES_LAYOUT = (
    "--data cityscapes:DIR takes a folder with leftImg8bit/{train,val}/CITY/"
    "*_leftImg8bit.png and gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png or "
    "*_gtFine_labelIds.png"
)
# Name, number in labelIds, official colour; the order is that of trainIds.
with open(_CLASSES / "cityscapes.csv", encoding="utf-8", newline="") as _table:
    _, *_ROWS = csv.reader(_table)
_IMAGE = "_leftImg8bit.png"
_TRAIN_IDS, _LABEL_IDS = "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"
_LAST_ID = 33
TRAIN_IDS = numbering({VOID: VOID} | {n: n for n in range(len(_ROWS))})
LABEL_IDS = numbering(
    {number: VOID for number in range(_LAST_ID + 1)}
    | {VOID: VOID}  # the licence plate, -1
    | {int(row[1]): index for index, row in enumerate(_ROWS)}
)


class MapSplit(DenseSplit):
    """Pictures and their class maps.

    Args:
        name: Name for people.
        images, maps: Paths, of the same length.
        table: Function of a map's path to its `numbering`.
        on_corrupt: What to do with damaged files, `"stop"` or `"skip"`.
    """

    def __init__(
        self,
        name: str,
        images: Sequence[Path],
        maps: Sequence[Path],
        table: Callable[[Path], np.ndarray],
        on_corrupt: str = "stop",
    ):
        self.name, self.images, self.maps = name, images, maps
        self.on_corrupt = on_corrupt
        self.count = len(images)
        self._table = table

    @functools.cached_property
    def size(self) -> tuple[int, int] | None:
        """Return the one height and width in all pictures' headers, or `None`."""
        sizes: set[tuple[int, int]] = set()
        for path in self.images:
            # A damaged picture is met when it is read.
            with contextlib.suppress(Unreadable):
                sizes.add(image_size(path))
            if len(sizes) > 1:
                return None
        return sizes.pop() if sizes else None

    def image(self, index: int) -> np.ndarray:
        return read_image(self.images[index])

    def annotation(self, index: int) -> np.ndarray:
        path = self.maps[index]
        numbers = read_map(path)
        shown = self.image_size(index)
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

    def image_size(self, index: int) -> tuple[int, int]:
        return image_size(self.images[index])

    def place(self, index: int) -> str:
        return str(self.images[index])

    def image_id(self, index: int) -> str:
        return self.images[index].stem


def ade20k(folder: Path, on_corrupt: str = "stop") -> DenseSource:
    """List ADE20K of the scene parsing challenge of 2016, without reading it.

    Args:
        folder: Folder of the data set, or the one that holds it.
        on_corrupt: What to do where pictures cannot be read, `"stop"` or `"skip"`.

    Raises:
        InputError: If there is no such folder, or none in this layout.
    """
    if (folder / INNER).is_dir():
        folder = folder / INNER

    def split(name: str) -> MapSplit:
        parts = [f"images/{name}", f"annotations/{name}"]
        homes = _homes(folder, parts, ADE20K_LAYOUT)
        images, maps = (
            {path.stem: path for path in home.glob(ending)}
            for home, ending in zip(homes, ("*.jpg", "*.png"))
        )
        images, maps = _paired(images, maps, ADE20K_LAYOUT, folder)
        return MapSplit(str(homes[0]), images, maps, lambda path: NUMBERS, on_corrupt)

    names = tuple((_CLASSES / "ade20k.txt").read_text(encoding="utf-8").splitlines())
    return DenseSource(
        name=f"ade20k:{folder}",
        task="segmentation",
        class_names=names,
        train=split("training"),
        validation=split("validation"),
        palette=palette(len(names)),
    )


def cityscapes(folder: Path, on_corrupt: str = "stop") -> DenseSource:
    """List Cityscapes with the 19 classes that are scored, without reading it.

    Args:
        folder: Folder of the data set.
        on_corrupt: What to do where pictures cannot be read, `"stop"` or `"skip"`.

    Raises:
        InputError: If there is no such folder, or none in this layout.
    """

    def split(name: str) -> MapSplit:
        parts = [f"leftImg8bit/{name}", f"gtFine/{name}"]
        home, truth = _homes(folder, parts, CITYSCAPES_LAYOUT)
        listed = _in_cities(truth, _LABEL_IDS) | _in_cities(truth, _TRAIN_IDS)
        shown = _in_cities(home, _IMAGE)
        images, maps = _paired(shown, listed, CITYSCAPES_LAYOUT, folder)
        return MapSplit(str(home), images, maps, _cityscapes_numbers, on_corrupt)

    return DenseSource(
        name=f"cityscapes:{folder}",
        task="segmentation",
        class_names=tuple(row[0] for row in _ROWS),
        train=split("train"),
        validation=split("val"),
        palette=np.array([row[2:] for row in _ROWS], int).astype("uint8"),
    )


def _cityscapes_numbers(path):
    return TRAIN_IDS if path.name.endswith(_TRAIN_IDS) else LABEL_IDS


def _in_cities(home, ending):
    """Return `{city/name: path}` of the files of an ending."""
    return {
        f"{path.parent.name}/{path.name.removesuffix(ending)}": path
        for path in home.glob(f"*/*{ending}")
    }


def _homes(folder, parts, layout):
    """Return the folders within a folder that must be there."""
    check_folder(folder, layout)
    for part in parts:
        if not (folder / part).is_dir():
            raise InputError(f"{layout}; there is no {part}. Received: {str(folder)!r}")
    return [folder / part for part in parts]


def _paired(images, maps, layout, folder):
    """Return the paths of images and of their maps, both sorted by name.

    Args:
        images, maps: Files as `{name: path}`.
        layout: Beginning of a message.
        folder: Folder that was asked for.
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
